"""The computing thread waits at a connection for the row that it will compute.

Where nothing else is to be done, it is there first: the way of a frame through the event loop, and from it to
this thread, takes longer than the network. The loop hears of the frame while it is computed.
"""

import logging
from collections.abc import Callable

from swisd.core.events import FrameArrived
from swisd.core.expected import Coming
from swisd.node.hand import Hand
from swisd.node.hops import HopTimes, clock
from swisd.node.rows import arrived
from swisd.node.stepping import Stepping
from swisd.transport.ear import Ear

log = logging.getLogger(__name__)
LISTEN_S = 5.0  # after which the loop reads on

Heard = Callable[[Ear, Coming, FrameArrived | None], None]
"""Called in the event loop with the row that came and runs, or none: then nobody listens any more."""


class Listening:
    """`in_loop` has the event loop do something."""

    def __init__(self, hand: Hand, stepping: Stepping, times: HopTimes, in_loop: Callable[..., None]) -> None:
        self._hand, self._stepping, self._times, self._in_loop = hand, stepping, times, in_loop
        self._came = 0.0

    def listen(self, ear: Ear, coming: Coming, heard: Heard) -> None:
        """Wait for a row until something else is to be done, and run it. In the computing thread."""
        try:
            event = self._row(ear, coming)
            step = coming.step(event) if event is not None else None
        except Exception as error:  # whatever it is, the loop meets it again, and rows are computed
            log.warning("nobody listens for rows", exc_info=error)
            step = None
        if step is None:
            self._in_loop(heard, ear, coming, None)
            return
        ear.use()
        self._times.listened(clock() - self._came)
        self._in_loop(heard, ear, coming, event)
        self._stepping.submitted = clock()
        self._stepping.run_early(step)

    def _row(self, ear: Ear, coming: Coming) -> FrameArrived | None:
        """The next frame, if it brings one row."""
        frame = ear.listen(self._wait) if self._stepping.line.idle(frozenset()) else None
        if frame is None or frame.rows != 1:
            return None
        events = arrived(coming.device, frame)
        return events[0] if events and isinstance(events[0], FrameArrived) else None

    def _wait(self, file: int) -> bool:
        ready = self._hand.wait(file, LISTEN_S)
        self._came = clock()
        return ready
