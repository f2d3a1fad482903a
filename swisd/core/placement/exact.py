"""The cheapest plan for few devices, exactly: best-first search over bounds.

For a driver and a set of workers the cost of a token splits in two. The ring of hops depends only on the
order: a travelling salesman over at most a handful of devices (Held and Karp, 1962). The layers depend only
on the counts: the fastest devices are filled first. Where all layers have one size the two never meet, and
their sum is the optimum. Where sizes differ (mixed quantisation) memory depends on which layers a device
gets, so the sum is a lower bound, and A* (Hart, Nilsson and Raphael, 1968) walks from it to the optimum: what
is left to do costs at least the shortest way of the hops, and the computing in the order that suits memory.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from swisd.core.placement.filling import Filling
from swisd.core.placement.fitting import fits, starts
from swisd.core.placement.table import BANNED, Limits, Solution, Table
from swisd.core.placement.ways import Ways

MOST_EXACT = 8
MOST_UNEVEN = 256  # layers of different sizes that are still searched exactly: half a second at worst
# cost bound, workers, minus devices placed, rows placed, ends of their layers, workers left, cost so far
Node = tuple[int, int, int, tuple[int, ...], tuple[int, ...], int, int]
# driver, workers left, last device, end of its layers -> least cost so far, with how many workers
Seen = dict[tuple[int, int, int, int], tuple[int, int]]


def search_exact(table: Table, rows: list[int], limits: Limits) -> Solution | None:
    """The plan over some of `rows` with the least token latency; None where there is none.

    Ties go to fewer devices, then to a fixed order. Time grows with `2 ** len(rows)`.
    """
    if table.uniform:
        return _Search(table, rows, limits, ()).run()
    first = starts(table, rows, limits)
    return _Search(table, rows, limits, first).run() if fits(table, rows, limits, first) else None


def tractable(table: Table) -> bool:
    """Whether a few devices can be searched exactly in a bearable time, however many layers there are."""
    return table.uniform or table.layers <= MOST_UNEVEN


class _Search:
    def __init__(self, table: Table, rows: list[int], limits: Limits, first: Sequence[int]) -> None:
        self.table = table
        self.limits = limits
        self.rows = rows
        self.layers = table.layers
        self.ways = Ways.of(table.hops(rows, limits))
        self.hop, self._path = self.ways.hop, self.ways.path
        self.filling = Filling(table, rows, limits, first)
        self.drive = [table.driver_reach(row, limits) for row in rows]

    def run(self) -> Solution | None:
        best = self.table.best_alone(self.limits, self.rows)
        bound = BANNED if best is None else best.cost_ns
        heap = self._roots(bound)
        heapify(heap)
        seen: Seen = {}
        while heap:
            node = heappop(heap)
            cost, _, _, order, ends, left, _ = node
            if not ends:
                direct = self._direct(order[0], left, cost)
                if direct is not None:
                    return direct
                self._start(heap, node, bound)
            elif left == 0:
                return Solution(cost, tuple(self.rows[place] for place in order), ends)
            else:
                self._step(heap, node, bound, seen)
        return best

    def _roots(self, bound: int) -> list[Node]:
        """Every driver with every set of workers whose lower bound beats the best single device."""
        rings = self.ways.rings
        heap: list[Node] = []
        able = sum(1 << place for place, width in enumerate(self.filling.width) if width >= 1)
        for driver, own in enumerate(self.drive):
            if own < 0:
                continue
            fixed = self.table.driving(self.rows[driver])
            for workers in range(1, 1 << len(self.rows)):
                count = workers.bit_count()
                if workers & ~able or workers >> driver & 1 or count > self.layers:
                    continue
                if not self.limits.fewest <= count <= self.limits.most:
                    continue
                if self.filling.first and self.filling.first[workers] > own:
                    continue
                cost = fixed + rings[workers | 1 << driver]
                if cost < bound:
                    cost += self.filling.least(workers, self.layers, driver, own)
                    if cost < bound:
                        heap.append((cost, count, 0, (driver,), (), workers, fixed))
        return heap

    def _direct(self, driver: int, workers: int, cost: int) -> Solution | None:
        """Turn a bound into a plan where memory allows it as it is, as it does if layers are equal."""
        counts = {driver: 0}
        order, place, left = [driver], driver, workers
        while left:
            ways = [
                (self.hop[place][after] + self._path(after, left & ~(1 << after), driver), after)
                for after in range(len(self.rows))
                if left >> after & 1
            ]
            place = min(ways)[1]
            left &= ~(1 << place)
            order.append(place)
            counts[place] = 1
        spare = self.layers - len(order) + 1
        for place in self.filling.by_speed:
            if place in counts:
                room = self.drive[driver] if place == driver else self.filling.width[place] - 1
                take = min(spare, room)
                counts[place] += take
                spare -= take
        for ring in (order, [driver, *reversed(order[1:])]):
            ends: list[int] = []
            for place in ring:
                start = ends[-1] if ends else 0
                end = start + counts[place]
                if place != driver and self.filling.ends[place][start] < end:
                    break
                ends.append(end)
            else:
                return Solution(cost, tuple(self.rows[place] for place in ring), tuple(ends))
        return None

    def _start(self, heap: list[Node], node: Node, bound: int) -> None:
        """The driver of a root takes its layers: one node for each count."""
        _, count, _, order, _, left, fixed = node
        driver = order[0]
        way = self._path(driver, left, driver)
        for end in range(self.filling.first[left], min(self.drive[driver], self.layers - count) + 1):
            spent = fixed + end * self.filling.layer[driver]
            cost = spent + way + self.filling.rest(left, end)
            if cost < bound:
                heappush(heap, (cost, count, -1, order, (end,), left, spent))

    def _step(self, heap: list[Node], node: Node, bound: int, seen: Seen) -> None:
        """Put each device that is left next in the ring, with every count of layers it can hold there."""
        _, count, placed, order, ends, left, spent = node
        driver, last, start = order[0], order[-1], ends[-1]
        for place in range(len(self.rows)):
            if not left >> place & 1:
                continue
            rest = left & ~(1 << place)
            way = self.hop[last][place] + self.filling.run[place]
            onward = self._path(place, rest, driver)
            for end in self.filling.stops(place, start, rest):
                paid = spent + way + (end - start) * self.filling.layer[place]
                cost = paid + onward + self.filling.rest(rest, end)
                mark = (driver, rest, place, end)  # what is still to come does not depend on more than this
                if cost < bound and (paid, count) < seen.get(mark, (BANNED, 0)):
                    seen[mark] = (paid, count)
                    heappush(heap, (cost, count, placed - 1, (*order, place), (*ends, end), rest, paid))
