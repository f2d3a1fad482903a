"""A small model on disk, and pipelines of its shards."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from swisd.core.model import Manifest
from swisd.runtime.kv import KvStore
from swisd.runtime.shard import Shard, Slot


@dataclass(frozen=True)
class Imported:
    gguf: Path
    blobs: Path
    manifest: Manifest

    def shards(self, *cuts: int, max_tokens: int = 512) -> list[Shard]:
        """The whole model as one shard, or cut at the units named."""
        edges = [0, *cuts, self.manifest.n_units]
        return [self.shard(*units, KvStore(self.manifest, max_tokens)) for units in pairwise(edges)]

    def shard(self, start: int, end: int, store: KvStore) -> Shard:
        return Shard.load(self.manifest, start, end, self.blobs, threads=1, store=store)


def through(shards: list[Shard], slot: Slot, ids: np.ndarray) -> np.ndarray:
    """One step of one session along a pipeline."""
    x = np.asarray(ids, np.int64)
    for shard in shards:
        x = shard.run([slot], x)
    return x


def generate(shards: list[Shard], chunks: list[int], steps: int, session: str = "s") -> np.ndarray:
    """Prefill in chunks and decode greedily; logits float32 [1 + steps, vocab]."""
    vocab = shards[0].manifest.vocab
    ids = np.random.default_rng(0).integers(0, vocab, sum(chunks))
    position, rows = 0, np.empty(0)
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        slot = Slot(session, position, chunk, int(last))
        rows = through(shards, slot, ids[position : position + chunk])
        position += chunk
    out = [rows]
    for _ in range(steps):
        token = out[-1].argmax(axis=1)
        out.append(through(shards, Slot(session, position, 1, 1), token))
        position += 1
    return np.concatenate(out)
