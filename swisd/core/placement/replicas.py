"""Several pipelines instead of one, for throughput: disjoint groups of devices, each holding the whole model.

They are chosen where together they give clearly more tokens than the best single pipeline, or at least as
many in less time each.
"""

from collections.abc import Sequence

from swisd.core.placement.bottleneck import Bottlenecks
from swisd.core.placement.exact import MOST_EXACT
from swisd.core.placement.groups import Group, Worth, partition, rate_of, worth_of
from swisd.core.placement.objectives import throughput
from swisd.core.placement.table import Solution, Table

# Predictions and measurements differ by more than this in either direction; where tokens take longer in one
# of the replicas, a gain must be seen.
CLEARLY = 1.03
# A pipeline this many times slower than the fastest is left out: with sessions spread by speed it would get
# one only while the fastest runs as many, and answer no sooner.
TOO_SLOW = 50
MOST_STAGES = 1024  # of all pipelines together: as many as a prediction has figures for
MOST_LARGE = 4  # groups too large for the exact search whose order is improved: 0.1 s each
ROUNDS = 6  # times that estimates are corrected before what was found to be true has to do


def replicate(table: Table, single: Solution) -> tuple[Solution, ...]:
    """The pipelines to run, the fastest first: `single` alone, or several without a device in common."""
    bottlenecks = Bottlenecks(table)
    several = _several(table, bottlenecks)
    if len(several) < 2:
        return (single,)
    one, all_ = rate_of(bottlenecks.of(single)), sum(rate_of(bottlenecks.of(item)) for item in several)
    shorter = max(item.cost_ns for item in several) <= single.cost_ns
    return several if all_ >= CLEARLY * one or (all_ >= one and shorter) else (single,)


def _several(table: Table, bottlenecks: Bottlenecks) -> tuple[Solution, ...]:
    rows = [row for row in bottlenecks.rows if bottlenecks.width[row] > 0 or bottlenecks.drive[row] >= 0]
    worth = Worth(bottlenecks)
    solved: dict[Group, Solution | None] = {}
    groups: list[Group] = []
    # Estimates are never too low. So once all groups of the best partition are priced as they are, no other
    # one is better.
    for _ in range(ROUNDS if len(rows) <= MOST_EXACT else 1):
        groups = partition(worth, rows)
        if all(group in solved for group in groups):
            break
        quick = sum(len(group) > MOST_EXACT for group in groups) > MOST_LARGE
        for group in groups:
            if group not in solved:
                solution = solved[group] = _solve(table, group, quick)
                true = 0 if solution is None else worth_of(bottlenecks.of(solution), len(group))
                worth.correct(group, true)
    found = [solution for group in groups if (solution := solved.get(group)) is not None]
    rates = {solution: rate_of(bottlenecks.of(solution)) for solution in found}
    fastest = max(rates.values(), default=0)
    kept: list[Solution] = []
    stages = 0
    for solution in sorted(found, key=lambda solution: (-rates[solution], solution.key)):
        stages += len(solution.order) + (len(solution.order) > 1)  # a driver of others runs two
        if rates[solution] * TOO_SLOW < fastest or stages > MOST_STAGES:
            break
        kept.append(solution)
    return tuple(kept)


def _solve(table: Table, group: Sequence[int], quick: bool) -> Solution | None:
    """The best pipeline over a group, in the rows of the whole table."""
    found = throughput(table.only(group), quick)
    if found is None:
        return None
    return Solution(found.cost_ns, tuple(group[row] for row in found.order), found.ends)
