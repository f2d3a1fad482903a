"""A pass that ran before it was asked for: the rows of tokens that the head has just answered with.

A driver has the first stage and the last one. While its machine hears of a token, tells it and asks for the
next row, the computing thread would have nothing to do, though it knows what will be asked for. What it runs
meanwhile has the bits that it would have later, as long as nothing touches the caches in between: whoever
keeps one of these drops it before anything else is done.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swisd.core.effects import RunStep
from swisd.core.events import Event, StepDone
from swisd.core.types import Slot, Units
from swisd.node.running import answered

if TYPE_CHECKING:
    from swisd.runtime.shard import Shard


@dataclass(frozen=True, slots=True)
class Row:
    """The row of a token, which comes behind the step that the head answered with it."""

    units: Units
    slot: Slot
    token: int


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One row of each of `shared` sessions through the first stage's shard, in one pass of `ran_ms`.

    `rows` has, by session, the row and what became of it, until it is taken.
    """

    shard: "Shard"
    epoch: int
    rows: dict[str, tuple[Row, Any]]
    ran_ms: float
    shared: int

    def serves(self, effect: RunStep) -> bool:
        """Whether a step asks for one of these rows."""
        slots = effect.activation.slots
        if len(slots) != 1 or effect.score is not None or slots[0].session not in self.rows:
            return False
        slot, (row, _) = slots[0], self.rows[slots[0].session]
        asked = effect.units, effect.work.epoch, slot.position, slot.rows, slot.logits
        known = row.units, self.epoch, row.slot.position, row.slot.rows, row.slot.logits
        return asked == known and effect.activation.payload == (row.token,)

    def take(self, effects: Sequence[RunStep]) -> list[StepDone]:
        """The steps that ask for them, with what the head makes of them; each is here once."""
        rows = [self.rows[effect.work.session][1] for effect in effects]
        found = answered(self.shard, effects, rows, self.ran_ms, self.shared)
        for effect in effects:
            del self.rows[effect.work.session]
        return found


def row_behind(effect: RunStep, answer: Event) -> Row | None:
    """What follows on a step, if that is known."""
    following = effect.following
    if following is None or not isinstance(answer, StepDone) or answer.token is None:
        return None
    if answer.token in following.stop_ids:
        return None
    last = effect.activation.slots[-1]
    slot = Slot(last.session, last.step + 1, last.position + last.rows, 1, 1)
    return Row(following.units, slot, answer.token)


def foresee(
    effects: Sequence[RunStep], answers: Sequence[Event], shard_of: Callable[[Units], "Shard | None"]
) -> Foreseen | None:
    """Run what will be asked for behind steps that ran in one pass, as far as that is known.

    Raises what `Shard.run` raises.
    """
    import numpy as np

    behind = map(row_behind, effects, answers)
    rows = [row for row in behind if row is not None]
    shard = shard_of(rows[0].units) if rows else None
    if shard is None:
        return None
    began = time.perf_counter()
    out = shard.run([row.slot for row in rows], np.array([row.token for row in rows], np.int64))
    ran = (time.perf_counter() - began) * 1000.0
    found = {row.slot.session: (row, out[at : at + 1]) for at, row in enumerate(rows)}
    return Foreseen(shard, effects[0].work.epoch, found, ran, len(rows))
