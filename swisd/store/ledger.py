"""Who was given which blob by this device, so that it need not be given twice while many want it at once.

Devices that fill up at the same time form a *rush*. In a rush each blob is given to the one that asks for it
first; who asks later is sent to one of those who asked before. The askers of a blob make a binary tree in the
order in which they asked, so no device passes a blob on to more than two others, and nobody is sent to one
that was sent to it: there are no circles. Who could not get it there asks again and names those that failed;
when nobody is left, this device gives it again.

A rush ends when this device was not asked for a while: what was given long ago says little about who still
has it, and a device that joins later is served by all who have the blob.
"""

from collections.abc import Sequence

from swisd.store.protocol import MAX_NAMED

RUSH_S = 60.0  # without a request ends a rush
MAX_ASKERS = 1024  # of one blob


class Ledger:
    """The askers of each blob in the order in which they came."""

    def __init__(self, rush_s: float = RUSH_S) -> None:
        self._rush_s = rush_s
        self._asked: dict[str, list[str]] = {}
        self._gone: set[str] = set()
        self._last = float("-inf")

    def ask(self, sha: str, device: str, without: Sequence[str], now: float) -> tuple[str, ...]:
        """A device asks for a blob at `now` (s): whom it should ask instead, best first; () to give it."""
        if now - self._last > self._rush_s:
            self._asked.clear()
            self._gone.clear()
        self._last = now
        self._gone.discard(device)
        askers = self._asked.setdefault(sha, [])
        if device not in askers:
            if len(askers) >= MAX_ASKERS:
                return ()
            askers.append(device)
        out = self._gone.union(without)
        before = [one for one in askers[: askers.index(device)] if one not in out]
        if not before:
            return ()
        best = (len(before) - 1) // 2
        return (before[best], *reversed(before[:best]), *before[best + 1 :])[:MAX_NAMED]

    def gone(self, device: str) -> None:
        """A transfer to this device broke: nobody is sent to it until it asks again."""
        self._gone.add(device)
