"""Which of a plan's pipelines a session is brought to: where its tokens can be expected to come soonest."""

from collections import Counter
from collections.abc import Iterator, Mapping

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
    times = list(_times(plan))
    turn, count = int(session, 16) >> TRIES_BITS, len(plan.pipelines)

    def expected(number: int, token_ms: float, busy_ms: float) -> tuple[float, int]:
        there = sessions.get(plan.drivers[number], 0)
        return max(token_ms, busy_ms * (there + 1)), (number + turn) % count

    return plan.drivers[min(range(count), key=lambda number: expected(number, *times[number]))]


def _times(plan: Plan) -> Iterator[tuple[float, float]]:
    """Of each pipeline the ms that a token takes in it, and those of its busiest device with a token."""
    stages, hops = iter(plan.prediction.stage_ms), iter(plan.prediction.hop_ms)
    for pipeline in plan.pipelines:
        busy = dict.fromkeys(pipeline.devices, 0.0)
        token = 0.0
        for stage in pipeline.stages:
            spent = next(stages, 0.0)
            busy[stage.device] += spent
            token += spent + next(hops, 0.0)
        yield token, max(busy.values())
