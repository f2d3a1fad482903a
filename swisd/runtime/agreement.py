"""Whether one-row steps of several sessions at once give the bits of each alone, tried on this device."""

from typing import TYPE_CHECKING

import numpy as np

from swisd.runtime.grouping import Group
from swisd.runtime.slots import Array, Slot

if TYPE_CHECKING:
    from swisd.runtime.shard import Shard

COMPANY = 7  # kernels take rows in fours, twos and ones: all of these are in it
PAST = 5  # positions before the one that is compared


def agrees(shard: "Shard") -> bool:
    """Run made-up sessions alone and together, and compare. Nothing of them is left afterwards."""
    manifest, store = shard.manifest, shard.store
    random = np.random.default_rng(0)
    if shard.start == 0:
        x: Array = random.integers(0, manifest.vocab, COMPANY)
    else:
        x = random.standard_normal((COMPANY, manifest.hidden), np.float32)
    if not shard.layers:
        alone = [shard.run_flat(x[n : n + 1]) for n in range(COMPANY)]
        return np.array_equal(shard.run_flat(x), np.concatenate(alone))
    if store.max_tokens <= PAST:
        return False
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
