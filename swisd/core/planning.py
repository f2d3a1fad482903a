"""When the host's plan is made anew, mended, or left as it is."""

from dataclasses import replace

from swisd.core import deadlines
from swisd.core.costmodel import Unpriced, predict
from swisd.core.crew import Crew
from swisd.core.failover import devices_of, mended
from swisd.core.local import Effects, Local
from swisd.core.messages import Beat
from swisd.core.model import Manifest
from swisd.core.placement import Placement, Wish, place
from swisd.core.replan import fits_beside, tidier, worthwhile
from swisd.core.rollout import Rollout
from swisd.core.roster import still_measuring
from swisd.core.types import Capability, Plan


class Planning:
    """Makes plans from what the members say, and has them rolled out."""

    def __init__(self, local: Local, crew: Crew, rollout: Rollout) -> None:
        self._local, self._crew, self._rollout = local, crew, rollout
        self._dirty_since: float | None = None
        self._renew = ""  # why the plan must be made anew although none of its devices is gone
        self._patched = False  # whether the plan was mended since it was made
        self._mended_at = -deadlines.CALM
        self._reborn: set[str] = set()  # devices of the plan that began anew, with nothing in memory

    def begin(self, now: float) -> None:
        """A reign begins, perhaps with a plan that the lost host had in service."""
        self._rollout.begin()
        plan = self._rollout.plan
        inherited = plan is not None and plan.host != self._local.device
        self._renew = "the host changed" if inherited else ""
        self._dirty_since = now

    # --- reasons to look again ---------------------------------------------------------------------

    def touch(self, now: float) -> None:
        """Something changed that a plan depends on; a look that was put off is not waited for."""
        self._dirty_since = now if self._dirty_since is None else min(self._dirty_since, now)

    def renew(self, reason: str, now: float) -> None:
        """The plan is overtaken: make it anew."""
        self._renew = reason
        self.touch(now)

    def on_reborn(self, device: str, name: str, now: float) -> None:
        """A device of the plan began anew: what it had loaded is gone."""
        self._reborn.add(device)
        self.renew(f"{name} began anew", now)

    def fence(self, epoch: int, now: float, beat: Beat | None = None) -> None:
        """Stay above every epoch that is about; a plan that was overtaken is made anew."""
        if self._rollout.fence(epoch, beat):
            self.renew("another host made a plan", now)

    def ban(self, device: str, reason: str, now: float) -> None:
        """Leave a device out for a while."""
        self._crew.bans.add(device, reason, now)
        self.touch(now)

    def sweep(self, now: float) -> None:
        """Bans end."""
        if self._crew.bans.sweep(now):
            self.touch(now)

    def follow_loading(self, now: float, out: Effects) -> None:
        """See how far the plan is; do without devices that cannot load their part of it."""
        for device, reason in self._rollout.follow_loading(now, out):
            self.ban(device, reason, now)

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
        config, crew, plan = self._local.config, self._crew, self._rollout.plan
        devices = crew.devices()
        current = plan if plan is not None and plan.model == sha else None
        reason = unfit = ""
        if current is not None and current.pipelines:
            reason = crew.broken(current) or self._renew
            if reason and self._mend(current, reason, devices, manifest, now, out):
                return
        if now - self._dirty_since < deadlines.SETTLE:
            return
        if current is not None and current.pipelines:
            unfit = "" if reason else crew.unfit(current, manifest, config.min_context)
            reason = reason or unfit
            if not reason and any(entry.liveness == "suspect" for entry in crew.members.present()):
                return  # wait for the deadline to tell
        else:
            reason = "first plan"
            if still_measuring(crew.members, sha, now):
                return
        self._dirty_since = None
        context, least = min(manifest.context, config.context), config.min_context
        found = place(manifest, sha, devices, config.device, Wish(context, least, config.objective))
        if unfit and not found.pipelines:
            return  # what is loaded stays: no plan at all would be worse
        if not reason and current is not None:
            if not found.pipelines:
                return
            reason = self._better(current, found, devices, manifest, now)
            if not reason or not self._may_change(current, found, devices, manifest, now):
                if reason:
                    self._dirty_since = now  # look again when the sessions are done
                elif self._patched and found.pipelines != current.pipelines:
                    self._dirty_since = now + deadlines.CALM
                self._update_verdicts(current, found, out)
                return
        self._make(sha, model, found, reason, now, out)

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
        base = current if current.active else self._rollout.serving
        if base is None or base.model != current.model:
            return False
        crew, config = self._crew, self._local.config
        warm = {entry.device: entry.beat.warm for entry in crew.members.present() if entry.beat}
        gone = devices_of(base.pipelines) - {item.device for item in devices}
        if (gone or self._reborn) and not crew.lately_busy(now):
            self._reborn.clear()
            return False  # nobody waits: the best plan is worth its loading
        found: Plan | None = None
        for lost in (gone | self._reborn, gone):
            found = found or mended(base, lost, devices, manifest, config.device, warm, crew.names_of(lost))
        self._reborn.clear()
        if found is None:
            return False
        self._renew, self._mended_at, self._patched = "", now, True
        epoch = self._rollout.next_epoch()
        found = replace(found, epoch=epoch, host=config.device, boot=config.boot)
        self._rollout.issue(found, reason, now, out)
        self._dirty_since = now  # and a better one is looked for in peace
        return True

    def _better(
        self,
        current: Plan,
        found: Placement,
        devices: list[Capability],
        manifest: Manifest,
        now: float,
    ) -> str:
        """Why what was found should replace a plan that runs, in words; empty if it should not."""
        try:
            priced = predict(manifest, current.model, devices, self._local.device, current.pipelines)
        except Unpriced:  # a capability from before it measured itself came late
            priced = current.prediction
        reason = worthwhile(priced, current, found.prediction, found.pipelines, found.context)
        if not reason and self._patched and not self._crew.lately_busy(now):
            reason = tidier(current, found.pipelines)
        return reason

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
        if not self._crew.busy() and now - self._mended_at >= deadlines.CALM:
            return True
        calm = now - self._rollout.active_at >= deadlines.CALM
        return (
            calm
            and current.active
            and fits_beside(current, found.pipelines, found.context, devices, manifest)
        )

    def _make(
        self, sha: str, model: tuple[str, int], found: Placement, reason: str, now: float, out: Effects
    ) -> None:
        """A plan of what was found, unless it only says again that there is none."""
        config, crew, rollout = self._local.config, self._crew, self._rollout
        if not found.pipelines and self._already_said(found) and not self._renew:
            return
        self._renew, self._patched = "", False
        plan = Plan(
            epoch=rollout.next_epoch(),
            host=config.device,
            model=sha,
            model_id=model[0],
            model_bytes=model[1],
            context=found.context,
            objective=config.objective,
            pipelines=found.pipelines,
            prediction=found.prediction,
            verdicts=crew.verdicts(found),
            problem=crew.problem(found),
            gentle=crew.busy() and self._sound(sha),
            boot=config.boot,
        )
        rollout.issue(plan, reason, now, out)

    def _sound(self, sha: str) -> bool:
        """Whether the plan in service goes on while another one is prepared."""
        plan = self._rollout.serving
        return plan is not None and plan.model == sha and not self._crew.broken(plan)

    def _already_said(self, found: Placement) -> bool:
        plan = self._rollout.plan
        if plan is None or plan.pipelines:
            return False
        return plan.problem == self._crew.problem(found) and plan.verdicts == self._crew.verdicts(found)

    def _update_verdicts(self, current: Plan, found: Placement, out: Effects) -> None:
        """Keep the plan, but tell newcomers why they are not in it."""
        known = {verdict.device for verdict in current.verdicts}
        used = devices_of(current.pipelines)
        news = tuple(
            replace(verdict, used=False)
            for verdict in self._crew.verdicts(found)
            if verdict.device not in known and verdict.device not in used
        )
        if news:
            kept = tuple(
                replace(verdict, reason="left out: joined after the plan was made, which stays as it is")
                if verdict.reason.startswith("runs")
                else verdict
                for verdict in news
            )
            self._rollout.tell(replace(current, verdicts=(*current.verdicts, *kept)), out)
