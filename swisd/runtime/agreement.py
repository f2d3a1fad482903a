"""Whether several one-row steps in one pass give the bits of each alone, tried on this device.

Those of several sessions side by side, and those of one session one behind the other. All layers of a model
go through the same kernels: what was tried with some of them, as in a measurement, holds for all.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from swisd.runtime.grouping import Group
from swisd.runtime.mirrors import ROWS
from swisd.runtime.slots import Array, Slot

if TYPE_CHECKING:
    from swisd.runtime.shard import Shard

COMPANY = 7  # kernels take rows in fours, twos and ones: all of these are in it
PAST = 5  # positions before the one that is compared
# Longer for rows of one session: one that is read before it is written has more time to show itself.
LONG_PAST = 100
PASSES = (COMPANY, ROWS, ROWS)
WRONG = 7.0
TRIAL = "trial"


_TRIED: dict[tuple[object, ...], bool] = {}  # for the life of the process


def agrees(shard: "Shard") -> bool:
    """Whether sessions side by side do."""
    return _tried("sessions", shard, _sessions_agree)


def mirrors_agree(shard: "Shard") -> bool:
    """Whether rows of one session do; False where there is no memory for such passes."""
    return _tried("rows", shard, _rows_agree)


def _tried(what: str, shard: "Shard", trial: Callable[["Shard"], bool | None]) -> bool:
    manifest = shard.manifest
    model = what, manifest.blobs[manifest.graph].sha256, shard.threads
    key = *model, bool(shard.layers), shard.has_head
    if key not in _TRIED:
        parts = [_TRIED.get((*model, True, False)), _TRIED.get((*model, False, True))]
        known = all(parts) if None not in parts and shard.layers and shard.has_head else None
        found = trial(shard) if known is None else known
        if found is None:
            return False
        _TRIED[key] = found
    return _TRIED[key]


def _sessions_agree(shard: "Shard") -> bool | None:
    """Run made-up sessions alone and together, and compare. Nothing of them is left afterwards.

    None where there is no room to try it.
    """
    store = shard.store
    random = np.random.default_rng(0)
    x = _made_up(shard, random, COMPANY)
    if not shard.layers:
        alone = [shard.run_flat(x[n : n + 1]) for n in range(COMPANY)]
        return np.array_equal(shard.run_flat(x), np.concatenate(alone))
    if store.max_tokens <= PAST:
        return None
    names = [f"trial {number}" for number in range(COMPANY)]
    units = (shard.layers.start, shard.layers.stop)
    try:
        for name in names:
            rows = random.standard_normal((len(shard.layers), PAST, store.width), np.float32)
            store.write(name, units, 0, rows)
        slots = [Slot(name, PAST, 1, 1) for name in names]
        alone = [shard.run([slot], x[n : n + 1]) for n, slot in enumerate(slots)]
        pool = store.pool(names, shard.layers, PAST + 1)
        group = Group(tuple((n, n) for n in range(COMPANY)), pool, 0, COMPANY)
        together = shard.run_group(group, slots, x)
        return all(np.array_equal(together[n], alone[n]) for n in range(COMPANY))
    finally:
        for name in names:
            store.drop(name)


def _rows_agree(shard: "Shard") -> bool | None:
    """Run rows of a made-up session one after the other and in one pass, and compare what they become and
    leave in the caches. Nothing is left afterwards; None where there is no room to try it.
    """
    if not shard.layers:
        return _sessions_agree(shard)
    store, name = shard.store, TRIAL
    past = min(LONG_PAST, store.max_tokens - ROWS)
    units = (shard.layers.start, shard.layers.stop)
    if past < 1:
        return None
    random = np.random.default_rng(0)
    x = _made_up(shard, random, ROWS)
    slots = [Slot(name, past + number, 1, 1) for number in range(ROWS)]
    try:
        store.write(
            name, units, 0, random.standard_normal((len(shard.layers), past, store.width), np.float32)
        )
        layers = store.mirror(name, shard.layers, past + ROWS)
        if layers is None:
            return None
        alone = [shard.run([slot], x[n : n + 1]) for n, slot in enumerate(slots)]
        kept = store.read(name, units, past, ROWS)
        for count in PASSES:
            for rows in layers:  # or it would find there what it should write
                rows.key[:, :, past:], rows.value[:, :, past:] = WRONG, WRONG
            found = shard.run_mirrored(slots[:count], x[:count])
            if found is None:
                return None
            if not np.array_equal(np.concatenate(found), np.concatenate(alone[:count])):
                return False
            if not np.array_equal(store.read(name, units, past, count), kept[:, :count]):
                return False
        return True
    finally:
        store.drop(name)


def _made_up(shard: "Shard", random: np.random.Generator, rows: int) -> Array:
    """What a shard takes, int64 [rows] or float32 [rows, hidden]."""
    if shard.start == 0:
        return random.integers(0, shard.manifest.vocab, rows)
    return random.standard_normal((rows, shard.manifest.hidden), np.float32)
