"""Which of a plan's pipelines a session is brought to: where its tokens can be expected to come soonest."""

from collections import Counter
from collections.abc import Mapping

from swisd.core.costmodel import bottlenecks_ms, tokens_ms
from swisd.core.messages import Digest
from swisd.core.types import DeviceId, Plan, SessionId

TRIES_BITS = 8  # of a session's id: a further try keeps its turn


class Crowd:
    """Sessions of one client by their drivers, which it knows at once, and a host's digest later."""

    def __init__(self) -> None:
        self._sessions: Counter[DeviceId] = Counter()

    def join(self, driver: DeviceId) -> None:
        """A session was brought to this driver."""
        self._sessions[driver] += 1

    def leave(self, driver: DeviceId) -> None:
        """It ended, or left that driver."""
        self._sessions[driver] -= 1

    def beside(self, digest: Digest | None) -> Mapping[DeviceId, int]:
        """Sessions at each driver: a digest has all, but none that just began."""
        told = {item.device: item.sessions for item in digest.members} if digest is not None else {}
        here = self._sessions
        return {device: max(told.get(device, 0), here[device]) for device in {*told, *here}}


def choose(plan: Plan, sessions: Mapping[DeviceId, int], session: SessionId) -> DeviceId:
    """The driver for a session. Who knows equal sessions everywhere chooses by the session's id, so that
    clients who know nothing of each other do not all go to one. Raises `ValueError` for a plan without
    pipelines."""
    if not plan.pipelines:
        raise ValueError("a plan without pipelines has no driver")
    tokens, busy = tokens_ms(plan.prediction, plan.pipelines), bottlenecks_ms(plan.prediction, plan.pipelines)
    turn, drivers = int(session, 16) >> TRIES_BITS, plan.drivers

    def expected(number: int) -> tuple[float, int]:
        there = sessions.get(drivers[number], 0)
        return max(tokens[number], busy[number] * (there + 1)), (number + turn) % len(drivers)

    return drivers[min(range(len(drivers)), key=expected)]
