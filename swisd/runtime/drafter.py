"""A small model that says which tokens may come next, on one device and for one text at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swisd.core.model import Manifest
from swisd.runtime.kv import KvStore
from swisd.runtime.shard import Shard
from swisd.runtime.slots import Slot

TEXT = "draft"  # the name of its only session


class Drafter:
    """All units of a model in memory. Not thread-safe. From text to text it keeps what both begin with."""

    def __init__(self, manifest: Manifest, blobs: Path, *, threads: int, max_tokens: int) -> None:
        """`max_tokens` bounds a text with what is said of it. Raises `ModelError`."""
        self._manifest = manifest
        self._store = KvStore(manifest, max_tokens)
        self._shard = Shard.load(manifest, 0, manifest.n_units, blobs, threads=threads, store=self._store)
        self._ids: list[int] = []  # whose rows are in its caches

    def guess(self, ids: Sequence[int], count: int) -> tuple[int, ...]:
        """The `count` tokens that are likeliest to come after `ids`, each as if the others had come.

        Fewer where the text gets too long, none where it has tokens that this model does not know.
        """
        count = min(count, self._store.max_tokens - len(ids))
        if not ids or count < 1 or max(ids) >= self._manifest.vocab:
            return ()
        same = _alike(self._ids, ids)
        position = min(same, len(ids) - 1)  # the last row is run in any case, for what comes behind it
        rows = list(ids[position:])
        said: list[int] = []
        while len(said) < count:
            logits = self._shard.run([Slot(TEXT, position, len(rows), 1)], np.array(rows, np.int64))
            position += len(rows)
            rows = [int(np.argmax(logits[-1]))]
            said += rows
        self._ids = [*ids, *said[:-1]]
        return tuple(said)

    def close(self) -> None:
        """Free the weights and caches."""
        self._store.drop(TEXT)
        self._shard.close()


def _alike(known: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens both begin with."""
    for at, (one, other) in enumerate(zip(known, ids, strict=False)):
        if one != other:
            return at
    return min(len(known), len(ids))
