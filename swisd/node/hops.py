"""Times this device's own part of each hop: on the way out, and on the way in.

    computed -> (wait) -> machine -> frame made -> ... wire ... -> frame checked
             -> machine -> (wait) -> computing begins

Most rows go another way out: computed -> frame made. Each part is noted where it ends, as a number in a ring;
nothing is formatted or sent while rows are on their way. Only steps of one row count: with more, the wait is
that for the step before.
"""

import time
from collections import deque
from statistics import median

from swisd.core.types import HopParts

LATELY = 128  # hops of which the medians are told

clock = time.perf_counter


class HopTimes:
    """All in seconds of `clock`. What the computing thread does is noted there, all else in the loop."""

    def __init__(self) -> None:
        self._came = 0.0
        self._began = 0.0
        self._decided = 0.0
        self._parts = {
            name: deque[float](maxlen=LATELY)
            for name in ("wait out", "machine out", "make", "read", "machine in", "wait in")
        }

    def came(self) -> None:
        """The bytes of a frame are here, and are about to be checked."""
        self._came = clock()

    def read(self) -> None:
        """The frame that came is checked; the machine takes it."""
        self._began = clock()
        if self._came:  # lanes in memory have no bytes
            self._note("read", self._began - self._came)
            self._came = 0.0

    def computed(self, ended: float) -> None:
        """What was computed until `ended` is in the loop; the machine takes it."""
        self._began = clock()
        self._note("wait out", self._began - ended)

    def taken(self) -> None:
        """The machine has said that the rows that came are to be computed."""
        self._note("machine in", clock() - self._began)
        self._began = 0.0

    def expected(self) -> None:
        """The rows that came are computed, whatever the machine is about to say."""
        self._note("machine in", 0.0)
        self._began = 0.0

    def sending(self) -> None:
        """The machine has said that rows are to be sent."""
        self._decided = clock()
        if self._began:
            self._note("machine out", self._decided - self._began)
            self._began = 0.0

    def made(self) -> None:
        """The frame is made and goes to the system now, which may take as long as it likes."""
        if self._decided:
            self._note("make", clock() - self._decided)
            self._decided = 0.0

    def sent(self) -> None:
        """Whatever is made from now on has nothing to do with the rows that were sent."""
        self._decided = 0.0

    def sent_onward(self, make: float) -> None:
        """A frame was made and sent by the computing thread: nothing waited, and no machine took it."""
        self._note("wait out", 0.0)
        self._note("machine out", 0.0)
        self._note("make", make)

    def started(self, submitted: float) -> None:
        """Computing begins with rows that were handed over at `submitted`."""
        self._note("wait in", clock() - submitted)

    def listened(self, read: float) -> None:
        """The computing thread checked a frame itself, and begins with its rows."""
        self._note("read", read)
        self._note("machine in", 0.0)

    def parts(self) -> HopParts:
        """Medians, the way out and the way in together."""

        def ms(*names: str) -> float:
            found = [list(self._parts[name]) for name in names]
            return round(sum(median(values) for values in found if values) * 1000.0, 4)

        return HopParts(ms("wait out", "wait in"), ms("machine out", "machine in"), ms("make", "read"))

    def _note(self, name: str, seconds: float) -> None:
        self._parts[name].append(seconds)
