"""A shard: contiguous units of a model as one ONNX Runtime session, with the KV caches of its sessions."""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from swisd.core.errors import ModelError
from swisd.core.model import Manifest
from swisd.runtime.graph import compose
from swisd.runtime.kv import SessionCache
from swisd.runtime.rope import RopeTables

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Slot:
    """Rows of one session in a step.

    `position` is the absolute position of the first row. It must be at most the session's KV length; less
    truncates the cache there and rewrites, so a repeated step gives the same answer. `logits` says how many
    trailing rows are wanted past the last layer: 1 for generation, `rows` for evaluation, 0 for a chunk of a
    prompt that is not its last.
    """

    session: str
    position: int
    rows: int
    logits: int


class Shard:
    """Units `[start, end)` loaded. Not thread-safe: one step at a time.

    Passes of two and more rows give the same bits however the rows are divided; one-row passes give the
    same bits as each other, and differ from the former at about 1e-3 (other kernels of ONNX Runtime).
    """

    def __init__(self, manifest: Manifest, start: int, end: int, blobs: Path, threads: int, max_tokens: int):
        self.manifest, self.start, self.end = manifest, start, end
        self.max_tokens = min(max_tokens, manifest.context)
        self.units = range(start, end)
        self.layers = [i for i in self.units if manifest.units[i].kind == "layer"]
        self.has_head = end == manifest.n_units
        self._session = _open_session(manifest, start, end, blobs, threads)
        self._ropes = RopeTables(manifest, blobs) if self.layers else None
        self._caches: dict[str, _Cached] = {}
        self._entry = "ids" if start == 0 else f"h{start}"
        self._entry_type = np.dtype(np.int64 if start == 0 else np.float32)
        self._exit = "logits" if self.has_head else f"h{end}"
        self._width = manifest.vocab if self.has_head else manifest.hidden
        _give_back_memory()

    @classmethod
    def load(
        cls, manifest: Manifest, start: int, end: int, blobs: Path, *, threads: int, max_tokens: int
    ) -> "Shard":
        """Load from directory `blobs` (files named by sha256). `max_tokens` limits each session's context.

        Raises `ModelError` if a blob is missing or the graph cannot be loaded.
        """
        return cls(manifest, start, end, blobs, threads, max_tokens)

    def run(self, slots: Sequence[Slot], x: Array) -> Array:
        """One step.

        `x` is int64 [rows] (start 0) or float32 [rows, hidden], rows being the sum over slots; a shard that
        is only the head takes exactly the wanted rows. Returns float32 [rows, hidden]; [wanted, hidden] if
        the head comes next; or logits [wanted, vocab]. Raises `ModelError` if shapes or positions do not fit.
        """
        x = self._checked(slots, x)
        if self._session is None:
            raise ModelError("this shard is closed")
        if not self.layers:
            return self._run_flat(slots, x)
        outputs = []
        at = 0
        for slot in slots:
            outputs.append(self._run_slot(slot, x[at : at + slot.rows]))
            at += slot.rows
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def drop(self, session: str) -> None:
        """Forget a session; its memory is returned. Unknown names are ignored."""
        if self._caches.pop(session, None) is not None:
            _give_back_memory()

    def kv_bytes(self) -> int:
        """Bytes reserved for KV caches (pages not yet reached are counted too)."""
        return sum(cached.kv.nbytes() for cached in self._caches.values())

    def close(self) -> None:
        """Release everything; the shard cannot run afterwards."""
        self._caches.clear()
        self._session = None
        _give_back_memory()

    def _checked(self, slots: Sequence[Slot], x: Array) -> Array:
        only_head = not self.layers and self.has_head
        want = sum(slot.logits if only_head else slot.rows for slot in slots)
        shape: tuple[int, ...] = (want,) if self.start == 0 else (want, self.manifest.hidden)
        if x.dtype != self._entry_type or x.shape != shape:
            raise ModelError(
                f"units {self.start} to {self.end} take {self._entry_type} {shape}, not {x.dtype} {x.shape}"
            )
        if not slots or len({slot.session for slot in slots}) != len(slots):
            raise ModelError("a step needs one or more slots, each of another session")
        for slot in slots:
            if slot.rows < 1 or slot.position < 0 or not 0 <= slot.logits <= slot.rows:
                raise ModelError(f"a slot of {slot.rows} rows at {slot.position} with {slot.logits} logits")
            if slot.position + slot.rows > self.max_tokens:
                raise ModelError(
                    f"session {slot.session} would have {slot.position + slot.rows} tokens; "
                    f"this device allows {self.max_tokens}"
                )
            if self.layers:
                cached = self._caches.get(slot.session)
                length = cached.kv.length if cached else 0
                if slot.position > length:
                    raise ModelError(
                        f"session {slot.session}: a step at {slot.position}, but only {length} tokens are here"
                    )
        if self.start == 0 and x.size and not 0 <= int(x.min()) <= int(x.max()) < self.manifest.vocab:
            raise ModelError(f"token ids outside 0 to {self.manifest.vocab - 1}")
        return x

    def _run_flat(self, slots: Sequence[Slot], x: Array) -> Array:
        """Embedding alone or head alone: no sessions, all rows at once."""
        if len(x) == 0:
            return np.empty((0, self._width), np.float32)
        feeds: dict[str, Array] = {self._entry: np.ascontiguousarray(x)}
        if self.has_head:
            feeds["rows"] = np.arange(len(x), dtype=np.int64)
        result: Array = self._session.run([self._exit], feeds)[0]
        return result

    def _run_slot(self, slot: Slot, x: Array) -> Array:
        cached = self._caches.get(slot.session)
        if cached is None:
            config = self.manifest.config
            kv = SessionCache(len(self.layers), config["kv_heads"], config["head_size"], self.max_tokens)
            cached = self._caches[slot.session] = _Cached(kv)
        total = slot.position + slot.rows
        if cached.kv.reserve(total):
            cached.one_row = None
        wanted = slot.logits if self.has_head else slot.rows
        if slot.rows == 1 and wanted == 1:
            if cached.one_row is None:
                cached.one_row = _Binding(self, cached.kv, 1, 1)
            binding = cached.one_row
        else:
            binding = _Binding(self, cached.kv, slot.rows, wanted)
        result = binding.run(x, slot.position)
        cached.kv.length = total
        if self.end == self.manifest.n_units - 1:
            result = result[slot.rows - slot.logits :]
        return result


@dataclass(slots=True)
class _Cached:
    kv: SessionCache
    one_row: "_Binding | None" = None


class _Binding:
    """Buffers bound to a session's inputs and outputs for passes of one shape.

    The one-row binding is kept, so that a decode step allocates nothing but the array it returns. ONNX
    Runtime reads and writes the numpy memory directly; keys and values are input and output at once.
    """

    def __init__(self, shard: Shard, kv: SessionCache, rows: int, wanted: int) -> None:
        self._session = shard._session
        self._rows, self._wanted, self._has_head = rows, wanted, shard.has_head
        shape = (rows,) if shard.start == 0 else (rows, shard.manifest.hidden)
        self.x = np.empty(shape, shard._entry_type)
        self.seqlens = np.zeros(1, np.int32)
        self.total = np.zeros((), np.int32)
        # A graph that ends in the head computes at least one row of logits (zero-row products are untested
        # ground in some kernels); it is thrown away.
        self.out = np.empty((max(wanted, 1) if shard.has_head else rows, shard._width), np.float32)
        self._binding = self._session.io_binding()
        self._keep: list[Any] = []
        self._bind_in(shard._entry, self.x)
        self._bind_in("steps", np.array([1, rows, -1], np.int64))
        self._bind_in("seqlens_k", self.seqlens)
        self._bind_in("total_sequence_length", self.total)
        if shard.has_head:
            self._bind_in("rows", np.arange(rows - len(self.out), rows, dtype=np.int64))
        assert shard._ropes is not None
        for number, table in enumerate(shard._ropes.upto(kv.capacity)):
            self._bind_in(f"{'sin' if number % 2 else 'cos'}{number // 2}", table)
        for number, buffer in enumerate(kv.buffers):
            name = f"{'v' if number % 2 else 'k'}{shard.layers[number // 2]}"
            self._bind_out(f"{name}_out", self._bind_in(name, buffer))
        self._bind_out(shard._exit, ort.OrtValue.ortvalue_from_numpy(self.out))

    def _bind_in(self, name: str, array: Array) -> Any:
        value = ort.OrtValue.ortvalue_from_numpy(array)
        self._binding.bind_ortvalue_input(name, value)
        self._keep.append((array, value))
        return value

    def _bind_out(self, name: str, value: Any) -> None:
        self._binding.bind_ortvalue_output(name, value)
        self._keep.append(value)

    def run(self, x: Array, position: int) -> Array:
        self.x[...] = x
        self.seqlens[0] = position + self._rows - 1
        self.total[...] = position + self._rows
        self._session.run_with_iobinding(self._binding)
        return self.out[: self._wanted].copy() if self._has_head else self.out.copy()


def _open_session(manifest: Manifest, start: int, end: int, blobs: Path, threads: int) -> Any:
    for index in [manifest.graph, *manifest.blob_indices(start, end)]:
        blob = manifest.blobs[index]
        path = blobs / blob.sha256
        if not path.is_file() or path.stat().st_size != blob.size:
            raise ModelError(f"{manifest.model_id}: blob {blob.sha256[:12]} is not here or not whole")
    graph = (blobs / manifest.blobs[manifest.graph].sha256).read_bytes()
    model = compose(manifest, start, end, graph)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The fragments are already in their final form. Optimisers would fuse across units, and then a cut
    # would change the bits.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(blobs))
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - the bindings raise a dozen classes without a common base
        reason = str(error).splitlines()[0][:300]
        raise ModelError(
            f"ONNX Runtime cannot load units {start} to {end} of {manifest.model_id}: {reason}"
        ) from None


def _give_back_memory() -> None:
    """Return freed heap pages to the system: resident memory is a promise."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library (Android, musl) has no such call
