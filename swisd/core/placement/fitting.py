"""Whether some devices have room for the last layers, where layers differ in size.

Memory then depends on the order of the devices, as each holds a run of neighbours. For a set of devices all
that matters is the first layer from which they can hold the rest, in their best order: one fewer to hold is
never worse, so this is found for all sets by dynamic programming, from the last layer backwards.
"""

from collections.abc import Sequence

from swisd.core.placement.table import Limits, Table


def starts(table: Table, rows: Sequence[int], limits: Limits) -> list[int]:
    """By every set of `rows`, as a bit mask of their places: the first layer from which they hold the rest.

    Layers count from 0; a set that cannot hold even the last one has the number of layers. Hops do not
    matter here, and a device may be left without a layer. Time grows with `2 ** len(rows)`.
    """
    begins = [table.begins(row, limits.worker_most[row]) for row in rows]
    found = [table.layers]
    for places in range(1, 1 << len(rows)):
        first, rest = table.layers, places
        while rest:
            bit = rest & -rest
            rest ^= bit
            begin = begins[bit.bit_length() - 1][found[places ^ bit]]
            first = min(first, begin)
        found.append(first)
    return found


def fits(table: Table, rows: Sequence[int], limits: Limits, first: Sequence[int]) -> bool:
    """Whether memory and `limits` allow any plan over some of these rows; `first` are their `starts`.

    Exact where no hop is forbidden and no number of workers wanted; never False where there is a plan.
    """
    if table.best_alone(limits, rows) is not None:
        return True
    everyone = len(first) - 1
    drives = (table.driver_reach(row, limits) for row in rows)
    return any(own >= 0 and first[everyone ^ 1 << place] <= own for place, own in enumerate(drives))
