"""Sessions that ended and whose rows are kept for a while: one that begins as they did goes on from there.

A prefix fits where the tokens are the same and were run in the same way, so what comes after it is what it
would have been without.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from swisd.core import deadlines
from swisd.core.history import History

LEAST = 16  # positions that are worth a question to all devices


@dataclass(slots=True)
class _Entry:
    held: History
    at: float  # when it was last of use


class Parked:
    """What a driver knows of them; the devices hold the rows."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}  # session -> what it holds, the longest unused first

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._entries))

    @property
    def positions(self) -> int:
        """What they take of the room that all sessions share."""
        return sum(len(entry.held.ids) for entry in self._entries.values())

    def add(self, session: str, held: History, now: float) -> None:
        self._entries[session] = _Entry(held, now)

    def find(self, wanted: History) -> tuple[str, int] | None:
        """The session with the longest prefix of a history, and how long it is; None if none is worth it."""
        found = max(
            ((entry.held.agrees(wanted), session) for session, entry in self._entries.items()),
            default=(0, ""),
        )
        return (found[1], found[0]) if found[0] >= LEAST else None

    def length(self, session: str) -> int:
        return len(self._entries[session].held.ids)

    def use(self, session: str, now: float) -> None:
        """It was of use: it goes last."""
        entry = self._entries.pop(session)
        entry.at = now
        self._entries[session] = entry

    def remove(self, session: str) -> None:
        del self._entries[session]

    def clear(self) -> None:
        """Nobody holds them any more."""
        self._entries.clear()

    def stale(self, now: float) -> list[str]:
        """Those that were of no use for `deadlines.PARKED` seconds."""
        return [session for session, entry in self._entries.items() if now - entry.at > deadlines.PARKED]
