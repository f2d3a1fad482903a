"""What keeps a pipeline from giving more tokens: its busiest device or link, as whole nanoseconds per token.

A device is busy with all its stages of one token together, a link with the bytes of one activation (round
trips do not keep it busy). Sending overlaps with computing, so with many steps in flight a token leaves the
pipeline every bottleneck.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from swisd.core.costmodel import DEFAULT_LINK
from swisd.core.placement.table import BANNED, Limits, Solution, Table

PAIRWISE = 64  # devices up to which each pair's link is looked up, instead of all links that are known


class Bottlenecks:
    """The bottlenecks that a plan over the devices of a table can have, and what each of them allows.

    `values` are sorted; any plan's bottleneck is one of them.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.layers = table.layers
        rows = self.rows = range(len(table))
        free = self.free = table.free()
        self.alone = [table.alone(row, free) for row in rows]
        self.width = [table.widest(row, free) for row in rows]
        self.drive = [table.driver_reach(row, free) for row in rows]
        self.driving = [table.driving(row) for row in rows]
        self.values = self._values()

    def _values(self) -> list[int]:
        layer = self.table.layer
        fixed = [*enumerate(self.table.run), *enumerate(self.driving)]
        busy = {
            cost + count * layer[row]
            for row, cost in fixed
            if cost < BANNED
            for count in range(self.layers + 1)
        }
        alone = {cost for cost in self.alone if cost < BANNED}
        return sorted(busy | alone | self._transfers())

    def _transfers(self) -> set[int]:
        table = self.table
        if len(table) <= PAIRWISE:
            return {table.transfer(one, other) for one in self.rows for other in range(one)}
        known = {link for peers in table.links.peers.values() for link in peers.values()} | {DEFAULT_LINK}
        return {table.wire(link) for link in known}

    def limits(self, bottleneck: int) -> Limits:
        """What a search may do so that no device and no link is busy for longer."""
        run, within = self.table.run, self.table.within
        return replace(
            self.free,
            worker_most=tuple(max(within(bottleneck - run[row], row), 0) for row in self.rows),
            driver_most=tuple(within(bottleneck - self.driving[row], row) for row in self.rows),
            alone=tuple(cost <= bottleneck for cost in self.alone),
            transfer_ns=bottleneck,
        )

    def least(self, rows: Sequence[int]) -> int:
        """Where in `values` the bottleneck of a pipeline of some of these rows lies at the least.

        A lower bound, as links are left out and uneven layers count as if each lay where it suits; nothing
        else is, so with equal layers and links that are not the narrow part it is the bottleneck itself.
        `len(values)` where these rows cannot hold the model.
        """
        high = len(self.values)
        if not self._holds(rows, BANNED):
            return high
        each = [self.table.layer[row] for row in rows]
        # Layers in any fractions, without runs and ends, take at least this long; rounding down is safe.
        speed = sum(1 / layer for layer in each) if all(each) else 0.0
        low = bisect_left(self.values, int(self.layers / speed * 0.999)) if speed else 0
        while low < high:
            middle = (low + high) // 2
            if self._holds(rows, self.values[middle]):
                high = middle
            else:
                low = middle + 1
        return high

    def _holds(self, rows: Sequence[int], bottleneck: int) -> bool:
        """Whether the rows have room and time for all layers, one of them driving."""
        run, layer, layers = self.table.run, self.table.layer, self.layers
        room, extra = 0, -BANNED  # layers of all as workers, and how many more if the best driver drives
        for row in rows:
            if self.alone[row] <= bottleneck and self.alone[row] < BANNED:
                return True
            budget, each = bottleneck - run[row], layer[row]
            wide = 0 if budget < 0 else min(budget // each, self.width[row]) if each else self.width[row]
            room += wide
            own = self.drive[row]
            if own >= 0:
                budget = bottleneck - self.driving[row]
                if budget >= 0:
                    extra = max(extra, (min(budget // each, own) if each else own) - wide)
        return room + extra >= layers

    def of(self, solution: Solution) -> int:
        """The bottleneck of a plan."""
        table, order, ends = self.table, solution.order, solution.ends
        if len(order) == 1:
            return solution.cost_ns
        busy = [self.driving[order[0]] + ends[0] * table.layer[order[0]]]
        for place in range(1, len(order)):
            count = ends[place] - ends[place - 1]
            busy.append(table.run[order[place]] + count * table.layer[order[place]])
        return max(*busy, *(table.transfer(order[place - 1], order[place]) for place in range(len(order))))
