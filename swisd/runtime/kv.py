"""The KV caches of a device: keys and values by session and layer, whoever computes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swisd.core.errors import ModelError
from swisd.core.model import Manifest
from swisd.core.types import Units
from swisd.runtime import heap
from swisd.runtime.layer_rows import LayerRows
from swisd.runtime.mirrors import FLOAT_BYTES, fitting, mirrored
from swisd.runtime.pools import Pool

__all__ = ["KvStore", "LayerRows"]

F32 = NDArray[np.float32]
STEP = 256


@dataclass(slots=True)
class _Session:
    layers: dict[int, LayerRows] = field(default_factory=dict)
    bound: dict[Any, tuple[range, Any]] = field(default_factory=dict)


class KvStore:
    """Caches of one model, for as long as the device owns their layers; shards come and go.

    A shard works on the buffers themselves, so one that is loaded over units of another goes on where that
    one was. Capacities double, so a long session copies each position about once; pages that no token has
    reached take no memory. Not thread-safe: only the thread that runs steps touches it.
    """

    def __init__(self, manifest: Manifest, max_tokens: int) -> None:
        """`max_tokens` bounds each session. Raises `ModelError` if the manifest does not say the shapes."""
        try:
            self._heads, self._size = int(manifest.config["kv_heads"]), int(manifest.config["head_size"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"manifest of {manifest.model_id}: the shape of its KV cache is damaged ({error!r})"
            ) from None
        if self._heads < 1 or self._size < 1:
            raise ModelError(f"manifest of {manifest.model_id}: its KV cache has no width")
        self._manifest = manifest
        self._owned: tuple[Units, ...] = ((0, manifest.n_units),)
        self._sessions: dict[str, _Session] = {}
        self._bytes = 0
        self.allow(max_tokens)

    @property
    def max_tokens(self) -> int:
        return self._max_tokens

    @property
    def width(self) -> int:
        """Values of a position in one layer: its key and its value."""
        return 2 * self._heads * self._size

    def allow(self, max_tokens: int) -> None:
        """Change the bound on sessions; longer ones stay until they are dropped, but grow no more."""
        self._max_tokens = min(max_tokens, self._manifest.context)

    def layers(self, units: Units) -> range:
        """The layers among these units. Raises `ModelError` where the model has no such units or no layer."""
        start, end = units
        if not 0 <= start < end <= self._manifest.n_units:
            raise ModelError(
                f"units {start} to {end} do not exist: {self._manifest.model_id} has {self._manifest.n_units}"
            )
        layers = range(max(start, 1), min(end, self._manifest.n_units - 1))  # between embedding and head
        if not layers:
            raise ModelError(f"units {start} to {end} keep no keys and values")
        return layers

    def length(self, session: str, units: Units) -> int:
        """Positions that all layers of these units have."""
        found = self._sessions.get(session)
        if found is None:
            return 0
        return min((rows.length if (rows := found.layers.get(i)) else 0) for i in self.layers(units))

    def reserve(self, session: str, layers: Sequence[int], tokens: int) -> list[LayerRows]:
        """Room for `tokens` positions in these layers, all of one capacity; what is valid stays."""
        found = self._sessions.setdefault(session, _Session())
        here = [rows for i in layers if (rows := found.layers.get(i))]
        capacity = max((rows.capacity for rows in here), default=0)
        again = tokens > capacity > 0 and all(rows.mirrors for rows in here)
        if again and (moved := self.mirror(session, layers, tokens)):
            return moved  # it is likely to go on like that
        capacity = self._capacity(capacity, tokens)
        return [self._grown(found, layer, capacity) for layer in layers]

    def _capacity(self, capacity: int, tokens: int) -> int:
        """The capacity of now, doubled as often as `tokens` need."""
        if tokens <= capacity:
            return capacity
        capacity = max(STEP, capacity)
        while capacity < tokens:
            capacity *= 2
        return min(capacity, max(self._max_tokens, tokens))

    def _grown(self, found: _Session, layer: int, capacity: int) -> LayerRows:
        rows = found.layers.get(layer)
        if rows is not None and rows.capacity == capacity:
            return rows
        shape = (1, self._heads, capacity, self._size)
        key, value = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        if rows is None:
            self._bytes += key.nbytes + value.nbytes
            rows = found.layers[layer] = LayerRows(key, value)
            return rows
        self._move(found, layer, key, value)
        return rows

    def mirror(self, session: str, layers: Sequence[int], tokens: int) -> list[LayerRows] | None:
        """As `reserve`, in memory that one pass over several rows of the session can use (`mirrors`).

        None where this system has none of it; rows are as they were then, or partly in such memory.
        """
        found = self._sessions.setdefault(session, _Session())
        here = [rows for i in layers if (rows := found.layers.get(i))]
        capacity = self._capacity(max((rows.capacity for rows in here), default=0), tokens)
        capacity = fitting(capacity, self._heads * self._size * FLOAT_BYTES)
        for layer in layers:
            rows = found.layers.get(layer)
            if rows is not None and rows.mirrors and rows.capacity == capacity:
                continue
            pair = mirrored(self._heads, capacity, self._size), mirrored(self._heads, capacity, self._size)
            if pair[0] is None or pair[1] is None:
                return None
            if rows is None:
                rows = self._grown(found, layer, capacity)
            self._move(found, layer, pair[0][:1], pair[1][:1], (pair[0], pair[1]))
        return [found.layers[layer] for layer in layers]

    def rows(self, session: str, layer: int) -> LayerRows | None:
        """What is held of a session in a layer."""
        found = self._sessions.get(session)
        return found.layers.get(layer) if found else None

    def in_pool(self, pool: Pool, layer: int) -> Iterator[LayerRows]:
        """What is held of any session in a layer at places of this pool."""
        for found in self._sessions.values():
            rows = found.layers.get(layer)
            if rows is not None and rows.pool is pool:
                yield rows

    def pool(self, sessions: Sequence[str], layers: range, tokens: int) -> Pool:
        """Put sessions side by side, in this order, with room for `tokens` positions each.

        All of them must have rows in all these layers.
        """
        rows = [self._sessions[session].layers[layer] for session in sessions for layer in layers]
        capacity = self._capacity(max(item.capacity for item in rows), tokens)
        pool = Pool(layers, len(sessions), self._heads, capacity, self._size)
        for layer in layers:
            for place, session in enumerate(sessions):
                found = self._sessions[session]
                mine = found.layers[layer]
                self._move(found, layer, pool.key(layer, place), pool.value(layer, place))
                mine.pool, mine.place = pool, place
        return pool

    def _move(
        self, found: _Session, layer: int, key: F32, value: F32, mirrors: tuple[F32, F32] | None = None
    ) -> None:
        # What is bound holds the old buffers: it goes first, or both would be in memory.
        self._unbind(found, layer)
        rows = found.layers[layer]
        self._bytes -= rows.nbytes
        rows.move(layer, key, value, mirrors)
        self._bytes += rows.nbytes

    def read(self, session: str, units: Units, position: int, rows: int) -> F32:
        """A copy: float32 [units, rows, width], the key of a position before its value.

        Embedding and head, which keep nothing, are zeros. Raises `ModelError` if not all rows are here.
        """
        layers = self.layers(units)
        here = self.length(session, units)
        if position < 0 or rows < 1 or position + rows > here:
            raise ModelError(
                f"session {session}: rows {position} to {position + rows} of units {units[0]} to {units[1]} "
                f"are not here, only {here}"
            )
        out = np.zeros((units[1] - units[0], rows, 2, self._heads, self._size), np.float32)
        for layer in layers:
            mine = self._sessions[session].layers[layer]
            for number, buffer in enumerate((mine.key, mine.value)):
                out[layer - units[0], :, number] = buffer[0, :, position : position + rows].swapaxes(0, 1)
        return out.reshape(units[1] - units[0], rows, self.width)

    def write(self, session: str, units: Units, position: int, rows: F32) -> None:
        """Put rows [units, rows, width] at `position`, as `read` gave them; what lies behind is forgotten.

        Raises `ModelError`, and changes nothing, where units are not owned, a gap would be left, or shapes
        do not fit.
        """
        layers = self.layers(units)
        for layer in layers:
            if not any(start <= layer < end for start, end in self._owned):
                raise ModelError(f"unit {layer} is not this device's to keep")
        if rows.dtype != np.float32 or rows.ndim != 3 or rows.shape[::2] != (units[1] - units[0], self.width):
            raise ModelError(
                f"keys and values of units {units[0]} to {units[1]} are float32 "
                f"[{units[1] - units[0]}, rows, {self.width}], not {rows.dtype} {list(rows.shape)}"
            )
        total, here = position + rows.shape[1], self.length(session, units)
        if rows.shape[1] < 1 or not 0 <= position <= here:
            raise ModelError(
                f"session {session}: keys and values come at {position}, but only {here} tokens are here"
            )
        if total > self._max_tokens:
            raise ModelError(
                f"session {session} would have {total} tokens; this device allows {self._max_tokens}"
            )
        parts = rows.reshape(len(rows), -1, 2, self._heads, self._size)
        for layer, mine in zip(layers, self.reserve(session, layers, total), strict=True):
            for number, buffer in enumerate((mine.key, mine.value)):
                buffer[0, :, position:total] = parts[layer - units[0], :, number].swapaxes(0, 1)
            mine.length = total

    def bind(self, session: str, owner: Any, layers: range, bound: Any) -> None:
        """Remember what `owner` made of the buffers of these layers, for as long as they stay the same."""
        self._sessions[session].bound[owner] = layers, bound

    def bound(self, session: str, owner: Any) -> Any:
        """What `owner` bound; None if a buffer was replaced since."""
        found = self._sessions.get(session)
        pair = found.bound.get(owner) if found else None
        return pair[1] if pair else None

    def unbind(self, owner: Any) -> None:
        """Forget what an owner bound: it will run no more."""
        for found in self._sessions.values():
            found.bound.pop(owner, None)
            for rows in found.layers.values():
                if rows.pool is not None:
                    rows.pool.unbind(owner)

    def _unbind(self, found: _Session, layer: int) -> None:
        for owner in [owner for owner, (layers, _) in found.bound.items() if layer in layers]:
            del found.bound[owner]

    def drop(self, session: str) -> None:
        """Forget a session; its memory is returned. Unknown names are ignored."""
        found = self._sessions.pop(session, None)
        if found is not None:
            self._bytes -= sum(rows.nbytes for rows in found.layers.values())
            for layer, rows in found.layers.items():
                rows.leave(layer)
            del found
            heap.give_back()

    def fork(self, source: str, session: str, end: int, *, keep: bool) -> None:
        """Give a session that has no rows the first `end` positions of another one, in all its layers.

        `keep`: as a copy; otherwise the other one is gone, and what lies behind them is forgotten. Raises
        `ModelError`, and changes nothing, where that holds less or this holds anything.
        """
        found = self._sessions.get(source)
        if found is None or not found.layers or session in self._sessions:
            raise ModelError(f"session {session} cannot go on with the rows of {source}")
        least = min(rows.length for rows in found.layers.values())
        if not 1 <= end <= least:
            raise ModelError(f"session {source}: {end} positions are asked for, {least} are here")
        if not keep:
            self._sessions[session] = self._sessions.pop(source)
            for rows in found.layers.values():
                rows.length = end
            return
        layers = sorted(found.layers)
        for layer, mine in zip(layers, self.reserve(session, layers, end), strict=True):
            theirs = found.layers[layer]
            mine.key[:, :, :end] = theirs.key[:, :, :end]
            mine.value[:, :, :end] = theirs.value[:, :, :end]
            mine.length = end

    def keep(self, units: Sequence[Units]) -> None:
        """Own these units from now on, and free the rows of all others."""
        self._owned = tuple(units)
        before = self._bytes
        for session, found in list(self._sessions.items()):
            for layer in list(found.layers):
                if not any(start <= layer < end for start, end in units):
                    self._unbind(found, layer)
                    rows = found.layers.pop(layer)
                    self._bytes -= rows.nbytes
                    rows.leave(layer)
            if not found.layers:
                del self._sessions[session]
        if self._bytes < before:
            heap.give_back()

    def nbytes(self) -> int:
        """Bytes reserved (pages not yet reached are counted too)."""
        return self._bytes
