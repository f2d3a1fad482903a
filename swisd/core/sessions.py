"""The sessions that a device drives: those that run, those that ended lately, and the steps of those gone."""

from swisd.core import deadlines
from swisd.core.gone import Gone
from swisd.core.session import Session

MOST_DONE = 64  # finished sessions whose messages are kept for a resend


class Sessions:
    """By their keys, in the order in which they began."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self.gone = Gone()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: str) -> Session | None:
        """A session that runs or ended lately."""
        return self._sessions.get(key)

    def find_running(self, key: str) -> Session | None:
        """A session that did not end."""
        session = self._sessions.get(key)
        return session if session is not None and session.finish is None else None

    @property
    def running(self) -> list[Session]:
        return [session for session in self._sessions.values() if session.finish is None]

    @property
    def reserved(self) -> int:
        """Positions of the KV cache that those that run may fill."""
        return sum(session.reserved for session in self.running)

    def add(self, session: Session) -> None:
        self._sessions[session.key] = session

    def remove(self, key: str, now: float) -> None:
        """Forget a session, but for the number of its next step."""
        self.gone.leave(key, self._sessions.pop(key).next_step, now)

    def sweep(self, now: float) -> None:
        """Forget sessions that ended before the last `MOST_DONE`, or `deadlines.KEEP_DONE` seconds ago."""
        self.gone.sweep(now)
        done = [session for session in self._sessions.values() if session.finish is not None]
        for number, session in enumerate(done):
            if number < len(done) - MOST_DONE or now - session.finished_at > deadlines.KEEP_DONE:
                self.remove(session.key, now)
