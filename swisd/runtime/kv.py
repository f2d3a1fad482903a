"""The KV cache of one session on one shard."""

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
STEP = 256


class SessionCache:
    """Keys and values of one session for the layers of one shard, grown on demand.

    `buffers` holds key and value of each layer in turn, float32 [1, kv_heads, capacity, head_size]; only the
    first `length` positions are valid. The capacity doubles, so a long session copies each position about
    once; pages that no token has reached take no memory.
    """

    def __init__(self, layers: int, kv_heads: int, head_size: int, limit: int) -> None:
        self.length = 0
        self.capacity = 0
        self.limit = limit
        self._layers, self._kv_heads, self._head_size = layers, kv_heads, head_size
        self.buffers: list[F32] = []

    def reserve(self, tokens: int) -> bool:
        """Make room for `tokens` positions; True if the buffers are new ones."""
        if tokens <= self.capacity:
            return False
        capacity = max(STEP, self.capacity)
        while capacity < tokens:
            capacity *= 2
        self.capacity = min(capacity, max(self.limit, tokens))
        shape = (1, self._kv_heads, self.capacity, self._head_size)
        old, self.buffers = self.buffers, []
        for number in range(2 * self._layers):
            fresh = np.zeros(shape, np.float32)
            if self.length:
                fresh[:, :, : self.length] = old[number][:, :, : self.length]
                old[number] = fresh[:, :, :0]  # lets go of the old buffer at once
            self.buffers.append(fresh)
        return True

    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers)
