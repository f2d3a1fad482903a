"""How long a round of so many rows of one session takes, as measured or estimated."""

from collections import deque
from statistics import median

SIZES = (1, 2, 4, 8)  # rows of one session that run in one round, all but the first of them guesses
MORE = 0.25  # what each further row is taken to cost of a round of one, before it was measured
LEAST_S = 1e-6  # a clock may not tell shorter times
SAMPLES, ENOUGH = 7, 3  # of rounds of one size: as many as count, and the least
STALE = 128  # rounds of other sizes, after which those of one size are forgotten


class Sizes:
    """Times of the last rounds under the plan in service, by their size."""

    def __init__(self) -> None:
        self._times: dict[int, deque[float]] = {}  # rows -> seconds
        self._unused: dict[int, int] = {}  # rows -> rounds of other sizes since

    def clear(self) -> None:
        """Another plan is in service."""
        self._times.clear()
        self._unused.clear()

    def note(self, rows: int, seconds: float) -> None:
        """A round of so many rows of a session that ran alone took this long."""
        self._times.setdefault(rows, deque(maxlen=SAMPLES)).append(max(seconds, LEAST_S))
        for size in self._times:
            self._unused[size] = 0 if size == rows else self._unused.get(size, 0) + 1
        for size in [size for size, rounds in self._unused.items() if rounds > STALE]:
            del self._times[size], self._unused[size]

    def times(self) -> dict[int, float]:
        """What a round of each of `SIZES` takes in seconds; at first of one row alone.

        One that was measured a few times only, or long ago, is estimated: a single hiccup must not keep it
        from being tried.
        """
        found: dict[int, float] = {}
        for rows in SIZES:
            samples = self._times.get(rows, ())
            if len(samples) >= ENOUGH:
                found[rows] = median(samples)
            elif not found:
                return {1: 1.0}
            else:
                one, (before, known) = found[1], list(found.items())[-1]
                slope = (known - one) / (before - 1) if before > 1 else MORE * one
                found[rows] = known + max(slope, 0.0) * (rows - before)
        return found
