"""A device as a worker: runs the rows that arrive for its stages, and sends them on."""

from collections.abc import Iterable

from swisd.core import deadlines
from swisd.core.effects import Notice, Publish, RunStep, SendFrame
from swisd.core.events import FrameArrived, FrameLost, LinkLost, StepDone, StepFailed
from swisd.core.held import HeldRows
from swisd.core.local import Effects, Local
from swisd.core.messages import Call, Repair
from swisd.core.pace import Pace
from swisd.core.place import Place, place_of
from swisd.core.rows import TO_THE_END, Activation, Following, Sample, Score, Work
from swisd.core.shards import Stages
from swisd.core.types import Plan, Slot, Stage, Units

ANY_STEP = (1 << 31) - 1


class Worker:
    """Runs shards. The sessions' meaning is the driver's; a worker knows only their steps."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._place = Place()
        self.held = HeldRows(local)
        self.pace = Pace()
        self._noted = ""

    @property
    def stages(self) -> Stages:
        """This device's stages of the plan in service, with their places."""
        return self._place.stages

    @property
    def devices(self) -> int:
        """How many devices run the pipeline that this one is part of, or 1."""
        return max(self._place.devices, 1)

    def take_rows(self, session: str, units: Units, position: int, rows: int, now: float) -> bool:
        """Note rows that another device gives; False if they leave a gap, or nothing is new in them."""
        stages = {
            number
            for number, stage in self._place.stages
            if set(range(*units)) & set(self.held.layers(stage))
        }
        return self.held.caches.take(session, units, position, rows, now, stages)

    def serve(self, plan: Plan, *, same_model: bool, out: Effects) -> None:
        """Run the stages of this plan from now on. What is held of sessions stays where its layers stay."""
        before, self._place = self._place, place_of(plan, self._local.device)
        if before.stages != self._place.stages:
            self.pace.forget()
        self.held.serve(self._place.stages, plan.epoch, same_model=same_model, out=out)

    # --- rows --------------------------------------------------------------------------------------

    def on_frame(self, event: FrameArrived, now: float, out: Effects) -> Activation | None:
        """Check rows from another device. Returns them if they are for the head, which the driver runs."""
        activation, plan = event.activation, self._local.plan
        if plan is None or activation.epoch != plan.epoch or self._local.ready_epoch < plan.epoch:
            self._local.drop("frame of another epoch")
            return None
        place = self._place
        stage = place.at.get(activation.stage)
        if stage is None or activation.pipeline != place.pipeline:
            self._local.drop("frame for a stage of another device")
            return None
        if activation.stage == 0 or place.ring[activation.stage - 1] != event.sender:
            self._local.drop("frame from a device that is not the stage before")
            return None
        if not activation.slots or any(self.held.caches.over(slot.session) for slot in activation.slots):
            self._local.drop("rows of a session that ended")
            return None
        for slot in activation.slots:
            if slot.position + slot.rows > plan.context:
                self._local.drop("frame beyond the context")
                return None
        if not self._in_order(activation, stage, now, out):
            return None
        return self._enter(activation, now, out)

    def run(
        self,
        activation: Activation,
        now: float,
        out: Effects,
        sample: Sample | None = None,
        score: Score | None = None,
        following: Following | None = None,
    ) -> None:
        """Run rows through a stage of this device; `sample` or `score` is what the head does with them."""
        stage = self._place.at.get(activation.stage)
        slot = activation.slots[0]
        if stage is None:
            self._local.drop("rows for a stage of another device")
            return
        work = Work(activation.epoch, activation.stage, slot.session, slot.step)
        together = self._together(activation, now)
        onward, inward = self._onward(activation), self._inward(activation, following)
        out.append(RunStep(work, stage.units, activation, sample, score, together, following, onward, inward))

    def _together(self, activation: Activation, now: float) -> int:
        """How many sessions may share a pass here: as many as leave the other devices as many.

        Rows that are run again leave the others nothing to do before they are through: all may share.
        """
        if activation.until != TO_THE_END:
            return max(1, len(self.held.caches))
        return max(1, -(-self.held.caches.active(now - deadlines.ACTIVE) // self.devices))

    def _onward(self, activation: Activation) -> str:
        """The device that these rows go to from here, if that is another one."""
        ring = self._place.ring
        if activation.stage >= min(activation.until, len(ring) - 1):
            return ""
        device = ring[activation.stage + 1]
        return device if device != self._local.device else ""

    def _inward(self, activation: Activation, following: Following | None) -> str:
        """The device that the row behind these comes from, where its step is known before it comes.

        While caches are about to move it is better asked for: what it adds goes with them. How the head
        answers it is known where it is known what follows.
        """
        ring, slot, plan = self._place.ring, activation.slots[0], self._local.plan
        if activation.stage == 0 or activation.until != TO_THE_END or slot.guess:
            return ""
        if activation.stage == len(ring) - 1 and following is None:
            return ""
        if len(activation.slots) != 1 or slot.rows != 1 or self._local.coming is not None or plan is None:
            return ""
        return ring[activation.stage - 1] if slot.position + 2 <= plan.context else ""

    def begin(
        self, activation: Activation, now: float, out: Effects, **head: Sample | Score | Following | None
    ) -> None:
        """Rows that the driver feeds into its first stage."""
        stage = self._place.at.get(0)
        if stage is not None and self._in_order(activation, stage, now, out):
            self.run(activation, now, out, **head)  # type: ignore[arg-type]

    def on_step_done(
        self, event: StepDone, activation: Activation, now: float, out: Effects
    ) -> Activation | None:
        """Keep the rows, and send them on unless they are on their way.

        Returns them if the next stage is this device's own and the last.
        """
        plan = self._local.plan
        if plan is None or event.work.epoch != plan.epoch:
            return None
        stages = plan.pipelines[activation.pipeline].stages
        stage, slot = stages[activation.stage], activation.slots[0]
        self.note_done(activation)
        replayed = activation.until != TO_THE_END
        if not replayed:
            self.pace.note(event, activation, self._place.stages)
        self.held.made(stage, slot, event)
        if activation.stage == min(activation.until, len(stages) - 1):
            if slot.logits and replayed:
                self._tell(plan, slot, activation.until, out)
            return None
        if event.sent:
            return None
        return self.hand_on(activation.onward(event.rows, event.payload, event.ran_ms), plan, now, out)

    def hand_on(self, rows: Activation, plan: Plan, now: float, out: Effects) -> Activation | None:
        """Give rows to the device of their stage. Returns them if that is this one, and the last stage."""
        stage = plan.pipelines[rows.pipeline].stages[rows.stage]
        if stage.device != self._local.device:
            out.append(SendFrame(stage.device, rows))
            return None
        if not self._in_order(rows, stage, now, out):
            return None
        return self._enter(rows, now, out)

    def note_done(self, activation: Activation) -> None:
        """Rows ran through a stage: its caches hold them."""
        if (stage := self._place.at.get(activation.stage)) is not None:
            self.held.ran(activation, stage)

    def _enter(self, activation: Activation, now: float, out: Effects) -> Activation | None:
        last = len(self._place.ring) - 1
        if activation.stage == last and activation.until == TO_THE_END:
            return activation
        if activation.rows or activation.stage != last:
            self.run(activation, now, out)
        return None

    def _in_order(self, activation: Activation, stage: Stage, now: float, out: Effects) -> bool:
        """Whether these are the rows that come next, or ones that are run again; notes them as held."""
        for slot in activation.slots:
            if self.held.caches.repeats(activation.stage, slot):
                self._local.drop("repeated frame")
                return False
            if slot.position > self.held.length(slot.session, stage):
                self._local.drop("frame out of order")
                name = self._local.config.name
                self._fail(
                    slot.session, slot.step, f"rows are missing on {name}: a frame was lost on its way", out
                )
                return False
        self.held.enter(activation, stage, now, out)
        return True

    # --- trouble -----------------------------------------------------------------------------------

    def on_step_failed(self, event: StepFailed, out: Effects) -> None:
        if (stage := self._place.at.get(event.work.stage)) is not None:
            self.held.lose(event.work.session, stage)
        self._fail(
            event.work.session,
            event.work.step,
            f"a step failed on {self._local.config.name}: {event.reason}",
            out,
        )

    def on_frame_lost(self, event: FrameLost, out: Effects) -> None:
        slot = event.activation.slots[0]
        self._fail(
            slot.session,
            slot.step,
            f"rows did not reach {self._local.name_of(event.device)}: {event.reason}",
            out,
        )

    def on_link_lost(self, event: LinkLost, sessions: Iterable[str], out: Effects) -> None:
        """Rows on their way may be gone, and the device with them: driver and host are told.

        `sessions` are those that this device drives; those whose rows it passed on are added.
        """
        plan = self._local.plan
        if plan is None:
            return
        stages = plan.stages_of(self._local.device)
        mine = set(self._place.at)
        beside = {at for number in mine for at in (number - 1, number + 1) if 0 <= at < len(stages)}
        near = {stages[at].device for at in beside}
        if event.device not in near:
            return
        note = f"the link to {self._local.name_of(event.device)} broke: {event.reason}"
        call = Call("broken", self._local.device, about=event.device, epoch=plan.epoch, note=note[:500])
        out.append(Publish(call))
        if event.device in {stages[number + 1].device for number in mine if number + 1 < len(stages)}:
            for session in sorted({*sessions, *self.held.caches}):
                self._fail(session, ANY_STEP, note, out)

    # --- words -------------------------------------------------------------------------------------

    def _tell(self, plan: Plan, slot: Slot, until: int, out: Effects) -> None:
        """The last of the rows that are run again is in the caches."""
        word = Repair(
            "done",
            slot.session,
            plan.epoch,
            slot.step,
            self._local.device,
            until=until,
            end=slot.position + slot.rows,
        )
        if (driver := plan.driver_of(self._local.device)) is not None:
            out.append(Publish(word, to=driver))

    def _fail(self, session: str, step: int, note: str, out: Effects) -> None:
        """Tell the driver that a session is stuck, so that nobody waits for a deadline."""
        plan = self._local.plan
        if note != self._noted:  # each of many sessions may meet the same trouble
            self._noted = note
            out.append(Notice("warning", note))
        if plan is not None and (driver := plan.driver_of(self._local.device)) is not None:
            word = Repair("fail", session, plan.epoch, step, self._local.device, note=note[:500])
            out.append(Publish(word, to=driver))
