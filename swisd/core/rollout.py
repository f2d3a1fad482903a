"""The host's plan from when it is made: told to all, loaded, active; who stands by; what outranks it."""

from dataclasses import replace

from swisd.core import deadlines
from swisd.core.crew import Crew, lacks
from swisd.core.effects import Notice, Publish
from swisd.core.failover import choose_spares, devices_of, ranges_of
from swisd.core.local import Effects, Local
from swisd.core.messages import Beat
from swisd.core.model import Manifest
from swisd.core.replan import believable
from swisd.core.types import Plan, Prediction

NOTHING = Prediction(0.0, 0.0, (), ())


class Rollout:
    """The plan of a host, its epoch, and how far its devices are with it."""

    def __init__(self, local: Local, crew: Crew) -> None:
        self._local, self._crew = local, crew
        self.plan: Plan | None = None
        self.serving: Plan | None = None  # the last that was active
        self.active_at = 0.0
        self.epoch = 0  # the highest that was made or heard of
        self.uncovered: tuple[str, ...] = ()  # whose loss would end all: nobody could stand in for them
        self._told_at = 0.0  # when the plan was last published for the devices that load it
        self._progress: dict[str, tuple[float, float]] = {}  # device -> (progress, when it last moved)
        self._covered: object = None  # what the spares were chosen from

    def begin(self) -> None:
        """A reign begins. A plan that the lost host had in service is carried on where it can be."""
        plan = self._local.plan
        self.plan, self.serving, self._covered = None, None, None
        if plan is not None:
            self.epoch = max(self.epoch, plan.epoch)
            if plan.active and plan.pipelines:
                self.plan = self.serving = plan

    def forget(self) -> None:
        """Nobody ever saw these plans: their epochs need not be outranked."""
        self.plan, self.epoch = None, 0

    # --- epochs ------------------------------------------------------------------------------------

    def next_epoch(self) -> int:
        """One above all others."""
        self.epoch += 1
        return self.epoch

    def fence(self, epoch: int, beat: Beat | None = None) -> bool:
        """Stay above every epoch that is about. Returns True if the plan was overtaken.

        So is one whose epoch another host used, too, or this one in an earlier life: a device that took up
        the other plan, as its `beat` says, may refuse this one.
        """
        if not believable(epoch, self.epoch):
            self._local.drop("epoch out of all reason")
            return False
        self.epoch = max(self.epoch, epoch)
        plan = self.plan
        if plan is None or epoch < plan.epoch:
            return False
        return epoch > plan.epoch or (beat is not None and not _made(plan, beat))

    # --- what the plan asks of a device ------------------------------------------------------------

    def uses(self, device: str) -> bool:
        """Whether the plan needs this device."""
        return self.plan is not None and device in devices_of(self.plan.pipelines)

    def can_do_without(self, device: str) -> bool:
        """Whether somebody keeps all that this device runs loaded."""
        plan = self.plan
        spares = {item.units for item in plan.spares if item.device != device} if plan else set()
        return plan is not None and set(ranges_of(plan.pipelines).get(device, ())) <= spares

    def lacks(self, beat: Beat) -> bool:
        """Whether a device has in memory less than an active plan relies on."""
        return self.plan is not None and self.plan.active and lacks(self.plan, beat)

    # --- making it known ---------------------------------------------------------------------------

    def issue(self, plan: Plan, reason: str, now: float, out: Effects) -> None:
        """A new plan: its devices load it from now on."""
        self._covered, self.uncovered = None, ()
        self._progress = dict.fromkeys(self._progress, (-1.0, now))
        self._told_at = now
        self.tell(plan, out)
        if plan.pipelines:
            text = f"plan {plan.epoch} ({reason}): {len(devices_of(plan.pipelines))} device(s)"
            out.append(Notice("info", f"{text}, {plan.prediction.token_ms:.1f} ms/token predicted"))
        else:
            out.append(Notice("warning", f"no plan: {plan.problem}"))

    def tell(self, plan: Plan, out: Effects) -> None:
        """The plan as it is from now on."""
        self.plan = plan
        out.append(Publish(plan))

    def empty(self, out: Effects) -> None:
        """End the plan with one that has nothing in it."""
        if self.plan is not None:
            out.append(Publish(self._emptied(self.plan, "")))

    def withdraw(self, out: Effects) -> None:
        """End a plan that broke while the model is not to be had for another: nobody shall wait for it."""
        plan = self.plan or self._local.plan  # perhaps the lost host's, which askers still rely on
        if plan is None or not plan.pipelines:
            return
        missing = f"no device holds {plan.model_id}"
        if not (reason := self._crew.broken(plan) or self._crew.failed(plan)):
            reason, missing = self._crew.begun_anew(plan), f"the host has no description of {plan.model_id}"
        if reason:
            problem = f"{reason}, and {missing}"
            self.tell(self._emptied(plan, problem[:500]), out)
            out.append(Notice("warning", f"no plan: {problem}"))

    def _emptied(self, plan: Plan, problem: str) -> Plan:
        """A plan of this host with nothing in it, above all others."""
        return replace(
            plan, epoch=self.next_epoch(), host=self._local.device, pipelines=(), prediction=NOTHING,
            verdicts=(), active=False, problem=problem, spares=(), boot=self._local.config.boot,
        )  # fmt: skip

    # --- carrying it out ---------------------------------------------------------------------------

    def on_progress(self, device: str, progress: float, now: float) -> None:
        """How far a device is with loading, by its heartbeat."""
        before = self._progress.get(device)
        if before is None or before[0] != progress:
            self._progress[device] = (progress, now)

    def follow_loading(self, now: float, out: Effects) -> list[tuple[str, str]]:
        """Make the plan active once every stage is loaded; returns the devices that fail or stall, with why.

        Also later: a device that was apart for a while, under a plan of its own, has to load its part again.
        """
        plan = self.plan
        if plan is None or not plan.pipelines:
            return []
        waiting = unheard = False
        given_up: list[tuple[str, str]] = []
        for device in sorted(devices_of(plan.pipelines)):
            entry = self._crew.members.entries.get(device)
            beat = entry.beat if entry else None
            follows = beat is not None and beat.epoch == plan.epoch and _made(plan, beat)
            if beat is not None and follows and beat.state == "ready":
                continue
            waiting = True
            unheard = unheard or not follows
            failed = beat is not None and follows and beat.state == "failed"
            moved = self._progress.setdefault(device, (0.0, now))[1]
            if failed or now - moved > deadlines.LOAD_STALL:
                note = beat.note if failed and beat else f"no progress for {deadlines.LOAD_STALL:.0f} s"
                given_up.append((device, f"could not load its shard: {note}"))
        # The message was lost, or refused as corrupt.
        if unheard and now - self._told_at >= deadlines.TELL_AGAIN:
            self._told_at = now
            out.append(Publish(plan))
        if not waiting and not plan.active:
            self.active_at = now
            self.serving = replace(plan, active=True)
            self.tell(self.serving, out)
            out.append(Notice("info", f"plan {plan.epoch} is active"))
        return given_up

    def cover(self, manifest: Manifest, now: float, out: Effects) -> None:
        """Let devices with room to spare keep others' units loaded."""
        plan = self.plan
        if plan is None or not plan.active or not self._local.config.spares:
            return
        if now - self.active_at < deadlines.SETTLE:
            return
        devices = self._crew.devices()
        chosen_from = (plan.epoch, devices)
        if chosen_from == self._covered:
            return
        self._covered = chosen_from
        spares, bare = choose_spares(plan, devices, manifest)
        # Where one of several pipelines is lost its sessions have the others.
        self.uncovered = bare if len(plan.pipelines) == 1 else ()
        if spares != plan.spares:
            self.tell(replace(plan, spares=spares), out)


def _made(plan: Plan, beat: Beat) -> bool:
    """Whether the plan that a heartbeat speaks of is by the host of this one, in the same life."""
    return beat.planner in (None, plan.host) and beat.planner_boot in (None, plan.boot)
