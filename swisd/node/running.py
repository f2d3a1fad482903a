"""Running steps through loaded shards: several in one pass, long ones in slices; what the head answers."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from swisd.core.effects import Activation, RunStep, Sample, Score
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
    began, others = time.perf_counter(), 0.0
    slots = [slot for effect in effects for slot in effect.activation.slots]
    if len(slots) > 1 or between is None or not shard.layers or slots[0].rows == 1:
        found = outcomes(shard, slots, np.concatenate(rows), effects)
    else:
        parts = []
        for slot, start, end in slices(slots[0]):
            if start:
                paused = time.perf_counter()
                between()
                others += time.perf_counter() - paused
            parts.append(shard.run([slot], rows[0][start:end]))
        found = [outcome(np.concatenate(parts), shard.has_head, effects[0])]
    ran = (time.perf_counter() - began - others) * 1000.0
    return [
        done(effect, item, ran, len(effects), turn_ms) for effect, item in zip(effects, found, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the rows of a step: how many there are, and hidden states or what the head says."""

    rows: int
    hidden: Any = None
    token: int | None = None
    scores: Scores | None = None


class Wanted(Protocol):
    """What the head shall make of its rows."""

    @property
    def sample(self) -> Sample | None: ...
    @property
    def score(self) -> Score | None: ...


def outcomes(shard: "Shard", slots: Sequence[Slot], x: Any, wanted: Sequence[Wanted]) -> list[Outcome]:
    """Run steps in one pass: one of any number of slots, or several of one row each.

    Raises `SwisdError` for rows that do not fit, and where no answer comes of the head's.
    """
    import numpy as np

    if shard.has_head and len(slots) == slots[0].rows == 1:  # a token of one session is what matters most
        return [shard.read(slots[0], x, lambda logits: outcome(logits, True, wanted[0]))]
    rows = shard.run(slots, x)
    if len(wanted) == 1:
        return [outcome(rows, shard.has_head, wanted[0])]
    ends = np.cumsum([slot.logits if shard.only_wanted else slot.rows for slot in slots])
    return [
        outcome(part, shard.has_head, item)
        for part, item in zip(np.split(rows, ends[:-1]), wanted, strict=True)
    ]


def outcome(rows: Any, head: bool, wanted: Wanted) -> Outcome:
    """A token, scores, or (a prompt chunk) nothing comes of the head's rows; all others go on as they are."""
    from swisd.runtime.sampling import sample
    from swisd.runtime.scoring import score

    if not head:
        return Outcome(len(rows), rows)
    if (how := wanted.sample) is not None and len(rows):
        token = sample(rows[-1], how.params, seed=how.seed, position=how.position, history=how.history)
        return Outcome(len(rows), token=token)
    if (what := wanted.score) is not None and len(rows):
        return Outcome(len(rows), scores=score(rows, what.next_ids, what.top))
    return Outcome(len(rows))


def done(effect: RunStep, found: Outcome, ran_ms: float, shared: int, turn_ms: float = 0.0) -> StepDone:
    """A step that ran in a pass of `ran_ms` that served `shared` steps.

    `turn_ms` is what it cost to hand it over: nothing where it ran before it was asked for.
    """
    return StepDone(
        effect.work, found.rows, found.hidden, ran_ms + turn_ms, found.token, found.scores, ran_ms, shared
    )


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
