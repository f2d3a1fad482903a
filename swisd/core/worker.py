"""A device as a worker: runs the rows that arrive for its stages, and knows what it holds of each session."""

from collections.abc import Iterable

from swisd.core import deadlines
from swisd.core.caches import Caches
from swisd.core.effects import (
    TO_THE_END,
    Activation,
    DropSession,
    ForkKv,
    GiveUp,
    Notice,
    Publish,
    RunStep,
    Sample,
    Score,
    SendFrame,
    Work,
)
from swisd.core.events import FrameArrived, FrameLost, LinkLost, StepDone, StepFailed
from swisd.core.journal import Journal
from swisd.core.local import Effects, Local
from swisd.core.messages import Call, Held, Repair
from swisd.core.pace import Pace
from swisd.core.shards import Stages, own_stages
from swisd.core.types import Plan, Slot, Stage, Units

ANY_STEP = (1 << 31) - 1
ROW_VALUE_BYTES = 4  # activations are float32


class Worker:
    """Runs shards. The sessions' meaning is the driver's; a worker knows only their steps."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._stages: Stages = ()
        self.caches = Caches()
        self.journal = Journal(local.config.journal_bytes)
        self.pace = Pace()
        self._noted = ""

    @property
    def stages(self) -> Stages:
        """This device's stages of the plan in service, with their places."""
        return self._stages

    def take_rows(self, session: str, units: Units, position: int, rows: int, now: float) -> bool:
        """Note rows that another device gives; False if they leave a gap, or nothing is new in them."""
        stages = {number for number, stage in self._stages if set(range(*units)) & set(self._layers(stage))}
        return self.caches.take(session, units, position, rows, now, stages)

    def serve(self, plan: Plan, *, same_model: bool, out: Effects) -> None:
        """Run the stages of this plan from now on. What is held of sessions stays where its layers stay."""
        stages = own_stages(plan, self._local.device)
        if stages != self._stages:
            self.pace.forget()
        self._stages = stages
        layers = {unit for _, stage in stages for unit in range(stage.start, stage.end)}
        self.journal.keep_boundaries({stage.end for _, stage in stages} if same_model else set())
        for session in self.caches.parked():  # their driver may be another one, which knows nothing of them
            self._forget(session, out)
        for session in self.caches:
            out.append(GiveUp(session, plan.epoch, 0))
        for session in self.caches.keep(layers if same_model else set()):
            self.journal.forget(session)
            out.append(DropSession(session))

    # --- rows --------------------------------------------------------------------------------------

    def on_frame(self, event: FrameArrived, now: float, out: Effects) -> Activation | None:
        """Check rows from another device. Returns them if they are for the head, which the driver runs."""
        activation, plan = event.activation, self._local.plan
        if plan is None or activation.epoch != plan.epoch or self._local.ready_epoch < plan.epoch:
            self._local.drop("frame of another epoch")
            return None
        mine = dict(self._stages)
        if activation.pipeline >= len(plan.pipelines) or activation.stage not in mine:
            self._local.drop("frame for a stage of another device")
            return None
        stages = plan.pipelines[activation.pipeline].stages
        if activation.stage == 0 or stages[activation.stage - 1].device != event.sender:
            self._local.drop("frame from a device that is not the stage before")
            return None
        if not activation.slots or any(self.caches.over(slot.session) for slot in activation.slots):
            self._local.drop("rows of a session that ended")
            return None
        for slot in activation.slots:
            if slot.position + slot.rows > plan.context:
                self._local.drop("frame beyond the context")
                return None
        if not self._in_order(activation, mine[activation.stage], now, out):
            return None
        return self._enter(activation, now, out)

    def run(
        self,
        activation: Activation,
        now: float,
        out: Effects,
        sample: Sample | None = None,
        score: Score | None = None,
    ) -> None:
        """Run rows through a stage of this device; `sample` or `score` is what the head does with them."""
        stage = dict(self._stages).get(activation.stage)
        slot = activation.slots[0]
        if stage is None:
            self._local.drop("rows for a stage of another device")
            return
        work = Work(activation.epoch, activation.stage, slot.session, slot.step)
        out.append(RunStep(work, stage.units, activation, sample, score, self._together(activation, now)))

    def _together(self, activation: Activation, now: float) -> int:
        """How many sessions may share a pass here: as many as leave the other devices as many.

        Rows that are run again leave the others nothing to do before they are through: all may share.
        """
        if activation.until != TO_THE_END:
            return max(1, len(self.caches))
        plan = self._local.plan
        devices = {stage.device for item in plan.pipelines for stage in item.stages} if plan else set()
        return max(1, -(-self.caches.active(now - deadlines.ACTIVE) // max(len(devices), 1)))

    def begin(self, activation: Activation, now: float, out: Effects, **head: Sample | Score | None) -> None:
        """Rows that the driver feeds into its first stage."""
        stage = dict(self._stages).get(0)
        if stage is not None and self._in_order(activation, stage, now, out):
            self.run(activation, now, out, **head)  # type: ignore[arg-type]

    def on_step_done(
        self, event: StepDone, activation: Activation, now: float, out: Effects
    ) -> Activation | None:
        """Keep and send the rows on. Returns them if the next stage is this device's own and the last."""
        plan = self._local.plan
        if plan is None or event.work.epoch != plan.epoch:
            return None
        stages = plan.pipelines[activation.pipeline].stages
        stage, slot = stages[activation.stage], activation.slots[0]
        self.note_done(activation)
        replayed = activation.until != TO_THE_END
        if not replayed:
            self.pace.note(event, activation, self._stages)
        self._keep(stage, slot, event)
        if activation.stage == min(activation.until, len(stages) - 1):
            if slot.logits and replayed:
                self._tell(plan, slot, activation.until, out)
            return None
        number = activation.stage + 1
        following = Activation(
            activation.epoch, activation.pipeline, number, activation.slots, event.rows, event.payload,
            activation.until, activation.spent_ms + event.ran_ms,
        )  # fmt: skip
        target = stages[number].device
        if target != self._local.device:
            out.append(SendFrame(target, following))
            return None
        if not self._in_order(following, stages[number], now, out):
            return None
        return self._enter(following, now, out)

    def note_done(self, activation: Activation) -> None:
        """Rows ran through a stage: its caches hold them."""
        if (stage := dict(self._stages).get(activation.stage)) is not None:
            for slot in activation.slots:
                self.caches.ran(activation.stage, slot, self._layers(stage))

    def _enter(self, activation: Activation, now: float, out: Effects) -> Activation | None:
        plan = self._local.plan
        last = len(plan.pipelines[activation.pipeline].stages) - 1 if plan else 0
        if activation.stage == last and activation.until == TO_THE_END:
            return activation
        if activation.rows or activation.stage != last:
            self.run(activation, now, out)
        return None

    def _keep(self, stage: Stage, slot: Slot, event: StepDone) -> None:
        """Note the outputs of a stage: what comes behind may need them again."""
        manifest = self._local.manifest
        if manifest is None:
            return
        if stage.end >= manifest.n_units - 1 or event.rows != slot.rows:  # a head alone keeps nothing
            self.journal.made(slot.session, stage.end, slot.position + slot.rows)
            return
        size = event.rows * manifest.hidden * ROW_VALUE_BYTES
        self.journal.add(slot.session, stage.end, slot.position, slot.rows, event.payload, size)

    def _in_order(self, activation: Activation, stage: Stage, now: float, out: Effects) -> bool:
        """Whether these are the rows that come next, or ones that are run again; notes them as held."""
        layers = self._layers(stage)
        for slot in activation.slots:
            if self.caches.repeats(activation.stage, slot):
                self._local.drop("repeated frame")
                return False
            if slot.position > self.caches.length(slot.session, layers):
                self._local.drop("frame out of order")
                name = self._local.config.name
                self._fail(
                    slot.session, slot.step, f"rows are missing on {name}: a frame was lost on its way", out
                )
                return False
        for slot in activation.slots:
            self.caches.enter(activation.stage, slot, layers, now)
            for oldest in self.caches.beyond(self._room(), slot.session):
                self.journal.forget(oldest)
                out.append(DropSession(oldest))
        return True

    def _room(self) -> int:
        """Positions that the caches may hold. The driver admits no more: beyond are a lost driver's."""
        return self._local.plan.context if self._local.plan is not None else 0

    def _layers(self, stage: Stage) -> range:
        manifest = self._local.manifest
        end = manifest.n_units - 1 if manifest is not None else stage.end
        return range(max(stage.start, 1), min(stage.end, end))

    # --- repair ------------------------------------------------------------------------------------

    def on_repair(self, repair: Repair, sender: str, now: float, out: Effects) -> None:
        """Answer the driver: say what is held of a session, or send rows again."""
        plan = self._local.plan
        if plan is None or not repair.epoch == plan.epoch <= self._local.ready_epoch or not plan.pipelines:
            return
        if plan.pipelines[0].driver != sender:
            return
        if repair.op == "fork" and repair.source is not None:
            self._fork(repair, repair.source, now, out)
        if repair.op in ("resume", "fork"):
            if not self.caches.give_up(repair.session, repair.step, now):
                self._local.drop("repair of a session that ended")
                return
            out.append(GiveUp(repair.session, plan.epoch, repair.step))
        if repair.op in ("probe", "resume", "fork"):
            held = tuple(self._held(number, stage, repair.session) for number, stage in self._stages)
            answer = Repair("held", repair.session, plan.epoch, repair.step, self._local.device, held)
            out.append(Publish(answer, to=sender))
        elif repair.op == "replay":
            self._replay(repair, plan, now, out)

    def _fork(self, repair: Repair, source: str, now: float, out: Effects) -> None:
        """Another session's rows become this one's; on a repeated word they did already."""
        if self.caches.fork(source, repair.session, repair.end, now, keep=repair.keep):
            self.journal.fork(source, repair.session, repair.end, keep=repair.keep)
            out.append(ForkKv(source, repair.session, repair.end, repair.keep))

    def _held(self, number: int, stage: Stage, session: str) -> Held:
        length = self.caches.length(session, self._layers(stage))
        kept_from, made = self.journal.kept(session, stage.end)
        return Held(number, length, kept_from, made, *self.caches.steps(session, number))

    def _replay(self, repair: Repair, plan: Plan, now: float, out: Effects) -> None:
        """Send what the journal has; the last pass asks for a word when it is done."""
        stages = plan.pipelines[0].stages
        if repair.stage not in dict(self._stages) or not repair.stage < repair.until < len(stages):
            self._local.drop("replay of a stage of another device")
            return
        entries = self.journal.passes(repair.session, stages[repair.stage].end, repair.start, repair.end)
        target = stages[repair.stage + 1].device
        for number, entry in enumerate(entries):
            last = number == len(entries) - 1
            slot = Slot(repair.session, repair.step + number, entry.position, entry.rows, int(last))
            rows = Activation(
                plan.epoch, 0, repair.stage + 1, (slot,), entry.rows, entry.payload, repair.until
            )
            if target != self._local.device:
                out.append(SendFrame(target, rows))
            elif self._in_order(rows, stages[repair.stage + 1], now, out):
                self._enter(rows, now, out)

    # --- trouble -----------------------------------------------------------------------------------

    def on_step_failed(self, event: StepFailed, out: Effects) -> None:
        if (stage := dict(self._stages).get(event.work.stage)) is not None:
            self.caches.lose(event.work.session, self._layers(stage))
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
        if plan is None or not plan.pipelines:
            return
        stages = plan.pipelines[0].stages
        mine = {number for number, _ in self._stages}
        beside = {at for number in mine for at in (number - 1, number + 1) if 0 <= at < len(stages)}
        near = {stages[at].device for at in beside}
        if event.device not in near:
            return
        note = f"the link to {self._local.name_of(event.device)} broke: {event.reason}"
        call = Call("broken", self._local.device, about=event.device, epoch=plan.epoch, note=note[:500])
        out.append(Publish(call))
        if event.device in {stages[number + 1].device for number in mine if number + 1 < len(stages)}:
            for session in sorted({*sessions, *self.caches}):
                self._fail(session, ANY_STEP, note, out)

    def on_session_end(self, session: str, now: float, out: Effects) -> None:
        self.journal.forget(session)
        if self.caches.end(session, now):
            out.append(DropSession(session))

    def on_session_parked(self, session: str, now: float) -> None:
        """It ended; its rows stay for one that begins as it did."""
        self.caches.park(session, now)

    def sweep(self, now: float, out: Effects) -> None:
        """Free sessions whose driver fell silent."""
        self.caches.forget_ended(now)
        for session in self.caches.silent(now, deadlines.IDLE_SESSION):
            self._forget(session, out)

    def _forget(self, session: str, out: Effects) -> None:
        self.journal.forget(session)
        self.caches.forget(session)
        out.append(DropSession(session))

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
        out.append(Publish(word, to=plan.pipelines[0].driver))

    def _fail(self, session: str, step: int, note: str, out: Effects) -> None:
        """Tell the driver that a session is stuck, so that nobody waits for a deadline."""
        plan = self._local.plan
        if note != self._noted:  # each of many sessions may meet the same trouble
            self._noted = note
            out.append(Notice("warning", note))
        for pipeline in plan.pipelines if plan else ():
            epoch = plan.epoch if plan else 0
            word = Repair("fail", session, epoch, step, self._local.device, note=note[:500])
            out.append(Publish(word, to=pipeline.driver))
