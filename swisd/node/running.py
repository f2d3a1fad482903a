"""Running steps through loaded shards: several in one pass, long ones in slices, and what follows on them.

Imported once there is something to run: a device without a plan does without numpy.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from swisd.core.effects import RunStep
from swisd.core.events import Event, StepDone
from swisd.core.rows import Activation
from swisd.core.types import Slot, Units
from swisd.node.foreseen import Foreseen, done, row_behind
from swisd.node.outcomes import outcome, outcomes

if TYPE_CHECKING:
    from swisd.runtime.shard import Shard

SLICE = 32  # rows of a long pass that run before others have their turn


def run(
    shard: "Shard", effects: Sequence[RunStep], turn_ms: float, between: Callable[[], None] | None = None
) -> list[StepDone]:
    """Steps of one shard in one pass: one of any length, or several of one row, as `Steps` says.

    A long one runs in slices if `between` is given; it is called after each, and may run others' steps.
    Passes of two and more rows give the same bits however they are divided. `turn_ms` is added to the time
    that it took. Raises `SwisdError` and `ValueError` for rows that do not fit.
    """
    rows = [_rows(effect.activation, shard) for effect in effects]
    began, others = time.perf_counter(), 0.0
    slots = [slot for effect in effects for slot in effect.activation.slots]
    wanted = [effect.sample or effect.score for effect in effects]
    if len(slots) > 1 or between is None or not shard.layers or slots[0].rows == 1:
        x = rows[0] if len(rows) == 1 else np.concatenate(rows)
        found = outcomes(shard, slots, x, wanted)
    else:
        parts = []
        for slot, start, end in slices(slots[0]):
            if start:
                paused = time.perf_counter()
                between()
                others += time.perf_counter() - paused
            parts.append(shard.run([slot], rows[0][start:end]))
        found = [outcome(np.concatenate(parts), shard.has_head, wanted[0])]
    ran = (time.perf_counter() - began - others) * 1000.0
    ended = time.monotonic()
    return [
        done(effect, item, ran, len(effects), ended, turn_ms)
        for effect, item in zip(effects, found, strict=True)
    ]


def slices(slot: Slot) -> Iterator[tuple[Slot, int, int]]:
    """A long pass in parts of `SLICE` rows or so, none of one row: (its slot, first row, row behind)."""
    start = 0
    while start < slot.rows:
        left = slot.rows - start
        rows = left if left <= SLICE else SLICE - 1 if left == SLICE + 1 else SLICE
        behind = left - rows
        wanted = max(0, min(rows, slot.logits - behind))
        yield replace(slot, position=slot.position + start, rows=rows, logits=wanted), start, start + rows
        start += rows


def foresee(
    effects: Sequence[RunStep], answers: Sequence[Event], shard_of: Callable[[Units], "Shard | None"]
) -> Foreseen | None:
    """Run what will be asked for behind steps that ran in one pass, as far as that is known.

    Raises what `outcomes` raises.
    """
    behind = map(row_behind, effects, answers)
    rows = [row for row in behind if row is not None]
    shard = shard_of(rows[0].units) if rows else None
    if shard is None:
        return None
    began = time.perf_counter()
    ids = np.array([row.token for row in rows], np.int64)
    found = outcomes(shard, [row.slot for row in rows], ids, [row.sample for row in rows])
    ran = (time.perf_counter() - began) * 1000.0
    ended = time.monotonic()
    known = {row.slot.session: (row, item) for row, item in zip(rows, found, strict=True)}
    return Foreseen(effects[0].work.epoch, known, ran, len(rows), ended)


def _rows(activation: Activation, shard: "Shard") -> Any:
    """The rows as the shard takes them: int64 ids, or float32 [rows, hidden] from a frame's bytes."""
    payload = activation.payload
    if isinstance(payload, np.ndarray):
        return payload
    if shard.start == 0:
        return np.array(payload, np.int64)
    rows = np.frombuffer(payload, "<f4")
    if rows.size != activation.rows * shard.manifest.hidden:
        raise ValueError(f"{rows.size} values for {activation.rows} rows of {shard.manifest.hidden}")
    return rows.reshape(activation.rows, shard.manifest.hidden)
