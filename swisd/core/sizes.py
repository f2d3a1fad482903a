"""How long a round of so many rows of one session takes, as measured or estimated."""

from collections import deque
from statistics import median

SIZES = (1, 2, 4, 8)  # rows of one session that run in one round, all but the first of them guesses
MORE = 0.25  # what each further row is taken to cost of a round of one, before it was measured
LEAST_MORE = MORE / 4  # the same where fewer rows seemed to cost nothing, as they do by chance
LEAST_S = 1e-6  # a clock may not tell shorter times
SAMPLES, ENOUGH = 7, 3  # of rounds of one size: as many as count, and the least
STALE = 128  # rounds of other sizes, after which those of one size are forgotten


class Sizes:
    """Times of the last rounds under the plan in service, by their size.

    Of a round of several rows it is kept how many times as long as one of a single row it took, in the same
    moment: a spell in which everything is slow would make guesses seem to cost nothing.
    """

    def __init__(self) -> None:
        self._one: deque[float] = deque(maxlen=SAMPLES)  # seconds of rounds of one row
        self._more: dict[int, deque[float]] = {}  # rows -> times as long
        self._unused: dict[int, int] = {}  # rows -> rounds of other sizes since

    def clear(self) -> None:
        """Another plan is in service."""
        self._one.clear()
        self._more.clear()
        self._unused.clear()

    def note(self, rows: int, seconds: float) -> None:
        """A round of so many rows took this long. It counts once the time of a single row is known."""
        if rows == 1:
            self._one.append(max(seconds, LEAST_S))
        elif len(self._one) >= ENOUGH:
            self._more.setdefault(rows, deque(maxlen=SAMPLES)).append(seconds / self.one)
        for size in self._more:
            self._unused[size] = 0 if size == rows else self._unused.get(size, 0) + 1
        for size in [size for size, rounds in self._unused.items() if rounds > STALE]:
            del self._more[size], self._unused[size]

    @property
    def one(self) -> float:
        """Seconds of a round of one row; 1 while that is unknown."""
        return median(self._one) if len(self._one) >= ENOUGH else 1.0

    def times(self) -> dict[int, float]:
        """What a round of each of `SIZES` takes in seconds; at first of one row alone.

        One that was measured a few times only, or long ago, is estimated: a single hiccup must not keep it
        from being tried. None takes less than one of fewer rows.
        """
        one = self.one
        if len(self._one) < ENOUGH:
            return {1: one}
        ratios = {1: 1.0}
        for rows in SIZES[1:]:
            before, known = list(ratios.items())[-1]
            samples = self._more.get(rows, ())
            if len(samples) >= ENOUGH:
                ratios[rows] = max(median(samples), known)
            else:
                slope = (known - 1.0) / (before - 1) if before > 1 else MORE
                ratios[rows] = known + max(slope, LEAST_MORE) * (rows - before)
        return {rows: one * ratio for rows, ratio in ratios.items()}
