"""Rows that were foretold begin to run when they come, and the machine hears of them meanwhile."""

from collections.abc import Callable, Sequence
from typing import Protocol

from swisd.core.events import Event, FrameArrived
from swisd.core.expected import Coming, Expected
from swisd.node.compute import Compute
from swisd.node.hops import HopTimes
from swisd.transport.api import Lanes
from swisd.transport.ear import Ear

HEAR_S = 0.001  # after which the machine hears of a row that runs already: Python runs one thread at a time

CallLater = Callable[[float, Callable[[], None]], object]


class Post(Protocol):
    """Gives the machine events."""

    def __call__(self, *events: Event) -> None: ...


class Early:
    """All of it in the event loop. `expected` has to hear of every effect; `lanes` once there are any."""

    def __init__(self, compute: Compute, times: HopTimes, post: Post, call_later: CallLater) -> None:
        self._compute, self._times, self._post, self._call_later = compute, times, post, call_later
        self.expected = Expected()
        self.lanes: Lanes | None = None
        self._unheard: list[Event] = []  # of rows that run already

    def unheard(self) -> list[Event]:
        """What the machine has not heard of yet: it does now."""
        events, self._unheard = self._unheard, []
        return events

    def begin(self, events: Sequence[Event]) -> bool:
        """Whether these are rows that were expected: they run, and the machine hears of them meanwhile."""
        first = events[0]
        step = self.expected.step(first) if isinstance(first, FrameArrived) else None
        if step is None or step.sample is not None:  # of what the head answers it has to hear at once
            return False
        self._compute.begin(step)
        self._times.expected()
        self._unheard += events
        self._call_later(HEAR_S, self._post)
        return True

    def listen(self) -> None:
        """Have the computing thread wait for the row that is coming, where it has nothing else to do."""
        if self.lanes is None or (coming := self.expected.lend()) is None:
            return
        if (ear := self.lanes.lend(coming.device)) is None:
            self.expected.give_back(coming)
        else:
            self._compute.listen(ear, coming, self._heard)

    def _heard(self, ear: Ear, coming: Coming, event: FrameArrived | None) -> None:
        if event is None:
            self.expected.give_back(coming)
        else:
            self._post(event)
        ear.give_back()
