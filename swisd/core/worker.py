"""A device as a worker: loads its stages of the plan and runs the rows that arrive for them."""

from collections import deque
from collections.abc import Iterable
from statistics import median

from swisd.core import deadlines
from swisd.core.effects import (
    Activation,
    DropSession,
    LoadShards,
    Notice,
    Publish,
    RunStep,
    SendFrame,
    UnloadShards,
    Work,
)
from swisd.core.events import (
    FrameArrived,
    FrameLost,
    LinkLost,
    LoadFailed,
    LoadProgress,
    ShardsLoaded,
    StepDone,
    StepFailed,
)
from swisd.core.local import Effects, Local
from swisd.core.messages import Ask
from swisd.core.types import Plan, Profile, Stage

Stages = tuple[tuple[int, Stage], ...]


class Worker:
    """Runs shards. The sessions' meaning is the driver's; a worker knows only their steps."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._stages: Stages = ()
        self._loaded: tuple[str, Stages, int] | None = None  # model, stages, context in memory
        self._steps: dict[str, tuple[dict[int, int], float]] = {}  # session -> last step of each stage, heard
        self._times: deque[float] = deque(maxlen=32)
        self._token_parts: dict[tuple[str, int], float] = {}
        self._over: deque[str] = deque(maxlen=64)  # sessions that ended lately; their rows may still come
        self._noted = ""

    @property
    def stage_ms(self) -> float:
        """Median time in ms that one token takes in this device's stages."""
        return median(self._times) if self._times else 0.0

    @property
    def samples(self) -> int:
        return len(self._times)

    def expected_ms(self, profile: Profile | None) -> float:
        """What the device's profile says of its stages for one token, in ms; 0 if it says nothing."""
        plan = self._local.plan
        if profile is None or plan is None or self._local.manifest is None:
            return 0.0
        head = self._local.manifest.n_units - 1
        total = 0.0
        for _, stage in self._stages:
            layers = min(stage.end, head) - max(stage.start, 1)
            total += profile.run_ms + max(layers, 0) * profile.layer_ms
            total += profile.embed_ms if stage.start == 0 else 0.0
            total += (profile.head_ms or 0.0) if stage.end > head else 0.0
        return total

    def forget_times(self) -> None:
        self._times.clear()

    def on_plan(self, plan: Plan, out: Effects) -> None:
        """Take up a newer plan: every session of an older one ends here."""
        local = self._local
        for session in self._steps:
            out.append(DropSession(session))
        self._steps.clear()
        self._token_parts.clear()
        self._stages = _own_stages(plan, local.device)
        if not self._stages:
            if self._loaded is not None or local.state in ("fetching", "loading", "failed"):
                out.append(UnloadShards())
            self._loaded = None
            if local.state in ("ready", "loading", "fetching", "failed"):
                local.enter("idle")
            return
        wanted = (plan.model, self._stages, plan.context)
        if wanted == self._loaded and local.state == "ready":
            local.ready_epoch = plan.epoch
            return
        self._loaded = None
        self._times.clear()
        local.ready_epoch = 0
        local.enter("fetching")
        out.append(Notice("info", f"plan {plan.epoch}: gets and loads {describe(self._stages, plan)}"))
        out.append(LoadShards(plan.epoch, plan.model, self._stages, plan.context))

    def on_progress(self, event: LoadProgress) -> bool:
        if not self._current(event.epoch):
            return False
        return self._local.enter("loading" if event.loading else "fetching", event.fraction, event.note)

    def on_loaded(self, event: ShardsLoaded, out: Effects) -> bool:
        plan = self._local.plan
        if plan is None or not self._current(event.epoch):
            return False
        self._loaded = (plan.model, self._stages, plan.context)
        self._local.ready_epoch = event.epoch
        self._local.resident_bytes = event.resident_bytes
        self._local.enter("ready", 1.0)
        out.append(Notice("info", f"ready: runs {describe(self._stages, plan)} of {plan.model_id}"))
        return True

    def on_load_failed(self, event: LoadFailed, out: Effects) -> bool:
        if not self._current(event.epoch):
            return False
        self._loaded = None
        self._local.enter("failed", note=event.reason)
        out.append(Notice("error", f"cannot run its part of the plan: {event.reason}"))
        return True

    def on_frame(self, event: FrameArrived, now: float, out: Effects) -> Activation | None:
        """Check rows from another device. Returns them if they are for the head, which the driver runs."""
        activation, plan = event.activation, self._local.plan
        if plan is None or activation.epoch != plan.epoch or self._local.ready_epoch != plan.epoch:
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
        for slot in activation.slots:
            if slot.position + slot.rows > plan.context:
                self._local.drop("frame beyond the context")
                return None
        if not activation.slots or any(slot.session in self._over for slot in activation.slots):
            self._local.drop("rows of a session that ended")
            return None
        if not self._in_order(activation, now, out):
            return None
        if activation.stage == len(stages) - 1:
            return activation
        self.run(activation, out)
        return None

    def run(self, activation: Activation, out: Effects, **head: object) -> None:
        """Run rows through one of this device's stages; `head` carries sample or score for the last one."""
        slot = activation.slots[0]
        work = Work(activation.epoch, activation.stage, slot.session, slot.step)
        out.append(RunStep(work, activation, **head))  # type: ignore[arg-type]

    def on_step_done(self, event: StepDone, activation: Activation, out: Effects) -> Activation | None:
        """Send the rows on. Returns them if the next stage is this device's own and the last."""
        plan = self._local.plan
        if plan is None or event.work.epoch != plan.epoch:
            return None
        self._account(event, activation)
        stages = plan.pipelines[activation.pipeline].stages
        number = activation.stage + 1
        following = Activation(
            activation.epoch, activation.pipeline, number, activation.slots, event.rows, event.payload
        )
        target = stages[number].device
        if target != self._local.device:
            out.append(SendFrame(target, following))
            return None
        if number == len(stages) - 1:
            return following
        self.run(following, out)
        return None

    def on_step_failed(self, event: StepFailed, out: Effects) -> None:
        self._report(event.work.session, f"a step failed on {self._local.config.name}: {event.reason}", out)

    def on_frame_lost(self, event: FrameLost, out: Effects) -> None:
        session = event.activation.slots[0].session
        self._report(session, f"rows did not reach {self._local.name_of(event.device)}: {event.reason}", out)

    def on_link_lost(self, event: LinkLost, sessions: Iterable[str], out: Effects) -> None:
        """Rows on their way to the next stage may be gone: better to begin these sessions anew than to wait.

        `sessions` are those that this device drives; those whose rows it passed on are added.
        """
        plan = self._local.plan
        if plan is None or not plan.pipelines:
            return
        stages = plan.pipelines[0].stages
        after = {stages[number + 1].device for number, _ in self._stages if number + 1 < len(stages)}
        if event.device in after:
            for session in sorted({*sessions, *self._steps}):
                self._report(
                    session, f"the link to {self._local.name_of(event.device)} broke: {event.reason}", out
                )

    def on_session_end(self, session: str, out: Effects) -> None:
        self._over.append(session)
        if self._steps.pop(session, None) is not None:
            out.append(DropSession(session))

    def sweep(self, now: float, out: Effects) -> None:
        """Free sessions whose driver fell silent."""
        for session, (_, heard) in list(self._steps.items()):
            if now - heard > deadlines.IDLE_SESSION:
                self.on_session_end(session, out)

    def _in_order(self, activation: Activation, now: float, out: Effects) -> bool:
        for slot in activation.slots:
            steps, _ = self._steps.get(slot.session, ({}, now))
            last = steps.get(activation.stage, -1)
            if slot.step <= last:
                self._local.drop("repeated frame")
                return False
            if slot.step != last + 1:
                self._local.drop("frame out of order")
                name = self._local.config.name
                self._report(slot.session, f"rows are missing on {name}: a frame was lost on its way", out)
                return False
            steps[activation.stage] = slot.step
            self._steps[slot.session] = (steps, now)
        return True

    def _account(self, event: StepDone, activation: Activation) -> None:
        slots = activation.slots
        if len(slots) != 1 or slots[0].rows != 1:
            return
        key = (slots[0].session, slots[0].step)
        spent = self._token_parts.pop(key, 0.0) + event.compute_ms
        last = max(number for number, _ in self._stages)
        if activation.stage == last:
            self._times.append(spent)
        else:
            if len(self._token_parts) > 256:
                self._token_parts.clear()
            self._token_parts[key] = spent

    def account_head(self, event: StepDone, activation: Activation) -> None:
        """The head's time belongs to this device's stages too."""
        self._account(event, activation)

    def _current(self, epoch: int) -> bool:
        return self._local.plan is not None and self._local.plan.epoch == epoch

    def _report(self, session: str, note: str, out: Effects) -> None:
        """Tell the driver that a session cannot go on, so that nobody waits for a deadline."""
        plan = self._local.plan
        if note != self._noted:  # each of many sessions may meet the same trouble
            self._noted = note
            out.append(Notice("warning", note))
        for pipeline in plan.pipelines if plan else ():
            message = Ask("fail", session, self._local.device, plan.epoch if plan else 0, note=note[:500])
            out.append(Publish(message, to=pipeline.driver))


def _own_stages(plan: Plan, device: str) -> Stages:
    return tuple(
        (number, stage)
        for pipeline in plan.pipelines
        for number, stage in enumerate(pipeline.stages)
        if any(member.device == device for member in stage.members)
    )


def describe(stages: Stages, plan: Plan) -> str:
    """Stages in words: `the embedding, layers 1-12 and the head`."""
    n_units = max((stage.end for pipeline in plan.pipelines for stage in pipeline.stages), default=0)
    parts: list[str] = []
    for _, stage in stages:
        low, high = max(stage.start, 1), min(stage.end, n_units - 1)
        if stage.start == 0:
            parts.append("the embedding")
        if high > low:
            parts.append(f"layers {low}-{high - 1}" if high - 1 > low else f"layer {low}")
        if stage.end == n_units:
            parts.append("the head")
    return (
        parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else "nothing"
    )
