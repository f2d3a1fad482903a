"""Running steps through loaded shards: several in one pass, long ones in slices; what the head answers."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from swisd.core.effects import Activation, RunStep
from swisd.core.events import StepDone
from swisd.core.types import Scores, Slot

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
    import numpy as np

    rows = [_rows(effect.activation, shard) for effect in effects]
    slots = [slot for effect in effects for slot in effect.activation.slots]
    began, others = time.perf_counter(), 0.0
    if len(effects) > 1:
        joined = shard.run(slots, np.concatenate(rows))
        ends = np.cumsum([slot.logits if shard.only_wanted else slot.rows for slot in slots])
        results = np.split(joined, ends[:-1])
    elif between is None or len(slots) > 1 or not shard.layers:
        results = [shard.run(slots, rows[0])]
    else:
        parts = []
        for slot, start, end in slices(slots[0]):
            if start:
                paused = time.perf_counter()
                between()
                others += time.perf_counter() - paused
            parts.append(shard.run([slot], rows[0][start:end]))
        results = [np.concatenate(parts)]
    ran = (time.perf_counter() - began - others) * 1000.0
    return answered(shard, effects, results, ran, len(effects), turn_ms)


def answered(
    shard: "Shard",
    effects: Sequence[RunStep],
    rows: Sequence[Any],
    ran_ms: float,
    shared: int,
    turn_ms: float = 0.0,
) -> list[StepDone]:
    """Steps whose rows ran in a pass of `ran_ms` that served `shared` rows, with what the head makes of them.

    `turn_ms` is what it cost to hand them over: nothing where they ran before they were asked for.
    """
    began = time.perf_counter()
    answers = [_answer(*item) if shard.has_head else (None, None) for item in zip(effects, rows, strict=True)]
    ran = ran_ms + (time.perf_counter() - began) * 1000.0
    return [
        StepDone(
            effect.work,
            len(result),
            None if shard.has_head else result,
            ran + turn_ms,
            token,
            scores,
            ran,
            shared,
        )
        for effect, result, (token, scores) in zip(effects, rows, answers, strict=True)
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


def _answer(effect: RunStep, logits: Any) -> tuple[int | None, Scores | None]:
    """What the head's rows mean: a token, scores, or (a prompt chunk) nothing."""
    from swisd.runtime.sampling import sample
    from swisd.runtime.scoring import score

    wanted, scoring = effect.sample, effect.score
    if wanted is not None and len(logits):
        token = sample(
            logits[-1], wanted.params, seed=wanted.seed, position=wanted.position, history=wanted.history
        )
        return token, None
    if scoring is not None and len(logits):
        return None, score(logits, scoring.next_ids, scoring.top)
    return None, None


def _rows(activation: Activation, shard: "Shard") -> Any:
    """The rows as the shard takes them: int64 ids, or float32 [rows, hidden] from a frame's bytes."""
    import numpy as np

    payload = activation.payload
    if isinstance(payload, np.ndarray):
        return payload
    if shard.start == 0:
        return np.array(payload, np.int64)
    rows = np.frombuffer(payload, "<f4")
    if rows.size != activation.rows * shard.manifest.hidden:
        raise ValueError(f"{rows.size} values for {activation.rows} rows of {shard.manifest.hidden}")
    return rows.reshape(activation.rows, shard.manifest.hidden)
