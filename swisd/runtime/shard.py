"""A shard: contiguous units of a model as one ONNX Runtime session, over the KV caches of the device."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from swisd.core.errors import ModelError
from swisd.core.model import Manifest
from swisd.runtime import heap
from swisd.runtime.agreement import agrees, mirrors_agree
from swisd.runtime.binding import Answers, Binding
from swisd.runtime.grouping import Group, Grouping
from swisd.runtime.kv import KvStore, LayerRows
from swisd.runtime.mirrors import ROWS
from swisd.runtime.opening import open_session, version
from swisd.runtime.rope import RopeTables
from swisd.runtime.slots import Array, Rows, Slot, check_step

__all__ = ["Shard", "Slot"]
T = TypeVar("T")

# Long inputs run in passes of at most so many rows, and so few that the attention scores
# (heads x rows x capacity floats) stay small. Passes of two and more rows have the same bits.
PASS_ROWS = 128
SCORE_BYTES = 16 << 20
# Older versions of ONNX Runtime write a row of the cache in the task that reads all of them, so several
# threads would do it in any order: https://github.com/microsoft/onnxruntime/pull/29216.
ROWS_WRITTEN_FIRST = 1, 32


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
        self.session = open_session(manifest, start, end, blobs, threads)
        self.threads = threads
        self._ropes = RopeTables(manifest, blobs) if self.layers else None
        self.entry = "ids" if start == 0 else f"h{start}"
        self.entry_shape = () if start == 0 else (manifest.hidden,)  # of a row
        self.entry_type = np.dtype(np.int64 if start == 0 else np.float32)
        self.exit = "logits" if self.has_head else f"h{end}"
        self.width = manifest.vocab if self.has_head else manifest.hidden
        # Behind the last layer only those rows go on that an answer is wanted for.
        self.only_wanted = end >= manifest.n_units - 1
        self.answers = Answers(self.width)
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
        """One step: rows of several sessions, or several rows of one, have the bits of each on its own.

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
        if len(slots) > 1 and all(slot.rows == 1 for slot in slots):
            return self._run_ones(slots, x)
        outputs = []
        at = 0
        for slot in slots:
            outputs.append(self._run_slot(slot, x[at : at + slot.rows]))
            at += slot.rows
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def read(self, slot: Rows, x: Array, of: Callable[[Array], T]) -> T:
        """One row of one session through a shard that ends in the head: what `of` makes of its logits.

        As `run` without a copy: `of` gets float32 [wanted, vocab] where the next pass will write its own.
        Raises what `of` raises, too.
        """
        if not self.layers or self.session is None:
            return of(self.run([slot], x))
        check_step(self.manifest, self.units, [slot], x, self.store)
        return of(self._compute_row(slot, x))

    @cached_property
    def batches(self) -> bool:
        """Whether one-row steps of several sessions at once have the bits of each alone, on this device.

        That depends on the kernels that ONNX Runtime has for its processor, so it is tried once.
        """
        return agrees(self)

    @cached_property
    def mirrors(self) -> bool:
        """Whether rows of one session in one pass have the bits of one after the other, tried likewise."""
        return (self.threads == 1 or version() >= ROWS_WRITTEN_FIRST) and mirrors_agree(self)

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
        if slot.rows == 1:
            return self._compute_row(slot, x).copy()
        total = slot.position + slot.rows
        layers = self.store.reserve(slot.session, self.layers, total)
        # Until the step has succeeded only what it does not rewrite is valid.
        for rows in layers:
            rows.length = slot.position
        result = self._run_passes(slot, x, layers)
        for rows in layers:
            rows.length = total
        return result[len(result) - slot.logits :] if self.only_wanted else result

    def _compute_row(self, slot: Rows, x: Array) -> Array:
        """A slot of one row. What it returns lies where the next pass writes."""
        total = slot.position + 1
        binding = self._bound(slot.session, 1, total)
        layers = (
            self.store.reserve(slot.session, self.layers, total)
            if binding is None
            else self._rows(slot.session)
        )
        for rows in layers:  # as for several
            rows.length = slot.position
        if binding is None:
            binding = self._bind(slot.session, [(item.key, item.value) for item in layers])
        result = binding.compute(x, [slot.position], range(slot.logits if self.only_wanted else 1))
        for rows in layers:
            rows.length = total
        return result if slot.logits or not self.only_wanted else result[:0]

    def rope_tables(self, positions: int) -> list[tuple[str, Array]]:
        """The graph's names and tables of cosines and sines for so many positions."""
        tables = self._ropes.upto(positions) if self._ropes else []
        return [(f"{'sin' if n % 2 else 'cos'}{n // 2}", table) for n, table in enumerate(tables)]

    def _bound(self, session: str, count: int, total: int) -> Binding | None:
        """What is bound for passes of so many rows of a session, if its caches have room for `total`.

        Otherwise it is not held: while caches grow, the old ones would stay beside the new.
        """
        bound = self.store.bound(session, self._owner)
        found: Binding | None = bound.get(count) if bound else None
        return found if found is not None and total <= found.capacity else None

    def _bind(self, session: str, caches: list[tuple[Array, Array]]) -> Binding:
        """Bind caches of a session, as many mirrors of each as a pass has rows."""
        bound = self.store.bound(session, self._owner)
        if bound is None:
            self.store.bind(session, self._owner, self.layers, bound := {})
        made = bound[len(caches[0][0])] = Binding(self, caches, 1)
        return made

    def _rows(self, session: str) -> list[LayerRows]:
        return [rows for layer in self.layers if (rows := self.store.rows(session, layer))]

    def _run_ones(self, slots: Sequence[Rows], x: Array) -> Array:
        """One-row slots: those of one session in one pass, and those of sessions that have one in another."""
        mine: dict[str, list[int]] = {}
        for number, slot in enumerate(slots):
            mine.setdefault(slot.session, []).append(number)
        results: dict[int, Array] = {}
        for numbers in mine.values():
            if len(numbers) > 1 and self.mirrors:
                results.update(self._run_following(numbers, slots, x))
        single = [numbers[0] for numbers in mine.values() if len(numbers) == 1]
        if len(single) > 1 and self.batches:
            results.update(self._run_together(single, slots, x))
        for number, slot in enumerate(slots):
            if number not in results:
                results[number] = self._run_slot(slot, x[number : number + 1])
        return np.concatenate([results[number] for number in range(len(slots))])

    def _run_following(self, numbers: Sequence[int], slots: Sequence[Rows], x: Array) -> dict[int, Array]:
        """Rows of one session, by the numbers of their slots: the first of them, or all."""
        results: dict[int, Array] = {}
        for at in range(0, len(numbers), ROWS):
            some = numbers[at : at + ROWS]
            rows = self.run_mirrored([slots[number] for number in some], x[some])
            if rows is None:
                break  # what follows needs these
            results.update(zip(some, rows, strict=True))
        return results

    def run_mirrored(self, slots: Sequence[Rows], x: Array) -> list[Array] | None:
        """One pass over rows of one session at positions that follow each other, `ROWS` of them at most.

        What each becomes; None, and nothing is run, where there is no memory for it.
        """
        session, position, count = slots[0].session, slots[0].position, len(slots)
        total = position + count
        binding = self._bound(session, count, total)
        layers = self._rows(session) if binding else self.store.mirror(session, self.layers, total)
        if layers is None:
            return None
        for rows in layers:  # as for a step alone
            rows.length = position
        if binding is None:
            caches = [(item.mirrors[0][:count], item.mirrors[1][:count]) for item in layers if item.mirrors]
            binding = self._bind(session, caches)
        wanted = [number for number, slot in enumerate(slots) if slot.logits or not self.only_wanted]
        out = binding.run(x, range(position, total), wanted)
        for rows in layers:
            rows.length = total
        ends = np.cumsum([number in wanted for number in range(count)])
        return np.split(out, ends[:-1])

    def _run_together(self, numbers: Sequence[int], slots: Sequence[Rows], x: Array) -> dict[int, Array]:
        """One row each of several sessions, by the numbers of their slots; each group in one pass."""
        chosen, rows = [slots[number] for number in numbers], x[numbers]
        results: dict[int, Array] = {}
        sessions, totals = [slot.session for slot in chosen], [slot.position + 1 for slot in chosen]
        for group in self._grouping.groups(sessions, totals):
            if group.pool is None:
                for number, _ in group.members:
                    results[number] = self._run_slot(chosen[number], rows[number : number + 1])
            else:
                results.update(self.run_group(group, chosen, rows))
        return {numbers[number]: result for number, result in results.items()}

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
