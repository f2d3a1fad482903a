"""Rows on their way through a pipeline: what they carry, and what is made of them at its end."""

from dataclasses import dataclass
from typing import Any

from swisd.core.types import SamplingParams, Slot, Units


@dataclass(frozen=True, slots=True)
class Work:
    """Names one run of a shard: results that no longer matter are told by it."""

    epoch: int
    stage: int
    session: str
    step: int


TO_THE_END = 0xFFFF  # of the pipeline: where rows usually go


@dataclass(frozen=True, slots=True)
class Activation:
    """Rows on their way into a stage.

    `payload` is opaque to the core: token ids (a tuple of int) for the stage that holds the embedding,
    else whatever the runtime gave (an array of float32, `rows` x hidden). `until` is the last stage that runs
    them: where caches are rebuilt, the stages behind still have theirs. `spent_ms` is what the stages before
    computed on these rows.
    """

    epoch: int
    pipeline: int
    stage: int
    slots: tuple[Slot, ...]
    rows: int
    payload: Any
    until: int = TO_THE_END
    spent_ms: float = 0.0

    def onward(self, rows: int, payload: Any, ran_ms: float) -> "Activation":
        """What a stage made of them in so many ms, on its way into the next one."""
        return Activation(
            self.epoch, self.pipeline, self.stage + 1, self.slots, rows, payload, self.until,
            self.spent_ms + ran_ms,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class KvRows:
    """Keys and values of one session: `rows` positions from `position` on, of the layers `units`.

    They travel under the epoch whose plan gives these units to the receiver. `payload` is opaque to the core:
    float32 [units, rows, 2 x kv heads x head size], the keys of a row before its values.
    """

    epoch: int
    session: str
    units: Units
    position: int
    rows: int
    payload: Any


@dataclass(frozen=True, slots=True)
class Sample:
    """How the head's answer becomes a token: drawn from (seed, position), so it can be repeated anywhere."""

    params: SamplingParams
    seed: int
    position: int
    history: tuple[int, ...]

    def after(self, token: int) -> "Sample":
        """How the token behind this one is drawn, which becomes `token`."""
        window = self.params.looks_back
        history = (*self.history, token)[-window:] if window else ()
        return Sample(self.params, self.seed, self.position + 1, history)


@dataclass(frozen=True, slots=True)
class Score:
    """Teacher forcing: the `top` best of each row, and the log-probability of the token that came next."""

    top: int
    next_ids: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Following:
    """What will be asked for behind a step: the row of its token, through the first stage's `units`.

    Unless it is one of `stop_ids`. If nothing else is to be done, it may run before it is asked for: the way
    to the machine and back takes as long as some layers. And others' rows may wait for it, to share its pass.
    `ahead` rows may follow, each on the one before.
    """

    units: Units
    stop_ids: tuple[int, ...]
    ahead: int = 1

    def behind(self) -> "Following | None":
        """What follows on the step of the row that follows."""
        return Following(self.units, self.stop_ids, self.ahead - 1) if self.ahead > 1 else None
