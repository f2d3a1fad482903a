"""How long steps take at a driver, and how long one may take before it counts as late."""

from collections import deque
from statistics import median

from swisd.core import deadlines
from swisd.core.sizes import Sizes
from swisd.core.types import Beyond, Prediction

MEASURED = 8  # passes of one token after which their times tell how long one may take


class Rounds:
    """Times of the last steps under the plan in service."""

    def __init__(self) -> None:
        self._between: deque[float] = deque(maxlen=64)  # ms
        self._prompt: deque[float] = deque(maxlen=32)  # s
        self._token: deque[float] = deque(maxlen=64)  # s
        self._beyond: deque[float] = deque(maxlen=512)  # ms
        self._computed: deque[float] = deque(maxlen=64)  # s
        self._sizes: dict[int, Sizes] = {}
        self.drafted = Sizes()  # rows of a round in which a small model guesses, until the next begins

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
        self._computed.clear()
        self._sizes.clear()
        self.drafted.clear()

    def sizes(self, sessions: int) -> Sizes:
        """What rows fed at once take until the first of them comes back, while so many sessions run."""
        return self._sizes.setdefault(sessions, Sizes())

    def note_token(self, ms: float) -> None:
        """Two tokens of a session that ran alone came so far apart."""
        self._between.append(ms)

    def note_beyond(self, ms: float) -> None:
        """Beyond computing, a token took so long from the end of the first stage to the begin of the head."""
        self._beyond.append(max(ms, 0.0))

    def note_computed(self, ms: float) -> None:
        """All devices together computed so long for a token whose rows shared no pass."""
        self._computed.append(ms / 1000.0)

    def busy(self, sessions: int, devices: int) -> float:
        """The share of the time for which devices compute while so many sessions run, each with one row at a
        time; 1 while that is unknown.
        """
        if not self._computed:
            return 1.0
        return min(1.0, sessions * median(self._computed) / (devices * self.sizes(sessions).one))

    def note(self, rows: int, seconds: float) -> None:
        """A pass of so many rows went round."""
        (self._token if rows == 1 else self._prompt).append(seconds)

    def patience(self, prediction: Prediction | None, rows: int, *, single: bool) -> float:
        """Seconds until a step counts as late: some times the longest that steps took lately, or, before any
        was measured, many times what the plan predicts for all `rows` under way. To be late costs a question.

        `single`: only one-token passes are under way.
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
