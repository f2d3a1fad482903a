"""What "best" means: each objective as a search for the least latency under limits.

`latency` has no limits. `throughput` minimises the bottleneck: how long the busiest device (its stages of
one token together) or the busiest link (bytes over bandwidth; round trips do not keep it busy) is occupied
by one token. Sending overlaps with computing, so with many steps in flight a token leaves the pipeline every
bottleneck. `spread` uses as many devices as can hold a layer and minimises the largest time a device spends
on its layers beyond its first one, which shares them out in proportion to speed as far as memory allows.
A bottleneck is found by bisection over its possible values; ties go to the lower latency.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from swisd.core.costmodel import DEFAULT_LINK
from swisd.core.placement.exact import MOST_EXACT, search_exact, tractable
from swisd.core.placement.large import search_large
from swisd.core.placement.table import BANNED, Limits, Solution, Table, nanoseconds
from swisd.core.types import Objective


def solve(table: Table, objective: Objective) -> Solution | None:
    """The best plan for an objective: the optimum for up to `MOST_EXACT` devices, a good one for more."""
    if objective == "throughput":
        return _throughput(table)
    if objective == "spread":
        return _spread(table)
    return _search(table, table.free())


def feasible(table: Table) -> bool:
    """Whether any plan fits the memory.

    Exact for up to `MOST_EXACT` devices and for layers of one size.
    """
    limits = table.free()
    drives = [table.driver_reach(row, limits) for row in range(len(table))]
    if not table.uniform:
        return _search(table, limits, quick=True) is not None
    widths = [table.narrowest(row, limits) for row in range(len(table))]
    room = sum(widths)
    return any(
        own >= 0 and room - width + own >= table.layers for own, width in zip(drives, widths, strict=True)
    )


def _few(table: Table) -> bool:
    return len(table) <= MOST_EXACT and tractable(table)


def _search(table: Table, limits: Limits, quick: bool = False) -> Solution | None:
    if _few(table):
        return search_exact(table, list(range(len(table))), limits)
    return search_large(table, limits, quick)


def _least(table: Table, thresholds: Sequence[int], limits: Callable[[int], Limits]) -> Solution | None:
    """The plan of least latency under the smallest threshold that has one, found by bisection."""
    low, high = 0, len(thresholds)
    best: Solution | None = None
    while low < high:
        middle = (low + high) // 2
        found = _search(table, limits(thresholds[middle]), quick=True)
        if found is None:
            low = middle + 1
        else:
            best, high = found, middle
    if best is None or _few(table):
        return best
    return _search(table, limits(thresholds[high]))


def _layers_within(budget: int, layer: int, table: Table) -> int:
    """Layers that fit a budget of nanoseconds; -1 where not even none do."""
    if budget < 0:
        return -1
    return min(budget // layer, table.layers) if layer else table.layers


def _throughput(table: Table) -> Solution | None:
    rows = range(len(table))
    free = table.free()
    alone = [table.alone(row, free) for row in rows]
    fixed = [*((table.run[row], row) for row in rows), *((table.driving(row), row) for row in rows)]
    busy = {cost + count * table.layer[row] for cost, row in fixed for count in range(table.layers + 1)}
    known = {link for peers in table.links.peers.values() for link in peers.values()} | {DEFAULT_LINK}
    transfers = {nanoseconds(link.transfer_ms(table.size)) for link in known}

    def limits(bottleneck: int) -> Limits:
        within = [_layers_within(bottleneck - table.run[row], table.layer[row], table) for row in rows]
        driving = [_layers_within(bottleneck - table.driving(row), table.layer[row], table) for row in rows]
        return replace(
            free,
            worker_most=tuple(max(count, 0) for count in within),
            driver_most=tuple(driving),
            alone=tuple(cost <= bottleneck for cost in alone),
            transfer_ns=bottleneck,
        )

    values = {value for value in busy | transfers | set(alone) if value < BANNED}
    return _least(table, sorted(values), limits)


def _spread(table: Table) -> Solution | None:
    rows = range(len(table))
    free = table.free()
    thresholds = {count * table.layer[row] for row in rows for count in range(table.layers + 1)}
    workers = sum(table.widest(row, free) > 0 for row in rows)
    for count in range(min(workers, len(table) - 1, table.layers), -1, -1):
        every = replace(free, fewest=count, most=count)
        if _search(table, every, quick=True) is None:
            continue

        def limits(longest: int, every: Limits = every) -> Limits:
            most = [_layers_within(longest, table.layer[row], table) for row in rows]
            return replace(every, worker_most=tuple(max(1, n) for n in most), driver_most=tuple(most))

        return _least(table, sorted(thresholds), limits)
    return None
