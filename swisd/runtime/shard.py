"""A shard: contiguous units of a model as one ONNX Runtime session, over the KV caches of the device."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from swisd.core.errors import ModelError
from swisd.core.model import Manifest
from swisd.runtime import heap
from swisd.runtime.graph import compose
from swisd.runtime.kv import KvStore, LayerRows
from swisd.runtime.rope import RopeTables
from swisd.runtime.slots import Rows, Slot, check_step

__all__ = ["Shard", "Slot"]

Array = NDArray[Any]
# Long inputs run in passes of at most so many rows, and so few that the attention scores
# (heads x rows x capacity floats) stay small. Passes of two and more rows have the same bits.
PASS_ROWS = 128
SCORE_BYTES = 16 << 20


class Shard:
    """Units `[start, end)` loaded. Not thread-safe: one step at a time. Keys and values live in `store`.

    Passes of two and more rows give the same bits however the rows are divided; one-row passes give the
    same bits as each other, and differ from the former at about 1e-3 (other kernels of ONNX Runtime).
    """

    def __init__(
        self, manifest: Manifest, start: int, end: int, blobs: Path, *, threads: int, store: KvStore
    ) -> None:
        if not 0 <= start < end <= manifest.n_units:
            raise ModelError(
                f"units {start} to {end} do not exist: {manifest.model_id} has {manifest.n_units}"
            )
        self.manifest, self.start, self.end = manifest, start, end
        self.units = (start, end)
        # The first unit is the embedding, the last one the head, all others are layers.
        self.layers = range(max(start, 1), min(end, manifest.n_units - 1))
        self.store = store
        self._owner = object()  # of what is bound in the store; not the shard, or each would hold the other
        self.has_head = end == manifest.n_units
        self._session = _open_session(manifest, start, end, blobs, threads)
        self._ropes = RopeTables(manifest, blobs) if self.layers else None
        self._entry = "ids" if start == 0 else f"h{start}"
        self._entry_type = np.dtype(np.int64 if start == 0 else np.float32)
        self._exit = "logits" if self.has_head else f"h{end}"
        self._width = manifest.vocab if self.has_head else manifest.hidden
        heap.give_back()

    @classmethod
    def load(
        cls, manifest: Manifest, start: int, end: int, blobs: Path, *, threads: int, store: KvStore
    ) -> "Shard":
        """Load from directory `blobs` (files named by sha256). `store` is not touched before the first step,
        so another thread may load.

        Raises `ModelError` if a blob is missing or the graph cannot be loaded.
        """
        return cls(manifest, start, end, blobs, threads=threads, store=store)

    def run(self, slots: Sequence[Rows], x: Array) -> Array:
        """One step.

        `x` is int64 [rows] (start 0) or float32 [rows, hidden], rows being the sum over slots; a shard that
        is only the head takes exactly the wanted rows. Returns float32 [rows, hidden]; [wanted, hidden] if
        the head comes next; or logits [wanted, vocab]. Raises `ModelError` if shapes or positions do not fit.
        """
        if self._session is None:
            raise ModelError("this shard is closed")
        check_step(self.manifest, self.units, slots, x, self.store)
        if not self.layers:
            return self._run_flat(x)
        outputs = []
        at = 0
        for slot in slots:
            outputs.append(self._run_slot(slot, x[at : at + slot.rows]))
            at += slot.rows
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def close(self) -> None:
        """Release the weights; the shard cannot run afterwards. Keys and values stay in the store."""
        self.store.unbind(self._owner)
        self._session = None
        heap.give_back()

    def _run_flat(self, x: Array) -> Array:
        """Embedding alone or head alone: no sessions, all rows at once."""
        if len(x) == 0:
            return np.empty((0, self._width), np.float32)
        feeds: dict[str, Array] = {self._entry: np.ascontiguousarray(x)}
        if self.has_head:
            feeds["rows"] = np.arange(len(x), dtype=np.int64)
        result: Array = self._session.run([self._exit], feeds)[0]
        return result

    def _run_slot(self, slot: Rows, x: Array) -> Array:
        total = slot.position + slot.rows
        one_row: _Binding | None = self.store.bound(slot.session, self._owner) if slot.rows == 1 else None
        if one_row is not None and total > one_row.capacity:
            one_row = None  # not held while the caches grow, or the old ones would stay beside the new
        layers = one_row.layers if one_row else self.store.reserve(slot.session, self.layers, total)
        # Until the step has succeeded only what it does not rewrite is valid.
        for rows in layers:
            rows.length = slot.position
        if slot.rows == 1:
            if one_row is None:
                one_row = _Binding(self, layers, 1)
                self.store.bind(slot.session, self._owner, self.layers, one_row)
            result = one_row.run(x, slot.position, slot.logits)
        else:
            result = self._run_passes(slot, x, layers)
        for rows in layers:
            rows.length = total
        if self.end == self.manifest.n_units - 1:
            result = result[len(result) - slot.logits :]
        return result

    def _run_passes(self, slot: Rows, x: Array, layers: list[LayerRows]) -> Array:
        scores = 4 * layers[0].capacity * self.manifest.config["heads"]
        most = min(PASS_ROWS, max(8, SCORE_BYTES // scores))
        results, at = [], 0
        binding = None
        while at < slot.rows:
            left = slot.rows - at
            # Never leave one row for the last pass: one-row passes have other bits.
            rows = left if left <= most else most - 1 if left == most + 1 else most
            if binding is None or binding.rows != rows:
                binding = _Binding(self, layers, rows)
            wanted = max(0, min(rows, slot.logits - (left - rows)))
            results.append(binding.run(x[at : at + rows], slot.position + at, wanted))
            at += rows
        return results[0] if len(results) == 1 else np.concatenate(results)


class _Binding:
    """Buffers bound to a session's inputs and outputs for passes of one shape.

    The store keeps the one-row binding until a buffer is replaced, so a decode step allocates nothing but the
    array it returns. ONNX Runtime reads and writes the numpy memory directly; keys and values are input and
    output at once.
    """

    def __init__(self, shard: Shard, layers: list[LayerRows], rows: int) -> None:
        self._session = shard._session
        self.layers, self.capacity = layers, layers[0].capacity
        self.rows, self._has_head, self._exit, self._width = rows, shard.has_head, shard._exit, shard._width
        shape = (rows,) if shard.start == 0 else (rows, shard.manifest.hidden)
        self.x = np.empty(shape, shard._entry_type)
        self.seqlens = np.zeros(1, np.int32)
        self.total = np.zeros((), np.int32)
        self.out = np.empty((0, self._width), np.float32)
        self._binding = self._session.io_binding()
        self._keep: dict[str, Any] = {}
        self._bind_in(shard._entry, self.x)
        self._bind_in("steps", np.array([1, rows, -1], np.int64))
        self._bind_in("seqlens_k", self.seqlens)
        self._bind_in("total_sequence_length", self.total)
        assert shard._ropes is not None
        for number, table in enumerate(shard._ropes.upto(self.capacity)):
            self._bind_in(f"{'sin' if number % 2 else 'cos'}{number // 2}", table)
        for unit, kept in zip(shard.layers, layers, strict=True):
            self._bind_out(f"k{unit}_out", self._bind_in(f"k{unit}", kept.key))
            self._bind_out(f"v{unit}_out", self._bind_in(f"v{unit}", kept.value))

    def _bind_in(self, name: str, array: Array) -> Any:
        value = ort.OrtValue.ortvalue_from_numpy(array)
        self._binding.bind_ortvalue_input(name, value)
        self._keep[name] = array, value
        return value

    def _bind_out(self, name: str, value: Any) -> None:
        self._binding.bind_ortvalue_output(name, value)
        self._keep[name] = value

    def _bind_exit(self, wanted: int) -> None:
        # A graph that ends in the head computes at least one row of logits, to be thrown away if none is
        # wanted: products of no rows are untested ground in some kernels.
        count = max(wanted, 1) if self._has_head else self.rows
        if count != len(self.out):
            self.out = np.empty((count, self._width), np.float32)
            self._bind_out(self._exit, ort.OrtValue.ortvalue_from_numpy(self.out))
            if self._has_head:
                self._bind_in("rows", np.arange(self.rows - count, self.rows, dtype=np.int64))

    def run(self, x: Array, position: int, wanted: int) -> Array:
        """The pass at `position`; the last `wanted` rows of logits, or all rows of the hidden state."""
        self._bind_exit(wanted)
        self.x[...] = x
        self.seqlens[0] = position + self.rows - 1
        self.total[...] = position + self.rows
        self._session.run_with_iobinding(self._binding)
        return self.out[:wanted].copy() if self._has_head else self.out.copy()


def _check_version(manifest: Manifest) -> None:
    oldest = manifest.config.get("onnxruntime", [0])
    try:
        too_old = [int(part) for part in ort.__version__.split(".")[:2]] < list(oldest)
    except (ValueError, TypeError):
        return  # a development version, or a manifest that says nothing sensible
    if too_old:
        wanted = ".".join(map(str, oldest))
        raise ModelError(
            f"{manifest.model_id} needs ONNX Runtime {wanted} or newer, this device has {ort.__version__}: "
            "upgrade onnxruntime"
        )


def _open_session(manifest: Manifest, start: int, end: int, blobs: Path, threads: int) -> Any:
    _check_version(manifest)
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
    # Passes are short, so the arena stays small (10 MB for SmolLM2); without it the freed buffers of a pass
    # stay in the heap, several times as much.
    options.enable_cpu_mem_arena = True
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
