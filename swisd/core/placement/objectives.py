"""What "best" means: each objective as a search for the least latency under limits.

`latency` has no limits. `throughput` minimises the bottleneck of one pipeline (see `bottleneck`; for several
pipelines see `replicas`). `spread` uses as many devices as can hold a layer and minimises the largest time a
device spends on its layers beyond its first one, which shares them out in proportion to speed as far as
memory allows. A bottleneck is found by bisection over its possible values; ties go to the lower latency.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from swisd.core.placement.bottleneck import Bottlenecks
from swisd.core.placement.exact import MOST_EXACT, search_exact, tractable
from swisd.core.placement.fitting import fits, starts
from swisd.core.placement.large import search_large
from swisd.core.placement.table import Limits, Solution, Table
from swisd.core.types import Objective


def solve(table: Table, objective: Objective) -> Solution | None:
    """The best plan for an objective: the optimum for up to `MOST_EXACT` devices, a good one for more."""
    if objective == "throughput":
        return throughput(table)
    if objective == "spread":
        return _spread(table)
    return _search(table, table.free())


def feasible(table: Table) -> bool:
    """Whether any plan fits the memory.

    Exact for up to `MOST_EXACT` devices and for layers of one size.
    """
    limits = table.free()
    if not table.uniform:
        return _fits(table, limits) if _few(table) else search_large(table, limits, quick=True) is not None
    drives = [table.driver_reach(row, limits) for row in range(len(table))]
    widths = [table.narrowest(row, limits) for row in range(len(table))]
    room = sum(widths)
    return any(
        own >= 0 and room - width + own >= table.layers for own, width in zip(drives, widths, strict=True)
    )


def _fits(table: Table, limits: Limits) -> bool:
    rows = range(len(table))
    return fits(table, rows, limits, starts(table, rows, limits))


def _few(table: Table) -> bool:
    return len(table) <= MOST_EXACT and tractable(table)


def _search(table: Table, limits: Limits, quick: bool = False) -> Solution | None:
    if _few(table):
        # Whether there is a plan, and which, are often asked one after the other.
        key = tuple(table.ids), limits
        if key not in table.solved:
            table.solved[key] = search_exact(table, list(range(len(table))), limits)
        return table.solved[key]
    return search_large(table, limits, quick)


def _least(
    table: Table,
    thresholds: Sequence[int],
    limits: Callable[[int], Limits],
    low: int = 0,
    quick: bool = False,
) -> Solution | None:
    """The plan of least latency under the smallest threshold that has one, found by bisection.

    None of the thresholds before `low` has one. With `quick`, of many devices any plan under the threshold.
    """
    few = _few(table)
    if few and not table.uniform:
        # Whether memory allows a plan is found sooner than the plan, and mostly decides.
        low = _smallest(low, len(thresholds), lambda place: _fits(table, limits(thresholds[place])))
    best: dict[int, Solution | None] = {}

    def holds(place: int) -> bool:
        best[place] = _search(table, limits(thresholds[place]), quick=True)
        return best[place] is not None

    place = _smallest(low, len(thresholds), holds)
    if place == len(thresholds) or quick or few:
        return best.get(place)
    return _search(table, limits(thresholds[place]))


def _smallest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest place from `low` on that holds, as all behind it do; `high` where none does.

    A lower bound is the answer more often than not, so bisection draws away from it slowly.
    """
    step = 1 if low else high
    while low < high:
        middle = min(low + step - 1, (low + high) // 2)
        step *= 4
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high


def throughput(table: Table, quick: bool = False) -> Solution | None:
    """The pipeline with the smallest bottleneck, and of those with the least latency.

    `quick`: of more than `MOST_EXACT` devices, the first one found that has it.
    """
    bottlenecks = Bottlenecks(table)
    low = bottlenecks.least(bottlenecks.rows)
    return _least(table, bottlenecks.values, bottlenecks.limits, low, quick)


def _spread(table: Table) -> Solution | None:
    rows = range(len(table))
    free = table.free()
    thresholds = sorted({count * table.layer[row] for row in rows for count in range(table.layers + 1)})

    def holds(longest: int) -> bool:
        """Whether all devices together have time for all layers; a lower bound, as memory is left out."""
        return sum(max(1, table.within(longest, row)) for row in rows) >= table.layers

    low = bisect_left(thresholds, True, key=holds)
    workers = sum(table.widest(row, free) > 0 for row in rows)
    for count in range(min(workers, len(table) - 1, table.layers), -1, -1):
        every = replace(free, fewest=count, most=count)

        def limits(longest: int, every: Limits = every) -> Limits:
            most = [table.within(longest, row) for row in rows]
            return replace(every, worker_most=tuple(max(1, n) for n in most), driver_most=tuple(most))

        # Not without a limit first: most plans would do then, and to find the cheapest of them takes longest.
        if (found := _least(table, thresholds, limits, low)) is not None:
            return found
    return None
