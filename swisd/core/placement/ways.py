"""The shortest ways through sets of devices, by what the hops between them take.

They depend on hops alone, and not on layers or memory. A search for a bottleneck asks for the same devices
again and again under other limits, so what was found is kept (`Ways.of`).
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache

from swisd.core.placement.table import BANNED

Hops = tuple[tuple[int, ...], ...]  # ns of a token's hop, by the places of two devices
KEPT = 64


class Ways:
    """Sets of devices are bit masks of their places in the matrix."""

    def __init__(self, hop: Hops) -> None:
        self.hop = hop
        self._paths: dict[tuple[int, int, int], int] = {}

    @staticmethod
    def of(hop: Sequence[Sequence[int]]) -> "Ways":
        """Those of a symmetric matrix, with all that was found out about it before."""
        return _ways(tuple(map(tuple, hop)))

    @cached_property
    def rings(self) -> list[int]:
        """The shortest ring through every set of devices (Held-Karp, each ring from its lowest member)."""
        size, hop = len(self.hop), self.hop
        tails: list[dict[int, int]] = [{} for _ in range(1 << size)]
        rings = [BANNED] * (1 << size)
        for place in range(size):
            tails[1 << place][place] = 0
        for members in range(1, 1 << size):
            first = (members & -members).bit_length() - 1
            ends = tails[members]
            if ends:
                rings[members] = min(BANNED, *(cost + hop[end][first] for end, cost in ends.items()))
            for after in range(first + 1, size):
                if members >> after & 1:
                    continue
                way = hop[after]
                tails[members | 1 << after][after] = min(cost + way[end] for end, cost in ends.items())
        return rings

    def path(self, place: int, left: int, goal: int) -> int:
        """From a device through all of `left` to `goal`."""
        if left == 0:
            return self.hop[place][goal]
        key = (place, left, goal)
        known = self._paths.get(key)
        if known is None:
            hop, known, rest = self.hop[place], 1 << 62, left
            while rest:
                bit = rest & -rest
                rest ^= bit
                after = bit.bit_length() - 1
                way = hop[after] + self.path(after, left ^ bit, goal)
                known = min(known, way)
            self._paths[key] = known
        return known


@lru_cache(KEPT)
def _ways(hop: Hops) -> Ways:
    return Ways(hop)
