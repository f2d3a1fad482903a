"""A shard: contiguous units of a model as one ONNX Runtime session, over the KV caches of the device."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from swisd.core.errors import ModelError
from swisd.core.model import Manifest
from swisd.runtime import heap
from swisd.runtime.agreement import agrees
from swisd.runtime.binding import Binding
from swisd.runtime.graph import compose
from swisd.runtime.grouping import Group, Grouping
from swisd.runtime.kv import KvStore, LayerRows
from swisd.runtime.rope import RopeTables
from swisd.runtime.slots import Array, Rows, Slot, check_step

__all__ = ["Shard", "Slot"]

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
        self.session = _open_session(manifest, start, end, blobs, threads)
        self._ropes = RopeTables(manifest, blobs) if self.layers else None
        self.entry = "ids" if start == 0 else f"h{start}"
        self.entry_shape = () if start == 0 else (manifest.hidden,)  # of a row
        self.entry_type = np.dtype(np.int64 if start == 0 else np.float32)
        self.exit = "logits" if self.has_head else f"h{end}"
        self.width = manifest.vocab if self.has_head else manifest.hidden
        # Behind the last layer only those rows go on that an answer is wanted for.
        self.only_wanted = end >= manifest.n_units - 1
        self._grouping = Grouping(store, self.layers)
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
        if self.session is None:
            raise ModelError("this shard is closed")
        check_step(self.manifest, self.units, slots, x, self.store)
        if not self.layers:
            if len(x) > 1 and all(slot.rows == 1 for slot in slots) and not self.batches:
                return np.concatenate([self.run_flat(x[n : n + 1]) for n in range(len(x))])
            return self.run_flat(x)
        if len(slots) > 1 and all(slot.rows == 1 for slot in slots) and self.batches:
            return self._run_together(slots, x)
        outputs = []
        at = 0
        for slot in slots:
            outputs.append(self._run_slot(slot, x[at : at + slot.rows]))
            at += slot.rows
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    @cached_property
    def batches(self) -> bool:
        """Whether one-row steps of several sessions at once have the bits of each alone, on this device.

        That depends on the kernels that ONNX Runtime has for its processor, so it is tried once.
        """
        return agrees(self)

    def close(self) -> None:
        """Release the weights; the shard cannot run afterwards. Keys and values stay in the store."""
        self.store.unbind(self._owner)
        self.session = None
        heap.give_back()

    def run_flat(self, x: Array) -> Array:
        """Embedding alone or head alone: no sessions, all rows at once."""
        if len(x) == 0:
            return np.empty((0, self.width), np.float32)
        feeds: dict[str, Array] = {self.entry: np.ascontiguousarray(x)}
        if self.has_head:
            feeds["rows"] = np.arange(len(x), dtype=np.int64)
        result: Array = self.session.run([self.exit], feeds)[0]
        return result

    def _run_slot(self, slot: Rows, x: Array) -> Array:
        total = slot.position + slot.rows
        one_row: Binding | None = self.store.bound(slot.session, self._owner) if slot.rows == 1 else None
        if one_row is not None and total > one_row.capacity:
            one_row = None  # not held while the caches grow, or the old ones would stay beside the new
        layers = (
            self.store.reserve(slot.session, self.layers, total)
            if one_row is None
            else self._rows(slot.session)
        )
        # Until the step has succeeded only what it does not rewrite is valid.
        for rows in layers:
            rows.length = slot.position
        if slot.rows == 1:
            if one_row is None:
                one_row = Binding(self, [(item.key, item.value) for item in layers], 1)
                self.store.bind(slot.session, self._owner, self.layers, one_row)
            result = one_row.run(x, [slot.position], range(slot.logits if self.only_wanted else 1))
        else:
            result = self._run_passes(slot, x, layers)
        for rows in layers:
            rows.length = total
        return result[len(result) - slot.logits :] if self.only_wanted else result

    def rope_tables(self, positions: int) -> list[tuple[str, Array]]:
        """The graph's names and tables of cosines and sines for so many positions."""
        tables = self._ropes.upto(positions) if self._ropes else []
        return [(f"{'sin' if n % 2 else 'cos'}{n // 2}", table) for n, table in enumerate(tables)]

    def _rows(self, session: str) -> list[LayerRows]:
        return [rows for layer in self.layers if (rows := self.store.rows(session, layer))]

    def _run_together(self, slots: Sequence[Rows], x: Array) -> Array:
        """One-row steps of several sessions; each group in one pass."""
        results: dict[int, Array] = {}
        totals = [slot.position + 1 for slot in slots]
        for group in self._grouping.groups([slot.session for slot in slots], totals):
            if group.pool is None:
                for number, _ in group.members:
                    results[number] = self._run_slot(slots[number], x[number : number + 1])
            else:
                results.update(self.run_group(group, slots, x))
        return np.concatenate([results[number] for number in range(len(slots))])

    def run_group(self, group: Group, slots: Sequence[Rows], x: Array) -> dict[int, Array]:
        """One pass over places of a pool: what each member's row becomes, by the number of its slot."""
        pool, first, count = group.pool, group.first, group.count
        assert pool is not None
        key = (self._owner, self.layers, first, count)
        if (binding := pool.bound.get(key)) is None:
            caches = [(pool.key(i, first, count), pool.value(i, first, count)) for i in self.layers]
            binding = pool.bound[key] = Binding(self, caches, 1)
        fed = np.zeros((count, *x.shape[1:]), x.dtype)
        positions = [0] * count
        for place, end in group.others:
            positions[place - first] = end
        held = [(number, place - first, self._rows(slots[number].session)) for number, place in group.members]
        for number, at, layers in held:
            fed[at], positions[at] = x[number], slots[number].position
            for rows in layers:
                rows.length = slots[number].position
        wanted = [(number, at) for number, at, _ in held if slots[number].logits or not self.only_wanted]
        out = binding.run(fed, positions, [at for _, at in wanted])
        results = {}
        for number, _, layers in held:
            results[number] = out[:0]
            for rows in layers:
                rows.length += 1
        for row, (number, _) in enumerate(wanted):
            results[number] = out[row : row + 1]
        return results

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
                binding = Binding(self, [(item.key, item.value) for item in layers], rows)
            wanted = max(0, min(rows, slot.logits - (left - rows))) if self.has_head else rows
            results.append(binding.run(x[at : at + rows], [slot.position + at], range(rows - wanted, rows)))
            at += rows
        return results[0] if len(results) == 1 else np.concatenate(results)


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
