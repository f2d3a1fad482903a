"""What devices have room for, and what computing costs them, against every order and every cut."""

from collections.abc import Iterator
from itertools import combinations, pairwise, permutations

from builders import MIB, MODEL, a_device, a_manifest, a_profile
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.costmodel import Links
from swisd.core.placement.filling import Filling
from swisd.core.placement.fitting import fits, starts
from swisd.core.placement.table import BANNED, Limits, Table

MS = st.integers(1, 8)
SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, Limits]:
    """Up to four devices and seven layers, with limits on how many layers each may have."""
    sizes = draw(st.lists(st.sampled_from([5, 8, 13]), min_size=1, max_size=7))
    manifest = a_manifest([size * MIB for size in sizes])
    devices = [
        a_device(
            f"{number:016x}",
            draw(st.sampled_from([4, 9, 14, 27, 40])),
            profile=a_profile(draw(MS), head_ms=draw(MS), run_ms=draw(MS)),
        )
        for number in range(draw(st.integers(1, 4)))
    ]
    table = Table(manifest, MODEL, devices, Links(devices, devices[0].device), 256)
    free = table.free()
    most = tuple(draw(st.integers(0, table.layers)) for _ in devices)
    return table, draw(st.sampled_from([free, Limits(most, free.driver_most, free.alone)]))


def cuts(table: Table, limits: Limits, order: tuple[int, ...], start: int) -> Iterator[tuple[int, ...]]:
    """Every way in which these rows, in this order, hold the layers from `start` on, one each at least."""
    for inner in combinations(range(start + 1, table.layers), len(order) - 1):
        bounds = (start, *inner, table.layers)
        pairs = list(pairwise(bounds))
        if all(
            table.before[end] - table.before[begin] <= table.memory[row]
            and 0 < end - begin <= limits.worker_most[row]
            for row, (begin, end) in zip(order, pairs, strict=True)
        ):
            yield tuple(end - begin for begin, end in pairs)


def in_set(places: int) -> tuple[int, ...]:
    return tuple(row for row in range(places.bit_length()) if places >> row & 1)


@SETTINGS
@given(tables())
def test_the_first_layer_from_which_a_set_holds_the_rest_is_that_of_its_best_order(drawn):
    table, limits = drawn
    rows = range(len(table))

    def held(places: int, start: int) -> bool:
        some = (part for count in range(1, len(rows) + 1) for part in permutations(in_set(places), count))
        return start == table.layers or any(next(cuts(table, limits, order, start), None) for order in some)

    for places, first in enumerate(starts(table, rows, limits)):
        assert [held(places, start) for start in range(table.layers + 1)] == [
            start >= first for start in range(table.layers + 1)
        ]


@SETTINGS
@given(tables())
def test_what_the_rest_costs_is_the_cheapest_of_all_orders_and_cuts(drawn):
    table, limits = drawn
    rows = range(len(table))
    filling = Filling(table, rows, limits, starts(table, rows, limits))

    def cost(order: tuple[int, ...], counts: tuple[int, ...]) -> int:
        return sum(table.run[row] + n * table.layer[row] for row, n in zip(order, counts, strict=True))

    for places in range(1, 1 << len(rows)):
        for start in range(table.layers):
            costs = [
                cost(order, counts)
                for order in permutations(in_set(places))
                for counts in cuts(table, limits, order, start)
            ]
            assert filling.rest(places, start) == min(costs, default=BANNED)
            assert filling.least(places, table.layers - start) <= filling.rest(places, start)


def test_one_device_that_holds_everything_is_room_enough():
    device = a_device("0" * 16, 120, profile=a_profile(2.0, head_ms=3.0))
    table = Table(a_manifest([8 * MIB, 13 * MIB]), MODEL, [device], Links([device], device.device), 256)
    free = table.free()
    assert fits(table, [0], free, starts(table, [0], free))
    nobody = Limits(free.worker_most, (-1,), (False,))
    assert not fits(table, [0], nobody, starts(table, [0], nobody))
