"""The computing thread waits at a connection for the row that it will compute.

Where nothing else is to be done, it is there first: the way of a frame through the event loop, and from it to
this thread, takes longer than the network. All that is known of the row is made ready before it comes, as
whatever is done afterwards takes its time. The loop hears of it while it is computed.
"""

import logging
from collections.abc import Callable

from swisd.core.effects import RunStep
from swisd.core.events import FrameArrived
from swisd.core.expected import Coming, with_rows
from swisd.core.rows import Activation
from swisd.node.hand import Hand
from swisd.node.hops import HopTimes, clock
from swisd.node.rows import flat, template_of
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
        step = None
        try:
            if self._stepping.line.idle(frozenset()):
                step = self._step(ear, coming)
        except Exception as error:  # whatever it is, the loop meets it again, and rows are computed
            log.warning("nobody listens for rows", exc_info=error)
        if step is None:
            self._in_loop(heard, ear, coming, None)
            return
        ear.use()
        began = self._stepping.submitted = clock()
        self._times.listened(began - self._came)
        self._in_loop(heard, ear, coming, FrameArrived(coming.device, step.activation))
        self._stepping.run_early(step)

    def _step(self, ear: Ear, coming: Coming) -> RunStep | None:
        """The step that is coming, if the next frame brings its row."""
        asked = coming.asked()
        row = asked.activation
        _, width = flat(coming.before.activation.payload, 1)
        template = template_of(row, coming.device, width)
        if self._stepping.onward is not None:
            self._stepping.onward.prepare(asked, width)
        data = ear.listen(self._wait)
        found = template.read(data) if data is not None else None
        if found is None:
            return None
        values, spent_ms = found
        rows = Activation(row.epoch, row.pipeline, row.stage, row.slots, 1, values, row.until, spent_ms)
        return with_rows(asked, rows)

    def _wait(self, file: int) -> bool:
        ready = self._hand.wait(file, LISTEN_S)
        self._came = clock()
        return ready
