"""Sessions that ended and whose rows are kept for a while: one that begins as they did goes on from there.

A prefix fits where the tokens are the same and were run in the same way, so what comes after it is what it
would have been without.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from swisd.core import deadlines
from swisd.core.history import History
from swisd.core.session import Session

LEAST = 16  # positions that are worth a question to all devices


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first `end` positions of a session that ended; `keep`: others may want them, too."""

    session: str
    end: int
    keep: bool


@dataclass(slots=True)
class _Entry:
    held: History
    at: float  # when it was last of use


class Parked:
    """What a driver knows of them; the devices hold the rows. They take room that running sessions leave."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}  # by session, the longest unused first

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._entries))

    @property
    def positions(self) -> int:
        """What they take of the room that all sessions share."""
        return sum(len(entry.held.ids) for entry in self._entries.values())

    def add(self, session: Session, now: float) -> bool:
        """A session ended. Returns False if what it holds is of no use to others."""
        held = session.history
        if session.finish not in ("stop", "length") or session.ask.score_top or len(held.ids) < LEAST:
            return False
        self._entries[session.key] = _Entry(held, now)
        return True

    def take_for(self, session: Session, room: int) -> Prefix | None:
        """What a session can begin with; None if nothing is worth it. `room`: of both, in positions.

        Where that is all that another one holds, this one goes on in its place; so it does where there is no
        room for both.
        """
        if session.ask.score_top:
            return None
        wanted = session.history
        agreed, key = max(
            ((entry.held.agrees(wanted), key) for key, entry in self._entries.items()), default=(0, "")
        )
        end = session.usable(agreed) if agreed else 0
        if end < LEAST or session.answers_from(end) > LEAST:
            return None
        keep = end < len(self._entries[key].held.ids) - 1 and self.positions + session.reserved <= room
        entry = self._entries.pop(key)
        if keep:  # and it is the last to go
            self._entries[key] = _Entry(entry.held, session.started)
        return Prefix(key, end, keep)

    def beyond(self, room: int) -> list[str]:
        """Let those go that were of no use for longest, until the others fit in so many positions."""
        gone = []
        while self._entries and self.positions > room:
            gone.append(next(iter(self._entries)))
            del self._entries[gone[-1]]
        return gone

    def stale(self, now: float) -> list[str]:
        """Let those go that were of no use for `deadlines.PARKED` seconds."""
        gone = [session for session, entry in self._entries.items() if now - entry.at > deadlines.PARKED]
        for session in gone:
            del self._entries[session]
        return gone

    def clear(self) -> None:
        """Nobody holds them any more."""
        self._entries.clear()
