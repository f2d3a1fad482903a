"""Disjoint groups of devices, each fit for a pipeline of its own, so that together they give most tokens.

A group is worth its rate: tokens in a fixed time, from the lower bound of its bottleneck. Each device after
the first must add about a fiftieth to it, as one more part brings two hops, which make tokens take longer
and measure 10 to 17 % above the prediction for two and three devices (docs/log.md), and one more that can be
lost. For up to `MOST_EXACT` devices the best partition is found by dynamic programming over sets; for more,
groups are filled by memory from devices that take about as long when they are full, what is left joins where
it adds most, and groups are changed, at most two at once, as long as that helps and the work is not done.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

from swisd.core.placement.bottleneck import Bottlenecks
from swisd.core.placement.exact import MOST_EXACT

MOST_GROUPS = 64  # as many pipelines as a plan may have
LONE = 50  # a further device must add a fiftieth to the rate of one or two, a little less to that of more
RATE = 10**15  # a rate is tokens in this many nanoseconds, a whole number so that ties are ties
WORK = 40_000  # devices looked at while groups are improved: 0.1 to 0.2 s
TRIES = 1_500  # groups that are priced while what is left joins, whatever the number of devices
# A group of `MOST_EXACT` takes no further device, as larger ones are not solved exactly: those that need
# more to hold the model are open again.
Group = tuple[int, ...]  # rows of a table, sorted


class Worth:
    """What a group is worth, remembered. `correct` replaces an estimate by what was found to be true."""

    def __init__(self, bottlenecks: Bottlenecks) -> None:
        self.bottlenecks = bottlenecks
        self.known: dict[Group, int] = {}
        self.work = 0

    def of(self, group: Group) -> int:
        """0 where the group cannot hold the model."""
        worth = self.known.get(group)
        if worth is None:
            self.work += len(group)
            values = self.bottlenecks.values
            place = self.bottlenecks.least(group)
            worth = self.known[group] = worth_of(values[place], len(group)) if place < len(values) else 0
        return worth

    def correct(self, group: Group, worth: int) -> None:
        self.known[group] = worth


def rate_of(bottleneck: int) -> int:
    return RATE // max(bottleneck, 1)


def worth_of(bottleneck: int, devices: int) -> int:
    return rate_of(bottleneck) * LONE // (LONE + devices - 1)


def partition(worth: Worth, rows: Sequence[int]) -> list[Group]:
    """The groups of greatest worth together; rows in no group are left out."""
    return _exact(worth, rows) if len(rows) <= MOST_EXACT else _Search(worth, rows).run()


def _exact(worth: Worth, rows: Sequence[int]) -> list[Group]:
    """The optimum by dynamic programming over sets: time grows with `3 ** len(rows)`."""
    size = 1 << len(rows)
    worth.work += size
    groups = [tuple(row for place, row in enumerate(rows) if mask >> place & 1) for mask in range(size)]
    value = [worth.of(group) if group else 0 for group in groups]
    best, choice = [0] * size, [0] * size
    for mask in range(1, size):
        first = mask & -mask
        rest = part = mask ^ first
        top, pick = best[rest], 0
        while True:  # every group of the first device with some of the rest
            own = value[part | first]
            if own and own + best[rest ^ part] > top:
                top, pick = own + best[rest ^ part], part | first
            if not part:
                break
            part = (part - 1) & rest
        best[mask], choice[mask] = top, pick
    chosen, mask = [], size - 1
    while mask:
        if choice[mask]:
            chosen.append(groups[choice[mask]])
        mask ^= choice[mask] or mask & -mask
    return chosen


class _Search:
    """Good groups of many devices."""

    def __init__(self, worth: Worth, rows: Sequence[int]) -> None:
        self.worth = worth
        self.rows = rows
        self.bottlenecks = worth.bottlenecks
        self.table = worth.bottlenecks.table

    def run(self) -> list[Group]:
        alone = self.bottlenecks.alone
        solos = [(row,) for row in self.rows if self.worth.of((row,))]
        solos = sorted(solos, key=lambda group: (alone[group[0]], group))[:MOST_GROUPS]
        taken = {group[0] for group in solos}
        rest = sorted((row for row in self.rows if row not in taken), key=self._full)
        best: list[Group] = []
        for filled in (self._alike(rest), self._by_driver(rest)):
            ranked = sorted([*solos, *filled], key=lambda group: (-self.worth.of(group), group))
            joined = self._joined(ranked[:MOST_GROUPS])
            if self._total(joined) > self._total(best):
                best = joined
        return self._improved(best)

    def _total(self, groups: Sequence[Group]) -> int:
        return sum(self.worth.of(group) for group in groups)

    def _left(self, groups: Sequence[Group]) -> list[int]:
        """Rows in no group, the fastest first."""
        used = {row for group in groups for row in group}
        rest = (row for row in self.rows if row not in used)
        return sorted(rest, key=lambda row: (self.table.layer[row], row))

    def _full(self, row: int) -> tuple[int, int]:
        """How long a device is busy when its memory is full: those who are alike do not wait for another."""
        width = min(self.bottlenecks.width[row], self.table.layers)
        return self.table.run[row] + width * self.table.layer[row], row

    def _alike(self, rows: Sequence[int]) -> list[Group]:
        """Groups of neighbours in the order given, each closed once it holds the model."""
        groups: list[Group] = []
        group: list[int] = []
        for row in rows:
            group.append(row)
            if self._fits(group):
                groups.append(tuple(sorted(group)))
                group = []
        return groups

    def _by_driver(self, rows: Sequence[int]) -> list[Group]:
        """Groups around one driver each, where those who can drive are few among many."""
        layers, width, drive = self.table.layers, self.bottlenecks.width, self.bottlenecks.drive
        room = sum(width[row] for row in rows)
        able = [row for row in rows if drive[row] >= 0]
        most = min(len(able), room // max(layers, 1), MOST_GROUPS)
        drivers = sorted(sorted(able, key=lambda row: (-drive[row], self._full(row)))[:most], key=self._full)
        workers = iter([row for row in rows if row not in set(drivers)])
        groups: list[Group] = []
        for driver in drivers:
            group = [driver]
            while not self._fits(group):
                row = next(workers, None)
                if row is None:
                    return groups
                group.append(row)
            groups.append(tuple(sorted(group)))
        return groups

    def _fits(self, group: Sequence[int]) -> bool:
        width, drive = self.bottlenecks.width, self.bottlenecks.drive
        room = sum(width[row] for row in group)
        return any(drive[row] >= 0 and room - width[row] + drive[row] >= self.table.layers for row in group)

    def _joined(self, groups: Sequence[Group]) -> list[Group]:
        """Every device that is left joins the group to which it adds most; the fastest choose first."""
        joined = list(groups)
        left = self._left(groups)
        each = max(1, TRIES // max(len(left), 1))
        for row in left:
            open_to = [place for place, group in enumerate(joined) if len(group) != MOST_EXACT]
            # Of too many groups some are tried, fewest devices first: they are the least well shared out.
            open_to.sort(key=lambda place: (len(joined[place]), joined[place]))
            gains = [(self._with(joined[place], row), -place) for place in open_to[:each]]
            gain, place = max(gains, default=(0, 0))
            if gain > 0:
                joined[-place] = tuple(sorted((*joined[-place], row)))
        return joined

    def _with(self, group: Group, row: int) -> int:
        return self.worth.of(tuple(sorted((*group, row)))) - self.worth.of(group)

    def _improved(self, groups: list[Group]) -> list[Group]:
        """Change one or two groups, as long as the worth of all together grows."""
        limit = self.worth.work + WORK
        better = True
        while better:
            better = False
            for old, new in self._changes(groups):
                self.worth.work += 1
                if self.worth.work > limit:
                    return groups
                if self._total(new) <= self._total(old):
                    continue
                kept = [group for group in groups if group not in old]
                changed = [*kept, *(group for group in new if self.worth.of(group))]
                if len(changed) <= MOST_GROUPS:
                    groups, better = changed, True
                    break
        return groups

    def _changes(self, groups: list[Group]) -> Iterator[tuple[list[Group], list[Group]]]:
        """Groups that would go, and those that would come in their place.

        One device moves or leaves, two change places, two groups and some that are left are shared out anew.
        """
        home = {row: group for group in groups for row in group}
        for row in self.rows:
            own = home.get(row, ())
            rest = tuple(other for other in own if other != row)
            if len(own) != 1 and self.worth.of((row,)):
                yield [own], [rest, (row,)]
            for group in groups:
                if group != own and len(group) != MOST_EXACT:
                    yield [own, group], [rest, tuple(sorted((*group, row)))]
            if len(own) > 1:
                yield [own], [rest]
        for row in self.rows:
            for other in self.rows:
                one, two = home.get(row, ()), home.get(other, ())
                if one and one != two and (row < other or not two):
                    first = tuple(sorted({*one, other} - {row}))
                    second = tuple(sorted({*two, row} - {other})) if two else ()
                    yield [one, two], [first, second]
        left = self._left(groups)
        for one, two in combinations([*groups, ()], 2):
            both = {*one, *two}
            if len(both) <= MOST_EXACT:
                yield [one, two], _exact(self.worth, sorted([*both, *left[: MOST_EXACT - len(both)]]))
