"""What computing costs a set of workers, in whatever order they lie: the part of a token's time without hops.

Each worker has one layer at least, the fastest are filled first. Where layers differ in size that is a bound,
as memory depends on which layers a device gets; what they cost in the order that suits memory best is found
by dynamic programming from the last layer backwards, cut short by the bound (`Filling.rest`).
"""

from collections.abc import Sequence
from functools import cached_property

from swisd.core.placement.table import BANNED, Limits, Table


class Filling:
    """Places are those of `rows`, sets of workers bit masks of them, times whole nanoseconds.

    `first` is what `fitting.starts` says of these rows; empty where all layers have one size.
    """

    def __init__(self, table: Table, rows: Sequence[int], limits: Limits, first: Sequence[int]) -> None:
        self.layers = table.layers
        self.first = first
        self.layer = [table.layer[row] for row in rows]
        self.run = [table.run[row] for row in rows]
        self.width = [table.widest(row, limits) for row in rows]
        self.by_speed = sorted(range(len(rows)), key=lambda place: (self.layer[place], place))
        self._more = [(place, self.layer[place], self.width[place] - 1) for place in self.by_speed]
        self._ones = [0]  # of every set of workers: what one layer on each costs
        for place in range(len(rows)):
            self._ones += [cost + self.run[place] + self.layer[place] for cost in self._ones]
        self._holds = [(table.memory[row], limits.worker_most[row]) for row in rows]
        self._reach = table.reach
        # By layer and set of workers, for the layers from there on: see `_bound` and `rest`.
        self._bounds: list[dict[int, int]] = [{} for _ in range(self.layers + 1)]
        self._rests: list[dict[int, int]] = [{} for _ in range(self.layers + 1)]

    @cached_property
    def ends(self) -> list[list[int]]:
        """By place: where the layers from each on end that it could hold."""
        starts = range(self.layers + 1)
        return [[self._reach(memory, start, most) for start in starts] for memory, most in self._holds]

    def least(self, workers: int, layers: int, driver: int = -1, own: int = 0) -> int:
        """Lower bound of the computing of `layers` layers, of which a driver may take up to `own`."""
        total, left = self._ones[workers], layers - workers.bit_count()
        if left < 0:
            return BANNED
        for place, each, more in self._more:
            if left == 0:
                break
            if workers >> place & 1:
                take = more
            elif place == driver:
                take = own
            else:
                continue
            take = min(take, left)
            total += take * each
            left -= take
        return total if left == 0 else BANNED

    def rest(self, workers: int, start: int) -> int:
        """The least computing of the layers from `start` on, as it is in the best order for memory."""
        known = self._rests[start].get(workers)
        if known is not None:
            return known
        known, bound = BANNED if workers else 0, self._bound(workers, start)
        for place in self.by_speed:
            if not workers >> place & 1:
                continue
            others = workers & ~(1 << place)
            each = self.layer[place]
            fixed = self.run[place] - start * each
            before = BANNED
            for end in reversed(self.stops(place, start, others)):
                paid = fixed + end * each
                floor = paid + self._bound(others, end)
                if known <= bound or before <= floor >= known:
                    break  # the bound is convex in the number of layers: it falls, then rises
                if floor < known:
                    known = min(known, paid + self.rest(others, end))
                before = floor
        self._rests[start][workers] = known
        return known

    def stops(self, place: int, start: int, others: int) -> range:
        """Where the layers of a worker from `start` on may end, so that the others can hold the rest."""
        stop = min(self.ends[place][start], self.layers - others.bit_count())
        return range(max(start + 1, self.first[others]), stop + 1)

    def _bound(self, workers: int, start: int) -> int:
        known = self._bounds[start].get(workers)
        if known is None:
            known = self._bounds[start][workers] = self.least(workers, self.layers - start)
        return known
