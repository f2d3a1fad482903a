"""What a step asks of a shard, and the check that rows and slots fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from swisd.core.errors import ModelError
from swisd.core.model import Manifest
from swisd.runtime.kv import KvStore

Array = NDArray[Any]


class Rows(Protocol):
    """What shards read of a slot (`Slot` here, or the one of `swisd.core`)."""

    @property
    def session(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def logits(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Slot:
    """Rows of one session in a step. Several slots of a session are one row each, at positions in a row.

    `position` is the absolute position of the first row. It must be at most the session's KV length; less
    truncates the cache there and rewrites, so a repeated step gives the same answer. `logits` says how many
    trailing rows are wanted past the last layer: 1 for generation, `rows` for evaluation, 0 for a chunk of a
    prompt that is not its last.
    """

    session: str
    position: int
    rows: int
    logits: int


def check_step(
    manifest: Manifest,
    span: tuple[int, int],
    slots: Sequence[Rows],
    x: Array,
    store: KvStore,
) -> None:
    """Raise `ModelError` unless `x` and `slots` make a step for units `span` on the caches of `store`."""
    start, end = span
    only_head = start == manifest.n_units - 1
    layers = not only_head and end > 1
    if not slots:
        raise ModelError("a step needs one or more slots")
    before: dict[str, Rows] = {}  # by session, the slot that came last
    want = sum(slot.logits if only_head else slot.rows for slot in slots)
    dtype = np.dtype(np.int64 if start == 0 else np.float32)
    shape: tuple[int, ...] = (want,) if start == 0 else (want, manifest.hidden)
    if x.dtype != dtype or x.shape != shape:
        raise ModelError(f"units {start} to {end} take {dtype} {shape}, not {x.dtype} {x.shape}")
    for slot in slots:
        if slot.rows < 1 or slot.position < 0 or not 0 <= slot.logits <= slot.rows:
            raise ModelError(f"a slot of {slot.rows} rows at {slot.position} with {slot.logits} logits")
        if (last := before.get(slot.session)) is not None and not _follows(last, slot):
            raise ModelError(
                "the slots of a step are each of another session, or one row each at positions in a row"
            )
        before[slot.session] = slot
        total = slot.position + slot.rows
        if total > store.max_tokens:
            raise ModelError(
                f"session {slot.session} would have {total} tokens; this device allows {store.max_tokens}"
            )
        if not slot.position or not layers or last is not None:
            continue
        if slot.position > (here := store.length(slot.session, span)):
            raise ModelError(
                f"session {slot.session}: a step at {slot.position}, but only {here} tokens are here"
            )
    if start == 0 and (ids := x.tolist()) and not 0 <= min(ids) <= max(ids) < manifest.vocab:
        raise ModelError(f"token ids outside 0 to {manifest.vocab - 1}")


def _follows(slot: Rows, other: Rows) -> bool:
    return slot.rows == other.rows == 1 and other.position == slot.position + 1
