"""Which sessions one pass can serve: those whose caches lie side by side, brought there where it pays."""

from collections.abc import Sequence
from dataclasses import dataclass

from swisd.runtime.kv import KvStore
from swisd.runtime.pools import Pool

MAX_KNOWN = 256


@dataclass(frozen=True, slots=True)
class Group:
    """One pass over places `[first, first + count)` of a pool; without a pool, over one session alone.

    `members` are (number of the session as asked, place). `others` are places between them that run along:
    what that writes at the position named is beyond all that is valid there.
    """

    members: tuple[tuple[int, int], ...]
    pool: Pool | None = None
    first: int = 0
    count: int = 1
    others: tuple[tuple[int, int], ...] = ()


class Grouping:
    """Groups sessions in some layers of one store.

    To copy caches is worth it only for a company that lasts, so sessions are brought together the second time
    that the same ones are asked for at once. A place between two others that has nothing to do costs less
    than a pass more: it runs along, as long as no more than half of the places do.
    """

    def __init__(self, store: KvStore, layers: range) -> None:
        self._store, self._layers = store, layers
        self._asked: dict[str, frozenset[str]] = {}  # session -> whom it was last asked for with

    def groups(self, sessions: Sequence[str], totals: Sequence[int]) -> list[Group]:
        """Groups that together hold each session once; `totals` are the positions that each will have.

        Sessions need not have rows yet; those that have none, or less room than they need, are on their own.
        """
        company = frozenset(sessions)
        lasting = all(self._asked.get(session) == company for session in sessions)
        if len(self._asked) > MAX_KNOWN:
            self._asked.clear()
        self._asked.update(dict.fromkeys(sessions, company))
        places = [self._place(session) for session in sessions]
        here = {pool for pool, _ in places}
        full = len(here) == 1 and any(pool and pool.capacity < max(totals) for pool in here)
        held = all(self._store.rows(session, layer) for session in sessions for layer in self._layers)
        if held and full:
            return [self._pooled(sessions, totals)]
        found: list[Group] = []
        for pool in dict.fromkeys(pool for pool, _ in places):
            numbers = [number for number, (other, _) in enumerate(places) if other is pool]
            beside = [number for number in numbers if pool is not None and totals[number] <= pool.capacity]
            found.extend(Group(((number, 0),)) for number in numbers if number not in beside)
            if pool is not None:
                found.extend(self._runs(pool, sorted((places[number][1], number) for number in beside)))
        return [self._pooled(sessions, totals)] if len(found) > 1 and held and lasting else found

    def _pooled(self, sessions: Sequence[str], totals: Sequence[int]) -> Group:
        pool = self._store.pool(sessions, self._layers, max(totals))
        return Group(tuple((n, n) for n in range(len(sessions))), pool, 0, len(sessions))

    def _place(self, session: str) -> tuple[Pool | None, int]:
        """The pool that holds a session in all layers, at one place; None if that is not so."""
        rows = [self._store.rows(session, layer) for layer in self._layers]
        first = rows[0]
        if first is None or first.pool is None:
            return None, 0
        same = all(item and item.pool is first.pool and item.place == first.place for item in rows)
        return (first.pool, first.place) if same else (None, 0)

    def _runs(self, pool: Pool, members: Sequence[tuple[int, int]]) -> list[Group]:
        """Groups over (place, number) in order of places, with what may run along between them."""
        found: list[Group] = []
        taken: list[tuple[int, int]] = []
        others: list[tuple[int, int]] = []
        for place, number in members:
            between = self._between(pool, range(taken[-1][0] + 1, place)) if taken else None
            if between is not None and len(others) + len(between) <= len(taken):
                others += between
            elif taken:
                found.append(_group(pool, taken, others))
                taken, others = [], []
            taken.append((place, number))
        return [*found, _group(pool, taken, others)] if taken else found

    def _between(self, pool: Pool, places: range) -> list[tuple[int, int]] | None:
        """Where rows that nobody reads can be written at these places; None if one of them is full."""
        ends = dict.fromkeys(places, 0)
        for layer in self._layers:
            for rows in self._store.in_pool(pool, layer):
                if rows.place in ends:
                    ends[rows.place] = max(ends[rows.place], rows.length)
        return list(ends.items()) if all(end < pool.capacity for end in ends.values()) else None


def _group(pool: Pool, members: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> Group:
    first, last = members[0][0], members[-1][0]
    mine = tuple((number, place) for place, number in members)
    return Group(mine, pool, first, last - first + 1, tuple(others))
