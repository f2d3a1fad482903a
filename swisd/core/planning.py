"""The host's plan: when it is made anew, by whom it is carried out, and who stands by."""

from collections.abc import Collection
from dataclasses import replace

from swisd.core import deadlines
from swisd.core.bans import Bans
from swisd.core.costmodel import Unpriced, predict
from swisd.core.effects import Notice, Publish
from swisd.core.failover import choose_spares, mended, ranges_of
from swisd.core.local import Effects, Local
from swisd.core.membership import Membership
from swisd.core.messages import Beat
from swisd.core.model import Manifest
from swisd.core.placement import Placement, Wish, place
from swisd.core.replan import believable, broken, devices_of, fits_beside, tidier, worthwhile
from swisd.core.roster import name_of, still_measuring
from swisd.core.shards import memory_of
from swisd.core.types import Capability, Plan, Prediction, Verdict

NOTHING = Prediction(0.0, 0.0, (), ())


class Planning:
    """Makes plans from what the members say; the host gives it new members with each reign."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.members = Membership()
        self.plan: Plan | None = None
        self._serving: Plan | None = None  # the last that was active
        self.epoch = 0  # the highest that was made or heard of
        self.names: dict[str, str] = {}  # of devices that the host before knew
        self.uncovered: tuple[str, ...] = ()  # devices of the plan that nobody could stand in for
        self._dirty_since: float | None = None
        self._renew = ""  # why the plan must be made anew although none of its devices is gone
        self._told_at = 0.0  # when the plan was last published for the devices that load it
        self._active_at = 0.0
        self._sessions_at = -deadlines.DEAD  # when sessions were known of by other words than heartbeats
        self._patched = False  # whether the plan was mended since it was made
        self._mended_at = -deadlines.CALM
        self._bans = Bans()
        self._progress: dict[str, tuple[float, float]] = {}  # device -> (progress, when it last moved)
        self._reborn: set[str] = set()  # devices of the plan that began anew, with nothing in memory
        self._covered: object = None  # what the spares were chosen from

    def begin(self, members: Membership, now: float) -> None:
        """A reign begins. A plan that the lost host had in service is carried on where it can be."""
        self.members = members
        plan = self._local.plan
        self.plan, self._serving, self._renew, self._covered = None, None, "", None
        if plan is not None:
            self.epoch = max(self.epoch, plan.epoch)
            if plan.active and plan.pipelines:
                self.plan = self._serving = plan
                self._renew = "the host changed" if plan.host != self._local.device else ""
        self._dirty_since = now

    def forget(self) -> None:
        """Nobody ever saw these plans: their epochs need not be outranked."""
        self.plan, self.epoch = None, 0

    def touch(self, now: float) -> None:
        """Something changed that a plan depends on."""
        if self._dirty_since is None:
            self._dirty_since = now

    def note_sessions(self, now: float) -> None:
        """Somebody says that sessions run."""
        self._sessions_at = now

    def renew(self, reason: str, now: float) -> None:
        """The plan is overtaken: make it anew."""
        self._renew = reason
        self.touch(now)

    def can_do_without(self, device: str) -> bool:
        """Whether somebody keeps all that this device runs loaded."""
        plan = self.plan
        spares = {item.units for item in plan.spares if item.device != device} if plan else set()
        return plan is not None and set(ranges_of(plan.pipelines).get(device, ())) <= spares

    def on_reborn(self, device: str, name: str, now: float) -> None:
        """A device of the plan began anew: what it had loaded is gone."""
        self._reborn.add(device)
        self.renew(f"{name} began anew", now)

    def fence(self, epoch: int, now: float, beat: Beat | None = None) -> None:
        """Stay above every epoch that is about; a plan that was overtaken is made anew.

        So is one whose epoch another host used, too, or this one in an earlier life: a device that took up
        the other plan, as its `beat` says, may refuse this one.
        """
        if not believable(epoch, self.epoch):
            self._local.drop("epoch out of all reason")
            return
        self.epoch = max(self.epoch, epoch)
        plan = self.plan
        if plan is None or epoch < plan.epoch:
            return
        if epoch > plan.epoch or (beat is not None and not _made(plan, beat)):
            self.renew("another host made a plan", now)

    def ban(self, device: str, reason: str, now: float) -> None:
        """Leave a device out for a while."""
        self._bans.add(device, reason, now)
        self.touch(now)

    def on_progress(self, device: str, progress: float, now: float) -> None:
        """How far a device is with loading, by its heartbeat."""
        before = self._progress.get(device)
        if before is None or before[0] != progress:
            self._progress[device] = (progress, now)

    def uses(self, device: str) -> bool:
        """Whether the plan needs this device."""
        return self.plan is not None and device in devices_of(self.plan.pipelines)

    def lacks(self, beat: Beat) -> bool:
        """Whether a device has in memory less than an active plan relies on."""
        return self.plan is not None and self.plan.active and _lacks(self.plan, beat)

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
        if not (reason := self._broken(plan) or self._failed(plan)):
            reason, missing = self._begun_anew(plan), f"the host has no description of {plan.model_id}"
        if reason:
            problem = f"{reason}, and {missing}"
            self.plan = self._emptied(plan, problem[:500])
            out.append(Publish(self.plan))
            out.append(Notice("warning", f"no plan: {problem}"))

    def _failed(self, plan: Plan) -> str:
        """Which device of a plan says that it cannot take its part, in words; empty if none does."""
        for entry in self.members.present():
            beat = entry.beat
            if beat is not None and beat.state == "failed" and beat.device in devices_of(plan.pipelines):
                return f"{self._name(beat.device)} cannot run its part ({beat.note})"
        return ""

    def _begun_anew(self, plan: Plan) -> str:
        """Which device of an active plan has nothing loaded for it and knows of no plan; empty if none."""
        for entry in self.members.present():
            beat = entry.beat
            if beat is not None and plan.active and beat.state == "idle" and _lacks(plan, beat):
                return f"{self._name(beat.device)} began anew"
        return ""

    def _emptied(self, plan: Plan, problem: str) -> Plan:
        """A plan of this host with nothing in it, above all others."""
        self.epoch += 1
        return replace(
            plan, epoch=self.epoch, host=self._local.device, pipelines=(), prediction=NOTHING, verdicts=(),
            active=False, problem=problem, spares=(), boot=self._local.config.boot,
        )  # fmt: skip

    def sweep(self, now: float) -> None:
        """Bans end."""
        if self._bans.sweep(now):
            self.touch(now)

    # --- making a plan -----------------------------------------------------------------------------

    def consider(
        self, sha: str, model: tuple[str, int], manifest: Manifest, now: float, out: Effects
    ) -> None:
        """Make a new plan if there is none, it broke, or a better one is worth it.

        `model` is its id and the size of its manifest. What broke is mended at once; all else waits until the
        members have settled.
        """
        if self._dirty_since is None:
            return
        devices = [item for item in self.members.usable() if item.device not in self._bans]
        current = self.plan if self.plan is not None and self.plan.model == sha else None
        if current is not None and current.pipelines:
            base = current if current.active else self._serving
            reason = self._broken(current) or self._renew
            able = base is not None and base.model == sha
            if reason and base is not None and able and self._mend(base, reason, devices, manifest, now, out):
                return
        if now - self._dirty_since < deadlines.SETTLE:
            return
        unfit = ""
        if current is not None and current.pipelines:
            reason = self._broken(current) or self._renew
            unfit = "" if reason else self._unfit(current, manifest)
            reason = reason or unfit
            if not reason and any(entry.liveness == "suspect" for entry in self.members.present()):
                return  # wait for the deadline to tell
        else:
            reason = "first plan"
            if still_measuring(self.members, sha, now):
                return
        self._dirty_since = None
        config = self._local.config
        context, least = min(manifest.context, config.context), config.min_context
        found = place(manifest, sha, devices, config.device, Wish(context, least, config.objective))
        if unfit and not found.pipelines:
            return  # what is loaded stays: no plan at all would be worse
        if not reason and current is not None:
            if not found.pipelines:
                return
            try:
                priced = predict(manifest, sha, devices, config.device, current.pipelines)
            except Unpriced:  # a capability from before it measured itself came late
                priced = current.prediction
            reason = worthwhile(priced, current, found.prediction, found.pipelines, found.context)
            if not reason and self._patched and not self._lately_busy(now):
                reason = tidier(current, found.pipelines)
            if not reason or not self._may_change(current, found, devices, manifest, now):
                if reason:
                    self._dirty_since = now  # look again when the sessions are done
                elif self._patched and found.pipelines != current.pipelines:
                    self._dirty_since = now + deadlines.CALM
                self._update_verdicts(current, found, out)
                return
        self._publish(sha, model, found, reason, now, out)

    def _mend(
        self,
        current: Plan,
        reason: str,
        devices: list[Capability],
        manifest: Manifest,
        now: float,
        out: Effects,
    ) -> bool:
        """Put others in the place of those that are gone, and leave all else as it is."""
        warm = {entry.device: entry.beat.warm for entry in self.members.present() if entry.beat}
        gone = devices_of(current.pipelines) - {item.device for item in devices}
        if (gone or self._reborn) and not self._lately_busy(now):
            self._reborn.clear()
            return False  # nobody waits: the best plan is worth its loading
        found: Plan | None = None
        for lost in (gone | self._reborn, gone):
            found = found or mended(
                current, lost, devices, manifest, self._local.device, warm, self._names(lost)
            )
        self._reborn.clear()
        if found is None:
            return False
        self._renew, self._mended_at, self._patched = "", now, True
        self.epoch += 1
        config = self._local.config
        self._set(replace(found, epoch=self.epoch, host=config.device, boot=config.boot), reason, now, out)
        self._dirty_since = now  # and a better one is looked for in peace
        return True

    def _may_change(
        self,
        current: Plan,
        found: Placement,
        devices: list[Capability],
        manifest: Manifest,
        now: float,
    ) -> bool:
        """Under running sessions a plan changes only where both plans fit the memory, and not often.

        Those of a driver that was lost are in no heartbeat until another one has taken them up.
        """
        if not self.busy() and now - self._mended_at >= deadlines.CALM:
            return True
        calm = now - self._active_at >= deadlines.CALM
        return (
            calm
            and current.active
            and fits_beside(current, found.pipelines, found.context, devices, manifest)
        )

    def _unfit(self, plan: Plan, manifest: Manifest) -> str:
        """A device of the plan that offers less by now than it needs, in words."""
        for device, ranges in ranges_of(plan.pipelines).items():
            entry = self.members.entries.get(device)
            capability = entry.capability if entry else None
            if capability is not None and capability.memory_bytes < memory_of(
                manifest, set(ranges), min(plan.context, self._local.config.min_context)
            ):
                return f"{name_of(entry)} offers too little memory by now"
        return ""

    def _broken(self, plan: Plan) -> str:
        """Why a plan can no longer run, with the devices' names; empty while it can."""
        here = [entry.device for entry in self.members.present()]
        reason = broken(plan, here, self._bans)
        for device in devices_of(plan.pipelines):
            reason = reason.replace(f"device {device}", self._name(device))
        return reason

    def _publish(
        self, sha: str, model: tuple[str, int], found: Placement, reason: str, now: float, out: Effects
    ) -> None:
        config = self._local.config
        if not found.pipelines and self._already_said(found) and not self._renew:
            return
        self._renew, self._patched = "", False
        self.epoch += 1
        plan = Plan(
            epoch=self.epoch,
            host=config.device,
            model=sha,
            model_id=model[0],
            model_bytes=model[1],
            context=found.context,
            objective=config.objective,
            pipelines=found.pipelines,
            prediction=found.prediction,
            verdicts=self._verdicts(found),
            problem=self._problem(found),
            gentle=self.busy() and self._sound(sha),
            boot=config.boot,
        )
        self._set(plan, reason, now, out)

    def _sound(self, sha: str) -> bool:
        """Whether the plan in service goes on while another one is prepared."""
        plan = self._serving
        return plan is not None and plan.model == sha and not self._broken(plan)

    def _set(self, plan: Plan, reason: str, now: float, out: Effects) -> None:
        self.plan, self._covered, self.uncovered = plan, None, ()
        self._progress = dict.fromkeys(self._progress, (-1.0, now))
        self._told_at = now
        out.append(Publish(plan))
        if plan.pipelines:
            text = f"plan {plan.epoch} ({reason}): {len(devices_of(plan.pipelines))} device(s)"
            out.append(Notice("info", f"{text}, {plan.prediction.token_ms:.1f} ms/token predicted"))
        else:
            out.append(Notice("warning", f"no plan: {plan.problem}"))

    def _already_said(self, found: Placement) -> bool:
        plan = self.plan
        if plan is None or plan.pipelines:
            return False
        return plan.problem == self._problem(found) and plan.verdicts == self._verdicts(found)

    def _problem(self, found: Placement) -> str:
        """Why there is no pipeline; devices that are left out for a while may be the reason."""
        if found.pipelines or not self._bans:
            return found.problem[:500]
        notes = self._bans.words(self._name)
        said = [found.problem] if found.verdicts else []  # without a device left it says nothing of use
        return "; ".join((*said, *notes))[:500]

    def _update_verdicts(self, current: Plan, found: Placement, out: Effects) -> None:
        """Keep the plan, but tell newcomers why they are not in it."""
        known = {verdict.device for verdict in current.verdicts}
        used = devices_of(current.pipelines)
        news = tuple(
            replace(verdict, used=False)
            for verdict in self._verdicts(found)
            if verdict.device not in known and verdict.device not in used
        )
        if news:
            kept = tuple(
                replace(verdict, reason="left out: joined after the plan was made, which stays as it is")
                if verdict.reason.startswith("runs")
                else verdict
                for verdict in news
            )
            self.plan = replace(current, verdicts=(*current.verdicts, *kept))
            out.append(Publish(self.plan))

    def _verdicts(self, found: Placement) -> tuple[Verdict, ...]:
        return (*found.verdicts, *self._bans.verdicts())

    def busy(self) -> bool:
        """Whether sessions run."""
        return any(entry.beat is not None and entry.beat.sessions for entry in self.members.present())

    def _lately_busy(self, now: float) -> bool:
        """Whether sessions run, or ran on a device that was lost since."""
        beats = [entry.beat for entry in self.members.entries.values() if now - entry.seen < deadlines.DEAD]
        return now - self._sessions_at < deadlines.DEAD or any(beat and beat.sessions for beat in beats)

    def _name(self, device: str) -> str:
        entry = self.members.entries.get(device)
        return name_of(entry) if entry is not None else self.names.get(device, device)

    def _names(self, devices: Collection[str]) -> str:
        return ", ".join(self._name(device) for device in sorted(devices))

    # --- carrying it out ---------------------------------------------------------------------------

    def follow_loading(self, now: float, out: Effects) -> None:
        """Make the plan active once every stage is loaded; give up on a device that fails or stalls.

        Also later: a device that was apart for a while, under a plan of its own, has to load its part again.
        """
        plan = self.plan
        if plan is None or not plan.pipelines:
            return
        waiting = unheard = False
        for device in sorted(devices_of(plan.pipelines)):
            entry = self.members.entries.get(device)
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
                self.ban(device, f"could not load its shard: {note}", now)
        if unheard and now - self._told_at >= deadlines.RETRY:  # the message was lost, or refused as corrupt
            self._told_at = now
            out.append(Publish(plan))
        if not waiting and not plan.active:
            self.plan, self._active_at = replace(plan, active=True), now
            self._serving = self.plan
            out.append(Publish(self.plan))
            out.append(Notice("info", f"plan {plan.epoch} is active"))

    def cover(self, manifest: Manifest, now: float, out: Effects) -> None:
        """Let devices with room to spare keep others' units loaded."""
        plan = self.plan
        if plan is None or not plan.active or not self._local.config.spares:
            return
        if now - self._active_at < deadlines.SETTLE:
            return
        devices = [item for item in self.members.usable() if item.device not in self._bans]
        chosen_from = (plan.epoch, devices)
        if chosen_from == self._covered:
            return
        self._covered = chosen_from
        spares, self.uncovered = choose_spares(plan, devices, manifest)
        if spares != plan.spares:
            self.plan = replace(plan, spares=spares)
            out.append(Publish(self.plan))


def _made(plan: Plan, beat: Beat) -> bool:
    """Whether the plan that a heartbeat speaks of is by the host of this one, in the same life."""
    return beat.planner in (None, plan.host) and beat.planner_boot in (None, plan.boot)


def _lacks(plan: Plan, beat: Beat) -> bool:
    """Whether a device has in memory less than a plan gives it."""
    return not set(ranges_of(plan.pipelines).get(beat.device, ())) <= set(beat.warm)
