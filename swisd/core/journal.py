"""What a device sent on for each session, kept for a while: a lost stage is rebuilt from its inputs.

A journal belongs to one session and one boundary between units, and holds the passes that went over it in
order, with the shapes that they had: rows that are computed again from it have the same bits. Together they
stay within a budget of bytes; beyond it the oldest passes go first, and what they began is rebuilt from
tokens.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One pass: rows at an absolute position, `payload` as the runtime gave it."""

    position: int
    rows: int
    payload: Any
    size: int

    @property
    def end(self) -> int:
        return self.position + self.rows


@dataclass(slots=True)
class _Line:
    entries: deque[Entry] = field(default_factory=deque)
    size: int = 0
    made: int = 0  # how far outputs were made, kept or not


class Journal:
    """All journals of a device. `budget` is in bytes."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._lines: dict[tuple[str, int], _Line] = {}  # (session, unit behind the boundary)
        self.size = 0

    def add(self, session: str, boundary: int, position: int, rows: int, payload: Any, size: int) -> None:
        """Keep a pass; one that is run again replaces what was kept from its position on."""
        line = self._lines.setdefault((session, boundary), _Line())
        self._cut(line, position)
        if line.entries and line.entries[-1].end != position:
            self._drop(line)
        line.made = position + rows
        line.entries.append(Entry(position, rows, payload, size))
        line.size += size
        self.size += size
        self._trim()

    def made(self, session: str, boundary: int, end: int) -> None:
        """Outputs up to `end` were made that need not be kept."""
        line = self._lines.setdefault((session, boundary), _Line())
        self._drop(line)
        line.made = end

    def kept(self, session: str, boundary: int) -> tuple[int, int]:
        """Positions `[from, made)` whose outputs are kept."""
        line = self._lines.get((session, boundary))
        if line is None:
            return 0, 0
        return (line.entries[0].position if line.entries else line.made), line.made

    def passes(self, session: str, boundary: int, start: int, end: int) -> list[Entry]:
        """The passes with any position in `[start, end)`; empty unless all of them are kept."""
        line = self._lines.get((session, boundary))
        found = (
            [entry for entry in line.entries if entry.end > start and entry.position < end] if line else []
        )
        if not found or found[0].position > start or found[-1].end < end:
            return []
        return found

    def fork(self, source: str, session: str, end: int, *, keep: bool) -> None:
        """A session takes over what was kept of another one before `end`, where a pass ends there."""
        for (key, boundary), line in list(self._lines.items()):
            if key != source:
                continue
            here = [entry for entry in line.entries if entry.end <= end]
            if here and here[-1].end == end:
                size = sum(entry.size for entry in here)
                self._lines[session, boundary] = _Line(deque(here), size, end)
                self.size += size
            if not keep:
                self._drop(self._lines.pop((key, boundary)))
        self._trim()

    def forget(self, session: str) -> None:
        """The session is over."""
        for key in [key for key in self._lines if key[0] == session]:
            self._drop(self._lines.pop(key))

    def keep_boundaries(self, boundaries: set[int]) -> None:
        """Under another plan this device sends over these boundaries alone."""
        for key in [key for key in self._lines if key[1] not in boundaries]:
            self._drop(self._lines.pop(key))

    def __len__(self) -> int:
        return len(self._lines)

    def _trim(self) -> None:
        while self.size > self._budget:
            longest = max(self._lines.values(), key=lambda item: item.size)
            gone = longest.entries.popleft()
            longest.size -= gone.size
            self.size -= gone.size

    def _cut(self, line: _Line, position: int) -> None:
        while line.entries and line.entries[-1].end > position:
            gone = line.entries.pop()
            line.size -= gone.size
            self.size -= gone.size

    def _drop(self, line: _Line) -> None:
        self.size -= line.size
        line.size = 0
        line.entries.clear()
