"""The buffers of one session in one layer, wherever they lie."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swisd.runtime.pools import Pool

F32 = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class LayerRows:
    """One session in one layer: float32 [1, kv_heads, capacity, head_size]; `length` positions are valid.

    The buffers are its own, or those at `place` of a pool, or the first of `mirrors`: float32 [ROWS,
    kv_heads, capacity, head_size], keys and values, all entries the same memory.
    """

    key: F32
    value: F32
    length: int = 0
    pool: Pool | None = None
    place: int = 0
    mirrors: tuple[F32, F32] | None = None

    @property
    def capacity(self) -> int:
        return int(self.key.shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes reserved, those of mirrors once."""
        return self.key.nbytes + self.value.nbytes

    def move(self, layer: int, key: F32, value: F32, mirrors: tuple[F32, F32] | None = None) -> None:
        """Go on in these buffers, which are those of `layer`; what is valid goes along."""
        # One after the other: each old buffer goes before the next new one takes memory.
        self.mirrors = None
        key[:, :, : self.length] = self.key[:, :, : self.length]
        self.key = key
        value[:, :, : self.length] = self.value[:, :, : self.length]
        self.value = value
        self.mirrors = mirrors
        self.leave(layer)

    def leave(self, layer: int) -> None:
        """Give the memory of a pool back, if they are in one; the buffers must not be used then."""
        if self.pool is not None:
            self.pool.leave(layer, self.place)
            self.pool = None
