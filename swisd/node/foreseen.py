"""A pass that ran before it was asked for: the rows of tokens that the head has just answered with.

A driver has the first stage and the last one. While its machine hears of a token, tells it and asks for the
next row, the computing thread would have nothing to do, though it knows what will be asked for. What it runs
meanwhile has the bits that it would have later, as long as nothing touches the caches in between: whoever
keeps one of these drops it before anything else is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swisd.core.effects import RunStep
from swisd.core.events import Event, StepDone
from swisd.core.rows import Sample
from swisd.core.types import Slot, Units

if TYPE_CHECKING:
    from swisd.node.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Row:
    """The row of a token, which comes behind the step that the head answered with it.

    `sample` is how the head answers it in turn, if the same shard ends in the head.
    """

    units: Units
    slot: Slot
    token: int
    sample: Sample | None


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One row of each of `shared` sessions through the first stage's shard, in one pass of `ran_ms`.

    `rows` has, by session, the row and what became of it, until it is taken. It `ended` by `time.monotonic`.
    """

    epoch: int
    rows: dict[str, tuple[Row, "Outcome"]]
    ran_ms: float
    shared: int
    ended: float

    def serves(self, effect: RunStep) -> bool:
        """Whether a step asks for one of these rows."""
        slots = effect.activation.slots
        if len(slots) != 1 or effect.score is not None or slots[0].session not in self.rows:
            return False
        slot, (row, _) = slots[0], self.rows[slots[0].session]
        asked = effect.units, effect.work.epoch, slot.position, slot.rows, slot.logits, effect.sample
        known = row.units, self.epoch, row.slot.position, row.slot.rows, row.slot.logits, row.sample
        return asked == known and effect.activation.payload == (row.token,)

    def take(self, effects: Sequence[RunStep]) -> list[StepDone]:
        """The steps that ask for them, with what became of them; each is here once."""
        taken = [self.rows.pop(effect.work.session)[1] for effect in effects]
        return [
            done(effect, item, self.ran_ms, self.shared, self.ended)
            for effect, item in zip(effects, taken, strict=True)
        ]


def row_behind(effect: RunStep, answer: Event) -> Row | None:
    """What follows on a step, if that is known."""
    following = effect.following
    if following is None or not isinstance(answer, StepDone) or answer.token is None:
        return None
    if answer.token in following.stop_ids:
        return None
    slot = effect.activation.slots[-1].behind()
    same = following.units == effect.units
    sample = effect.sample.after(answer.token) if same and effect.sample is not None else None
    return Row(following.units, slot, answer.token, sample)


def done(
    effect: RunStep, found: "Outcome", ran_ms: float, shared: int, ended: float, turn_ms: float = 0.0
) -> StepDone:
    """A step that ran in a pass of `ran_ms` that served `shared` steps and ended then, by `time.monotonic`.

    `turn_ms` is what it cost to hand it over: nothing where it ran before it was asked for.
    """
    return StepDone(
        effect.work, found.rows, found.hidden, ran_ms + turn_ms, found.token, found.scores, ran_ms, shared,
        ended=ended,
    )  # fmt: skip
