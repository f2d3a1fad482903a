"""A good plan for many devices: grown greedily from likely drivers, then improved by local search.

Nothing here depends on a clock: the search stops after a fixed amount of work, so equal inputs give
equal plans. Where layers differ in size, a layout is first priced as if each device got the layers that suit
it best; only if that would be an improvement, dynamic programming finds the best real cuts along its ring.
"""

from collections.abc import Iterator, Sequence

from swisd.core.placement.exact import MOST_EXACT, search_exact, tractable
from swisd.core.placement.pool import DRIVERS, Pool
from swisd.core.placement.table import BANNED, Limits, Solution, Table

WORK = 400_000  # steps of the innermost loops spent on improving the plan of one driver
Layout = list[int]  # places in the search's arrays: the driver, then the workers in the order of the ring
Cuts = dict[int, tuple[int, tuple[int, ...]]]  # layers placed -> computing cost so far, ends of the layers


def search_large(table: Table, limits: Limits, quick: bool = False) -> Solution | None:
    """A plan of low token latency over the devices of the table; None where none was found.

    Never worse than the best device alone. `quick` skips the improvement: enough to see that a plan exists.
    """
    alone = table.best_alone(limits)
    if quick and alone is not None:
        return alone
    pool = Pool(table, limits)
    found = [] if alone is None else [alone]
    if not quick and limits.fewest == 0 and tractable(table):
        seed = search_exact(table, pool.best(MOST_EXACT), limits)
        found += [] if seed is None else [seed]
    search = _Search(table, limits, pool)
    for driver in pool.drivers:
        layout = search.grow(driver)
        if layout is not None:
            found.append(search.solution(layout if quick else search.improve(layout)))
            if quick:
                break
    if not found:
        packed = pack(table, limits, pool)
        if packed is None or quick:
            return packed
        search = _Search(table, limits, pool, packed.order)
        found.append(search.solution(search.improve([search.rows.index(row) for row in packed.order])))
    best = min(found, key=lambda solution: solution.key)
    return best if quick or limits.fewest > 0 else _polish(table, limits, pool, best)


def _polish(table: Table, limits: Limits, pool: Pool, best: Solution) -> Solution:
    """Search exactly among the devices of a plan and a few more, as long as that improves it."""
    while len(best.order) < MOST_EXACT and tractable(table):
        better = search_exact(table, pool.best(MOST_EXACT, best.order), limits)
        if better is None or better.cost_ns >= best.cost_ns:
            break
        best = better
    return best


def pack(table: Table, limits: Limits, pool: Pool) -> Solution | None:
    """Some plan that uses memory to the last layer, without regard to cost: the roomiest devices first."""
    everyone = range(len(table))
    workers = sorted(everyone, key=lambda row: (-table.memory[row], row))
    drivers = sorted(
        (row for row in everyone if pool.drive[row] >= 0), key=lambda row: (-pool.drive[row], row)
    )
    for driver in drivers[:DRIVERS]:
        order, ends = [driver], [pool.drive[driver]]
        for row in workers:
            end = table.reach(table.memory[row], ends[-1], limits.worker_most[row])
            if row != driver and end > ends[-1]:
                order.append(row)
                ends.append(end)
        cost = table.cost(order, ends, limits) if ends[-1] == table.layers else BANNED
        if cost < BANNED and limits.fewest <= len(order) - 1 <= limits.most:
            return Solution(cost, tuple(order), tuple(ends))
    return None


class _Search:
    """Plans over the pool. Places are ordered by speed, so a sorted layout is filled from the front."""

    def __init__(self, table: Table, limits: Limits, pool: Pool, those: Sequence[int] = ()) -> None:
        self.table = table
        self.layers = table.layers
        self.fewest, self.most = limits.fewest, min(limits.most, table.layers)
        self.rows = sorted({*pool.rows, *those}, key=lambda row: (table.layer[row], row))
        self.hop = table.hops(self.rows, limits)
        self.layer = [table.layer[row] for row in self.rows]
        self.run = [table.run[row] for row in self.rows]
        self.width = [pool.width[row] for row in self.rows]
        self.own = [pool.drive[row] for row in self.rows]
        self.driving = [table.driving(row) for row in self.rows]
        self.alone = [table.alone(row, limits) for row in self.rows]
        self.reach: list[list[int]] = []  # by place and first layer: where its layers may end
        if not table.uniform:
            most = [limits.worker_most[row] for row in self.rows]
            starts = range(table.layers + 1)
            self.reach = [
                [table.reach(table.memory[row], start, most[place]) for start in starts]
                for place, row in enumerate(self.rows)
            ]
        self.workers = [place for place, width in enumerate(self.width) if width > 0]
        self.work = 0

    def price(self, layout: Layout, bound: int = BANNED) -> int:
        """Cost of a layout with its layers where they cost least; `BANNED` where they do not fit.

        Not below `bound`, only a lower bound of the cost may be given.
        """
        driver, count = layout[0], len(layout) - 1
        if not self.fewest <= count <= self.most or self.own[driver] < 0:
            return BANNED
        if count == 0:
            return self.alone[driver]
        self.work += len(layout)
        total = self.driving[driver]
        computing = 0
        last = driver
        for place in layout[1:]:
            if self.width[place] == 0:
                return BANNED
            total += self.hop[last][place] + self.run[place]
            computing += self.layer[place]
            last = place
        total += self.hop[last][driver]
        left = self.layers - count
        for place in sorted(layout):
            if left == 0:
                break
            take = min(left, self.own[driver] if place == driver else self.width[place] - 1)
            computing += take * self.layer[place]
            left -= take
        if left or total + computing >= bound:
            return BANNED
        if self.reach:
            cut = self.cut(layout)
            computing = BANNED if cut is None else cut[0]
        return min(total + computing, BANNED)

    def cut(self, layout: Layout) -> tuple[int, tuple[int, ...]] | None:
        """The cheapest cuts along a ring by dynamic programming: their computing cost and where they are."""
        driver, after = layout[0], len(layout) - 1
        first = range(min(self.own[driver], self.layers - after) + 1)
        best: Cuts = {end: (end * self.layer[driver], (end,)) for end in first}
        for place in layout[1:]:
            after -= 1
            each, reach = self.layer[place], self.reach[place]
            further: Cuts = {}
            for start, (cost, ends) in best.items():
                stop = min(reach[start], self.layers - after) + 1
                self.work += 1 + stop - start
                for end in range(start + 1, stop):
                    paid = cost + (end - start) * each
                    known = further.get(end)
                    if known is None or paid < known[0]:
                        further[end] = (paid, (*ends, end))
            best = further
        return best.get(self.layers)

    def solution(self, layout: Layout) -> Solution:
        driver = layout[0]
        cost = self.price(layout)
        if len(layout) == 1:
            return Solution(cost, (self.rows[driver],), (self.layers,))
        order = tuple(self.rows[place] for place in layout)
        cut = self.cut(layout) if self.reach else None
        if cut is not None:
            return Solution(cost, order, cut[1])
        counts = dict.fromkeys(layout, 1)
        counts[driver] = 0
        left = self.layers - len(layout) + 1
        for place in sorted(layout):
            take = min(left, self.own[driver] if place == driver else self.width[place] - 1)
            counts[place] += take
            left -= take
        ends: list[int] = []
        for place in layout:
            ends.append((ends[-1] if ends else 0) + counts[place])
        return Solution(cost, order, tuple(ends))

    def insert(self, layout: Layout, place: int) -> tuple[int, int]:
        """Least added hop time of a device in the ring, and the device after which it costs that."""
        self.work += len(layout)
        best = (BANNED, layout[0])
        way = self.hop[place]
        before = layout[-1]
        for after in layout:
            more = way[before] + way[after] - self.hop[before][after]
            if more < best[0]:
                best = (more, before)
            before = after
        return best

    def grow(self, row: int) -> Layout | None:
        """Add the worker that is cheapest per layer still wanted until all layers have a place."""
        driver = self.rows.index(row)
        layout = [driver]
        if self.alone[driver] < BANNED:
            return layout
        room = self.own[driver]
        # Where each candidate would enter the ring: added hops, and the device it would follow. Only the
        # edge that a newcomer breaks makes old answers wrong, so few are looked up again.
        entry = {place: self.insert(layout, place) for place in self.workers if place != driver}
        while room < self.layers or len(layout) - 1 < max(self.fewest, 1) or self.price(layout) >= BANNED:
            wanted = max(self.layers - room, 1)
            offers = [
                (self.layer[place] + (more + self.run[place]) / min(self.width[place], wanted), place)
                for place, (more, _) in entry.items()
                if more < BANNED
            ]
            if not offers or len(layout) > self.most:
                return None
            place = min(offers)[1]
            _, before = entry.pop(place)
            at = layout.index(before) + 1
            after = layout[at % len(layout)]
            layout.insert(at, place)
            room += self.width[place]
            for other, (more, follows) in entry.items():
                if follows == before:
                    entry[other] = self.insert(layout, other)
                else:
                    way = self.hop[other]
                    entry[other] = min(
                        (more, follows),
                        (way[before] + way[place] - self.hop[before][place], before),
                        (way[place] + way[after] - self.hop[place][after], place),
                    )
        return layout

    def improve(self, layout: Layout) -> Layout:
        """Follow the first better neighbour until there is none or the work is done."""
        self.work = 0
        cost = self.price(layout)
        better = True
        while better and self.work < WORK:
            better = False
            for other in self._neighbours(layout, cost):
                price = self.price(other, cost)
                if price < cost:
                    layout, cost, better = other, price, True
                    break
                if self.work >= WORK:
                    break
        return layout

    def _neighbours(self, layout: Layout, cost: int) -> Iterator[Layout]:
        for position in range(1, len(layout)):
            yield layout[:position] + layout[position + 1 :]
        for place in self.workers:
            if place not in layout:
                yield from self._with(layout, place)
        for position in range(1, len(layout)):  # another driver: one of the workers, or a newcomer
            swapped = layout.copy()
            swapped[0], swapped[position] = layout[position], layout[0]
            yield swapped
            yield [layout[position], *layout[1:position], *layout[position + 1 :]]
        for place, own in enumerate(self.own):
            if own >= 0 and place not in layout:
                yield [place, *layout[1:]]
                if self.width[layout[0]] > 0:
                    yield [place, *layout]
        yield from self._turns(layout)
        for position in range(1, len(layout)):  # a worker moves elsewhere in the ring, or two change places
            rest = layout[:position] + layout[position + 1 :]
            for other in range(1, len(layout)):
                if other != position:
                    yield [*rest[:other], layout[position], *rest[other:]]
                if other > position:
                    swapped = layout.copy()
                    swapped[position], swapped[other] = layout[other], layout[position]
                    yield swapped

    def _with(self, layout: Layout, place: int) -> Iterator[Layout]:
        """A device joins where its hops cost least; then one or two that it makes needless leave."""
        more, before = self.insert(layout, place)
        if more >= BANNED:
            return
        at = layout.index(before) + 1
        joined = [*layout[:at], place, *layout[at:]]
        yield joined
        for _ in range(min(2, len(joined) - 2)):
            options = [joined[:at] + joined[at + 1 :] for at in range(1, len(joined)) if joined[at] != place]
            price, joined = min(((self.price(option), option) for option in options), default=(BANNED, []))
            if price >= BANNED:
                return
            yield joined

    def _turns(self, layout: Layout) -> Iterator[Layout]:
        """2-opt: every part of the ring turned round, if that shortens it (Croes, 1958)."""
        size, hop = len(layout), self.hop
        for start in range(1, size - 1):
            before, first = layout[start - 1], layout[start]
            for stop in range(start + 1, size):
                last, after = layout[stop], layout[(stop + 1) % size]
                if hop[before][last] + hop[first][after] < hop[before][first] + hop[last][after]:
                    yield layout[:start] + layout[start : stop + 1][::-1] + layout[stop + 1 :]
