"""The steps of sessions that are gone: one that comes again goes on counting from there."""

from swisd.core import deadlines

MOST = 256  # sessions


class Gone:
    """Devices drop a step that they saw already, so a session that comes again must not begin from zero.

    They forget what they saw after `IDLE_SESSION`, and so does this.
    """

    def __init__(self) -> None:
        self._steps: dict[str, tuple[int, float]] = {}  # session -> next step, when it left; oldest first

    def __len__(self) -> int:
        return len(self._steps)

    def leave(self, session: str, next_step: int, now: float) -> None:
        self._steps.pop(session, None)
        self._steps[session] = next_step, now
        if len(self._steps) > MOST:
            del self._steps[next(iter(self._steps))]

    def next_step(self, session: str) -> int:
        """The first step of a session that begins; 0 if it was never here, or long ago."""
        return self._steps.get(session, (0, 0.0))[0]

    def sweep(self, now: float) -> None:
        old = [key for key, (_, left) in self._steps.items() if now - left > deadlines.IDLE_SESSION]
        for session in old:
            del self._steps[session]
