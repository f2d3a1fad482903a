"""Memory of a swarm and of what is left of it: which losses it can bear, and offers that make roles vary."""

from collections.abc import Collection, Mapping

from swisd.chaos.cast import Part
from swisd.core.costmodel import unit_bytes
from swisd.core.model import Manifest

MIB = 1 << 20
LEAST_CONTEXT = 512  # below the setting `min_context` no plan shrinks


class Room:
    """What these devices can bear, by what they offer. A plan may need a little more than this says."""

    def __init__(self, parts: Mapping[str, Part], manifest: Manifest, context: int) -> None:
        self._offers = {name: part.memory_bytes for name, part in parts.items()}
        self._layers = manifest.n_layers
        self._ends = ends_bytes(manifest, context)
        numbers = range(1, manifest.n_units - 1)
        self._layer = max(unit_bytes(manifest, number, number + 1, context) for number in numbers)

    def without(self, victims: Collection[str]) -> bool:
        """Whether the other devices can hold the model."""
        left = sorted(offer for name, offer in self._offers.items() if name not in victims)
        if not left or left[-1] < self._ends:
            return False
        rooms = [*left[:-1], left[-1] - self._ends]
        return sum(room // self._layer for room in rooms) >= self._layers


def ends_bytes(manifest: Manifest, context: int) -> int:
    """What the driver needs beside its layers: embedding and head."""
    last = manifest.n_units - 1
    return unit_bytes(manifest, 0, 1, context) + unit_bytes(manifest, last, last + 1, context)


def varied_offers(memory: int, count: int, manifest: Manifest) -> list[int]:
    """Offers in bytes, `count` times `memory` in all, with which leading and driving often part and meet.

    Every second device has no room for embedding and head, so it leads but never drives.
    """
    few = count // 2
    small = min(memory, ends_bytes(manifest, LEAST_CONTEXT) - MIB)
    large = (memory * count - small * few) // (count - few)
    return [large if number % 2 == 0 else small for number in range(count)]
