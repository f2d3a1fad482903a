"""Which sessions a driver lets in, and when: who waits, what room there is, and what is parked meanwhile.

A session begins when its prompt and answer fit the context beside those that run. What ended sessions left
takes the room that these do not, and goes when they want it.
"""

from collections.abc import Callable
from typing import Literal

from swisd.core.effects import Publish
from swisd.core.local import Effects, Local
from swisd.core.messages import Ask, Out
from swisd.core.parked import Parked, Prefix
from swisd.core.session import Session
from swisd.core.sessions import Sessions
from swisd.core.types import Plan
from swisd.core.waiting import MAX_WAITING, Waiting, refusal


class Admission:
    """The door to a driver's sessions. `begin` starts one that was let in, with what it takes over."""

    def __init__(
        self,
        local: Local,
        sessions: Sessions,
        begin: Callable[[Session, Prefix | None, float, Effects], None],
    ) -> None:
        self._local, self._sessions, self._begin = local, sessions, begin
        self._parked = Parked()
        self.waiting = Waiting()

    def ready(self, plan: Plan | None) -> bool:
        """Whether this device may drive sessions under the plan."""
        if plan is None or not plan.active or self._local.ready_epoch < plan.epoch:
            return False
        return plan.driver_of(self._local.device) == self._local.device

    def on_start(self, ask: Ask, now: float, out: Effects) -> None:
        """Somebody wants a session to begin."""
        plan = self._local.plan
        if ask.session in self.waiting:
            return
        if plan is None or plan.epoch != ask.epoch or not self.ready(plan):
            out.append(Publish(changed(ask.session, plan)))
            return
        problem = refusal(ask, plan, self._local.manifest)
        if not problem and len(self.waiting) >= MAX_WAITING:
            problem = f"busy: {len(self.waiting)} requests wait already; try again later"
        if problem:
            out.append(Publish(Out(ask.session, 0, plan.epoch, finish="error", error=problem)))
            return
        self.waiting.add(ask, now)
        self.admit(now, out)
        self._say_place(ask.session, out)

    def on_renew(self, ask: Ask, now: float, out: Effects) -> None:
        """The asker of a session that did not begin is still there."""
        self.waiting.heard(ask.session, now)
        if not self._say_place(ask.session, out):
            epoch = self._local.plan.epoch if self._local.plan else 0
            message = "the driver does not know this session"
            out.append(
                Publish(Out(ask.session, ask.from_index, epoch, finish="error", error=message, retry=True))
            )

    def admit(self, now: float, out: Effects) -> None:
        """Let those in that wait, in order, as long as there is room."""
        plan = self._local.plan
        while plan is not None and (ask := self.waiting.first()) is not None:
            limit = (
                0 if ask.score_top else min(ask.max_tokens or plan.context, plan.context - len(ask.prompt))
            )
            first_step = self._sessions.gone.next_step(ask.session)
            session = Session.begin(ask, plan.epoch, limit, now, first_step)
            used = self._sessions.reserved
            if used + session.reserved > plan.context and used:
                return
            self.waiting.remove(ask.session)
            self._sessions.add(session)
            prefix = None if ask.again else self._parked.take_for(session, plan.context - used)
            for key in self._parked.beyond(plan.context - used - session.reserved):
                self._tell_holders("cancel", key, out)
            self._begin(session, prefix, now, out)

    def on_end(self, session: Session, now: float, out: Effects) -> None:
        """Keep or free the caches on all devices, and let the next one in."""
        self._tell_holders("park" if self._parked.add(session, now) else "cancel", session.key, out)
        self.admit(now, out)

    def on_plan(self) -> list[Ask]:
        """Another plan is in service: the devices let go of what is parked. Returns those that waited."""
        self._parked.clear()
        return self.waiting.clear()

    def take_back(self, asks: list[Ask], plan: Plan, now: float, out: Effects) -> None:
        """Let those wait again that can run under the plan that is in service now."""
        for ask in asks:
            if self.ready(plan) and not refusal(ask, plan, self._local.manifest):
                self.waiting.add(ask, now)
            else:
                out.append(Publish(changed(ask.session, plan)))
        self.admit(now, out)

    def sweep(self, now: float, out: Effects) -> None:
        """Forget askers that fell silent, and what was of no use for long."""
        self.waiting.sweep(now)
        for key in self._parked.stale(now):
            self._tell_holders("cancel", key, out)

    def _say_place(self, session: str, out: Effects) -> bool:
        """Tell the asker of a waiting session how many come before it; False if it does not wait."""
        place = self.waiting.place(session)
        if place is None:
            return False
        epoch = self._local.plan.epoch if self._local.plan else 0
        out.append(Publish(Out(session, 0, epoch, waiting=len(self._sessions.running) + place)))
        return True

    def _tell_holders(self, op: Literal["park", "cancel"], session: str, out: Effects) -> None:
        plan = self._local.plan
        if plan is not None and plan.pipelines:
            word = Ask(op, session, self._local.device, plan.epoch)
            out.extend(Publish(word, to=device) for device in self._holders(plan))

    def _holders(self, plan: Plan) -> list[str]:
        """Devices that may hold rows of a session: those of its pipeline, and of a plan that is coming."""
        me, coming = self._local.device, self._local.coming
        there = [pipeline.devices for pipeline in coming.pipelines] if coming is not None else []
        return sorted({me}.union(*there, (stage.device for stage in plan.stages_of(me))))


def changed(session: str, plan: Plan | None) -> Out:
    """What the asker of a session hears that did not begin under this plan."""
    epoch = plan.epoch if plan is not None else 0
    return Out(session, 0, epoch, finish="error", error="the plan changed", retry=True)
