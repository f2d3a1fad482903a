"""Buffers in which the caches of several sessions lie side by side, so that one pass serves all of them."""

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
FLOAT_BYTES = 4


class Pool:
    """Keys and values of `places` sessions in some layers: float32 [places, heads, capacity, size] each.

    Memory that was never written takes none, and a place that is left gives its pages back.
    """

    def __init__(self, layers: range, places: int, heads: int, capacity: int, size: int) -> None:
        self.layers, self.places, self.capacity = layers, places, capacity
        self.bound: dict[tuple[Any, range, int, int], Any] = {}  # what owners made of layers and places
        self._each = heads * capacity * size * FLOAT_BYTES
        self._maps = {layer: mmap.mmap(-1, 2 * places * self._each) for layer in layers}
        shape = (2, places, heads, capacity, size)
        self._arrays = {layer: np.frombuffer(m, np.float32).reshape(shape) for layer, m in self._maps.items()}

    def key(self, layer: int, first: int, count: int = 1) -> F32:
        """float32 [count, heads, capacity, size], contiguous."""
        return self._arrays[layer][0, first : first + count]

    def value(self, layer: int, first: int, count: int = 1) -> F32:
        """float32 [count, heads, capacity, size], contiguous."""
        return self._arrays[layer][1, first : first + count]

    def unbind(self, owner: Any) -> None:
        """Forget what an owner made of the buffers: it will run no more."""
        for key in [key for key in self.bound if key[0] is owner]:
            del self.bound[key]

    def leave(self, layer: int, place: int) -> None:
        """Give the memory of a place back; its rows are zeros then. Where the system cannot, it stays."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        page = mmap.PAGESIZE
        for half in (0, 1):
            start = (half * self.places + place) * self._each
            first, last = -(-start // page) * page, (start + self._each) // page * page
            if last > first:
                self._maps[layer].madvise(mmap.MADV_DONTNEED, first, last - first)
