"""Numpy buffers bound to the inputs and outputs of a shard's ONNX Runtime session."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from swisd.runtime.slots import Array

if TYPE_CHECKING:
    from swisd.runtime.shard import Shard

ANSWER_ROWS = 16


class Answers:
    """Memory that passes of a shard answer in: one runs at a time, and its answer is copied."""

    def __init__(self, width: int) -> None:
        self._rows = np.empty((0, width), np.float32)

    def rows(self, count: int) -> Array:
        """float32 [count, width]; that of long passes is not kept."""
        if count > ANSWER_ROWS:
            return np.empty((count, self._rows.shape[1]), np.float32)
        if count > len(self._rows):
            self._rows = np.empty((count, self._rows.shape[1]), np.float32)
        return self._rows[:count]


class Binding:
    """For passes of one shape over the same caches: `rows` of one session, or one of each of several, or one
    of each of several mirrors of one session.

    Whoever owns the caches keeps it until a buffer is replaced, so a decode step allocates nothing but the
    array it returns. ONNX Runtime reads and writes the numpy memory directly; keys and values are input and
    output at once.
    """

    def __init__(self, shard: "Shard", caches: Sequence[tuple[Array, Array]], rows: int) -> None:
        """`caches`: key and value of each layer, float32 [sessions, kv heads, capacity, head size]."""
        self._session = shard.session
        self.capacity, sessions = caches[0][0].shape[2], len(caches[0][0])
        self.rows, self._has_head = rows, shard.has_head
        self._exit, self._answers = shard.exit, shard.answers
        self.x = np.empty((sessions * rows, *shard.entry_shape), shard.entry_type)
        self.seqlens = np.zeros(sessions, np.int32)
        self.total = np.zeros((), np.int32)
        self.out: Array = np.empty((0, shard.width), np.float32)
        self._taken: list[int] = []
        self._binding = self._session.io_binding()
        self._keep: dict[str, Any] = {}
        self._bind_in(shard.entry, self.x)
        self._bind_in("steps", np.array([sessions, rows, -1], np.int64))
        self._bind_in("seqlens_k", self.seqlens)
        self._bind_in("total_sequence_length", self.total)
        for name, table in shard.rope_tables(self.capacity):
            self._bind_in(name, table)
        for unit, (key, value) in zip(shard.layers, caches, strict=True):
            self._bind_out(f"k{unit}_out", self._bind_in(f"k{unit}", key))
            self._bind_out(f"v{unit}_out", self._bind_in(f"v{unit}", value))

    def _bind_in(self, name: str, array: Array) -> Any:
        value = ort.OrtValue.ortvalue_from_numpy(array)
        self._binding.bind_ortvalue_input(name, value)
        self._keep[name] = array, value
        return value

    def _bind_out(self, name: str, value: Any) -> None:
        self._binding.bind_ortvalue_output(name, value)
        self._keep[name] = value

    def _bind_exit(self, taken: list[int]) -> None:
        """The head answers the rows `taken`; hidden states go on with all rows."""
        count = len(taken) if self._has_head else len(self.x)
        if count != len(self.out):
            self.out = self._answers.rows(count)
            self._bind_out(self._exit, ort.OrtValue.ortvalue_from_numpy(self.out))
        if self._has_head and taken != self._taken:
            self._taken = taken
            self._bind_in("rows", np.array(taken, np.int64))

    def run(self, x: Array, positions: Sequence[int], wanted: Sequence[int]) -> Array:
        """One pass. `positions`: of each session's first row; returns the `wanted` rows, by number."""
        out = self.compute(x, positions, wanted)
        if self._has_head or len(wanted) == len(out):
            return out.copy()
        return out[list(wanted)]

    def compute(self, x: Array, positions: Sequence[int], wanted: Sequence[int]) -> Array:
        """As `run`, but what it returns lies where the next pass writes; all rows, if they are hidden."""
        # A graph that ends in the head computes at least one row of logits, to be thrown away if none is
        # wanted: products of no rows are untested ground in some kernels.
        self._bind_exit(list(wanted) or [len(self.x) - 1])
        self.x[...] = x
        last = [position + self.rows - 1 for position in positions]
        self.seqlens[:] = last
        self.total[...] = max(last) + 1
        self._session.run_with_iobinding(self._binding)
        return self.out[: len(wanted)] if self._has_head else self.out
