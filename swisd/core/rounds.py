"""How long steps take at a driver, and how long one may take before it counts as late."""

from collections import deque
from statistics import median

from swisd.core import deadlines
from swisd.core.types import Beyond, Prediction

MEASURED = 8  # passes of one token after which their times tell how long one may take
SIZES = (1, 2, 4, 8)  # rows of one session that are fed at once, the last of them guesses
MORE = 0.25  # what each further row is taken to cost of a round of one, before it was measured
LEAST_S = 1e-6  # a clock may not tell shorter times
SAMPLES, ENOUGH = 7, 3  # of rounds of one size: as many as count, and the least
STALE = 128  # rounds of other sizes, after which those of one size are forgotten


class Rounds:
    """Times of the last steps under the plan in service."""

    def __init__(self) -> None:
        self._between: deque[float] = deque(maxlen=64)  # ms
        self._prompt: deque[float] = deque(maxlen=32)  # s
        self._token: deque[float] = deque(maxlen=64)  # s
        self._beyond: deque[float] = deque(maxlen=512)  # ms
        self._sizes: dict[int, deque[float]] = {}  # rows -> seconds
        self._unused: dict[int, int] = {}  # rows -> rounds of other sizes since

    @property
    def token_ms(self) -> float:
        """Median ms between two tokens of one session while it ran alone."""
        return median(self._between) if self._between else 0.0

    @property
    def beyond(self) -> Beyond:
        """What steps of one token took beyond computing while a session ran alone."""
        values = sorted(self._beyond)
        if not values:
            return Beyond()
        return Beyond(round(median(values), 3), round(values[(99 * len(values) - 1) // 100], 3))

    def clear(self) -> None:
        """Another plan is in service."""
        self._between.clear()
        self._prompt.clear()
        self._token.clear()
        self._beyond.clear()
        self._sizes.clear()
        self._unused.clear()

    def note_size(self, rows: int, seconds: float) -> None:
        """So many rows of a session that ran alone, fed at once, came back after this time."""
        self._sizes.setdefault(rows, deque(maxlen=SAMPLES)).append(max(seconds, LEAST_S))
        for size in self._sizes:
            self._unused[size] = 0 if size == rows else self._unused.get(size, 0) + 1
        for size in [size for size, rounds in self._unused.items() if rounds > STALE]:
            del self._sizes[size], self._unused[size]

    def times(self) -> dict[int, float]:
        """What a round of each of `SIZES` takes in seconds, as measured or estimated; at first of one row.

        One that was measured a few times only, or long ago, is estimated: a single hiccup must not keep it
        from being tried.
        """
        found: dict[int, float] = {}
        for rows in SIZES:
            samples = self._sizes.get(rows, ())
            if len(samples) >= ENOUGH:
                found[rows] = median(samples)
            elif not found:
                return {1: 1.0}
            else:
                one, (before, known) = found[1], list(found.items())[-1]
                slope = (known - one) / (before - 1) if before > 1 else MORE * one
                found[rows] = known + max(slope, 0.0) * (rows - before)
        return found

    def note_token(self, ms: float) -> None:
        """Two tokens of a session that ran alone came so far apart."""
        self._between.append(ms)

    def note_beyond(self, ms: float) -> None:
        """A step of one token came to the head, so long after it was fed beyond what the stages computed."""
        self._beyond.append(max(ms, 0.0))

    def note(self, rows: int, seconds: float) -> None:
        """A pass of so many rows went round."""
        (self._token if rows == 1 else self._prompt).append(seconds)

    def patience(self, prediction: Prediction | None, rows: int, *, single: bool) -> float:
        """Seconds until a step counts as late: some times the longest that steps took lately, or, before any
        was measured, many times what the plan predicts for all `rows` under way. To be late costs a question.

        `single`: only one-token passes of the session are under way.
        """
        if single and len(self._token) >= MEASURED:
            return max(deadlines.LATE, _longer(max(self._token)))
        row_ms = prediction.prompt_token_ms if prediction is not None else 0.0
        token_ms = prediction.token_ms if prediction is not None else 0.0
        predicted = deadlines.STEP_TIMES * max(rows * row_ms, token_ms) / 1000.0
        lately = _longer(max(self._prompt, default=0.0))
        return max(deadlines.LATE_UNKNOWN, min(predicted, deadlines.STEP), lately)


def _longer(seconds: float) -> float:
    """Some times what steps took at most; after a long stall of one device not without end."""
    return seconds + min((deadlines.ROUND_TIMES - 1.0) * seconds, deadlines.STEP)
