"""What a device does with each heartbeat: what fell silent is let go, and what it measured is said."""

from swisd.core import deadlines
from swisd.core.driver import Driver
from swisd.core.local import Effects, Local
from swisd.core.member import Member
from swisd.core.pace import expected_ms
from swisd.core.worker import Worker

REFINE_SAMPLES = 16
REFINE_BAND = (0.67, 1.5)


class Pulse:
    """Brings to the member what worker and driver have to say of themselves."""

    def __init__(self, local: Local, member: Member, worker: Worker, driver: Driver) -> None:
        self._local, self._member, self._worker, self._driver = local, member, worker, driver
        self._refined_at = 0.0

    def beat(self, now: float, out: Effects) -> None:
        """The time for a heartbeat has come."""
        member, pace, rounds = self._member, self._worker.pace, self._driver.rounds
        self._driver.sweep(now, out)
        self._worker.held.sweep(now, out)
        self._refine(now, out)
        member.sessions = self._driver.views()
        member.stage_ms = pace.stage_ms
        member.token_ms = rounds.token_ms
        member.beyond = rounds.beyond
        member.beat(now, out)

    def _refine(self, now: float, out: Effects) -> None:
        """Correct the own profile when real steps take clearly more or less than it says."""
        plan = self._local.plan
        pace = self._worker.pace
        if plan is None or not plan.pipelines or pace.samples < REFINE_SAMPLES:
            return
        expected = expected_ms(self._member.profile(plan.model), self._local.manifest, self._worker.stages)
        if expected <= 0 or now - self._refined_at < deadlines.REFINE_EVERY:
            return
        ratio = pace.stage_ms / expected
        if not REFINE_BAND[0] <= ratio <= REFINE_BAND[1]:
            self._refined_at = now
            pace.forget()
            self._member.refine(plan.model, ratio, out)
