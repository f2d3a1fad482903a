"""Shortest ways through sets of devices, against all orders."""

from itertools import pairwise, permutations
from random import Random

import pytest

from swisd.core.placement.table import BANNED
from swisd.core.placement.ways import Ways


def a_matrix(size: int, seed: int, *, banned: int = 0) -> list[list[int]]:
    random = Random(seed)
    hop = [[0] * size for _ in range(size)]
    for one in range(size):
        for other in range(one):
            hop[one][other] = hop[other][one] = random.randrange(1, 100)
    for _ in range(banned):
        one, other = random.sample(range(size), 2)
        hop[one][other] = hop[other][one] = BANNED
    return hop


def length(hop: list[list[int]], way: tuple[int, ...]) -> int:
    return sum(hop[one][other] for one, other in pairwise(way))


def places(members: int) -> list[int]:
    return [place for place in range(members.bit_length()) if members >> place & 1]


@pytest.mark.parametrize("banned", [0, 3])
@pytest.mark.parametrize("seed", range(4))
def test_rings_and_paths_are_the_shortest(seed: int, banned: int) -> None:
    hop = a_matrix(5, seed, banned=banned)
    ways = Ways.of(hop)
    for members in range(1, 1 << 5):
        first, *others = places(members)
        rings = (length(hop, (first, *order, first)) for order in permutations(others))
        assert ways.rings[members] == min(BANNED, *rings) if others else ways.rings[members] == 0
        for place in range(5):
            if not members >> place & 1:
                found = (length(hop, (place, *order, 0)) for order in permutations(places(members)))
                assert ways.path(place, members, 0) == min(found)


def test_what_was_found_out_about_a_matrix_is_kept() -> None:
    hop = a_matrix(4, 1)
    assert Ways.of(hop) is Ways.of([row[:] for row in hop])
    assert Ways.of(hop) is not Ways.of(a_matrix(4, 2))
