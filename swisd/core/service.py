"""Plans as a device takes them up: one is in service, and a newer one is prepared beside it.

A plan serves until a higher one is active, even if it is hurt: what can go on goes on. A plan that is not yet
active asks for preparation alone, so a change costs a session no more than the switch between two steps.
"""

from collections.abc import Callable
from dataclasses import replace

from swisd.core.driver import Driver
from swisd.core.effects import Notice
from swisd.core.events import LoadFailed, LoadProgress, ShardsLoaded
from swisd.core.local import Effects, Local
from swisd.core.moving import Moving
from swisd.core.shards import Shards, describe, own_stages
from swisd.core.types import Plan
from swisd.core.worker import Worker


class Service:
    """Joins plans with what a device loads, runs and drives. `on_switch` forgets the steps under way."""

    def __init__(self, local: Local, worker: Worker, driver: Driver, on_switch: Callable[[], None]) -> None:
        self._local, self._worker, self._driver, self._on_switch = local, worker, driver, on_switch
        self.shards, self.moving = Shards(local), Moving(local, worker)

    def on_plan(self, plan: Plan, now: float, out: Effects) -> bool:
        """Take a plan. Returns True if it is a new one, which the host waits to hear of."""
        local, known = self._local, self._local.newest
        if known is None or _work(plan) != _work(known):
            self._new(plan, now, out)
            return True
        if known is local.coming:
            if plan.active:
                self._switch(plan, now, out)
            else:
                local.coming = plan
        elif known.active and not plan.active:
            local.drop("plan from before it was active")
        else:
            local.plan = plan
            self.shards.settle(plan, out)
        return False

    def confirm(self, epoch: int, now: float, out: Effects) -> None:
        """Somebody acts under the newest plan, so it is active, whatever the bus still brings."""
        newest = self._local.newest
        if newest is None or newest.active or newest.epoch != epoch or not newest.pipelines:
            return
        if self.shards.holds_wanted:
            self._switch(replace(newest, active=True), now, out)

    def forget(self, now: float, out: Effects) -> None:
        """The plan concerns nobody any more."""
        if self._local.plan is not None:
            self._local.coming = None
            self._switch(replace(self._local.plan, pipelines=(), active=False, spares=()), now, out)
            self.shards.clear(out)
        self._local.plan = None

    def on_progress(self, event: LoadProgress) -> bool:
        """Returns True if the next heartbeat should be now."""
        newest = self._local.newest
        if newest is None or event.epoch != newest.epoch or self.shards.holds_wanted:
            return False
        return self._local.enter("loading" if event.loading else "fetching", event.fraction, event.note)

    def on_loaded(self, event: ShardsLoaded, out: Effects) -> bool:
        """Returns True if this device is ready for the newest plan by this."""
        newest = self._local.newest
        became = self.shards.on_loaded(event)
        if newest is None:
            return False
        if became:
            self._ready(newest, out)
        if self._local.coming is None:
            self.shards.settle(newest, out)  # what was loaded may be wanted no more
        return became

    def caches_came(self, out: Effects) -> bool:
        """Nothing of the caches is waited for any more. Returns True if this device is ready by this."""
        newest = self._local.newest
        if newest is None or not self.shards.holds_wanted or self._local.state == "ready":
            return False
        self._ready(newest, out)
        return True

    def on_load_failed(self, event: LoadFailed, out: Effects) -> bool:
        """Returns True if this device cannot take its part in the newest plan."""
        newest = self._local.newest
        if newest is None or event.epoch != newest.epoch or not self.shards.on_failed(event, out):
            return False
        self._local.enter("failed", note=event.reason)
        out.append(Notice("error", f"cannot run its part of the plan: {event.reason}"))
        return True

    def _new(self, plan: Plan, now: float, out: Effects) -> None:
        local, current = self._local, self._local.plan
        goes_on = current is not None and current.active and current.model == plan.model and plan.pipelines
        if not goes_on:
            self._not_ready(plan)
        in_service = tuple(stage.units for _, stage in self._worker.stages) if goes_on else ()
        local.coming = plan
        self.moving.prepare(plan, current if goes_on else None, now, out)
        ready = self.shards.prepare(plan, in_service, out)
        if not own_stages(plan, local.device):
            local.enter("idle")
        elif ready:
            self._ready(plan, [])  # nothing had to be loaded: no news
        else:
            local.enter("fetching")
        if not goes_on or plan.active:
            self._switch(plan, now, out)

    def _ready(self, plan: Plan, out: Effects) -> None:
        if self.moving.waiting:
            self._local.enter("loading", 1.0, "waits for caches of running sessions")
            return
        self._local.ready_epoch = plan.epoch
        self._local.enter("ready", 1.0)
        out.append(Notice("info", f"ready: runs {describe(plan, self._local.device)} of {plan.model_id}"))

    def _not_ready(self, plan: Plan) -> None:
        """An epoch may come twice, from two hosts or from one that began anew: what was ready for one plan is
        not for the other."""
        self._local.ready_epoch = min(self._local.ready_epoch, plan.epoch - 1)

    def _switch(self, plan: Plan, now: float, out: Effects) -> None:
        local, before = self._local, self._local.plan
        if local.state != "ready":
            self._not_ready(plan)
        local.plan, local.coming = plan, None
        self._on_switch()
        same = before is not None and before.model == plan.model
        self._worker.serve(plan, same_model=same, out=out)
        self._driver.serve(plan, f"plan {plan.epoch} is in service", now, out)
        self.shards.settle(plan, out)


def _work(plan: Plan) -> tuple[object, ...]:
    """What a device must take up anew when it changes; a host that began anew may use an epoch twice."""
    return plan.epoch, plan.host, plan.model, plan.context, plan.pipelines
