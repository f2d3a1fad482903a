"""One pass of a shard, and what becomes of its rows: hidden states, a token, or scores.

Imported once there is something to run: a device without a plan does without numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from swisd.core.rows import Sample, Score
from swisd.core.types import Scores, Slot
from swisd.runtime.sampling import sample
from swisd.runtime.scoring import score

if TYPE_CHECKING:
    from swisd.runtime.shard import Shard


Wanted = Sample | Score | None  # what the head shall make of the rows of a step


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the rows of a step: how many there are, and hidden states or what the head says."""

    rows: int
    hidden: Any = None
    token: int | None = None
    scores: Scores | None = None


def outcomes(shard: "Shard", slots: Sequence[Slot], x: Any, wanted: Sequence[Wanted]) -> list[Outcome]:
    """Run steps in one pass: one of any number of slots, or several of one row each.

    Raises `SwisdError` for rows that do not fit, and where no answer comes of the head's.
    """
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
    if not head:
        return Outcome(len(rows), rows)
    if wanted is None or not len(rows):
        return Outcome(len(rows))
    if isinstance(wanted, Score):
        return Outcome(len(rows), scores=score(rows, wanted.next_ids, wanted.top))
    token = sample(
        rows[-1], wanted.params, seed=wanted.seed, position=wanted.position, history=wanted.history
    )
    return Outcome(len(rows), token=token)
