"""A shard without a model, for tests: same interface, numpy only, exact arithmetic.

Every layer mixes a row with its unit number, its position and all earlier rows of its session, in whole
numbers below a prime that float32 holds exactly. So a missing, reordered, repeated or stale row changes the
tokens that follow, and any cut of the model gives the same bits on any machine.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from swisd.core.errors import ModelError
from swisd.core.model import Blob, Manifest, Unit
from swisd.runtime.kv import KvStore, LayerRows
from swisd.runtime.slots import Array, Rows, check_step

T = TypeVar("T")
PRIME = 8388593  # the largest below 2**23
EOS_ID = 0
HALF = 1 << 12  # a sum is kept as two numbers
MEBI = 1 << 20
I64 = NDArray[np.int64]


def _contents(layers: int, vocab: int) -> list[bytes]:
    """Bytes of the fake blobs: graph, tokenizer, then one per unit; the head shares the embedding's."""
    letters = [chr(c) for c in (*range(97, 123), *range(65, 91))]
    # Ġ and Ċ are the space and the new line of byte-level vocabularies; one merge makes "th".
    tokens = (["<|end|>", *letters, *"ĠĊ.,?!':-0", "th"] + [f"<|{number}|>" for number in range(vocab)])[
        :vocab
    ]
    kinds = [3 if token.startswith("<|") else 1 for token in tokens]
    tokenizer = {
        "model": "gpt2", "pre": "smollm", "tokens": tokens, "token_type": kinds, "merges": ["t h"],
        "bos_id": None, "eos_id": EOS_ID, "unk_id": None, "pad_id": None,
        "add_bos": False, "add_eos": False, "add_space_prefix": False, "chat_template": None,
    }  # fmt: skip
    weights = [f"fake weights of unit {number}\n".encode() * 50 for number in range(layers + 1)]
    return [b"fake graph", json.dumps(tokenizer).encode(), *weights]


def fake_manifest(layers: int = 6, hidden: int = 16, vocab: int = 64, context: int = 4096) -> Manifest:
    """A manifest for `FakeShard`; its blobs can be written with `write_fake_blobs`."""
    contents = _contents(layers, vocab)
    blobs = tuple(Blob(hashlib.sha256(data).hexdigest(), len(data)) for data in contents)
    units = [
        Unit("embed", (2,), (0, 1), MEBI, 0, hidden * 4),
        *(Unit("layer", (3 + number,), (1, 1), MEBI, hidden * 8, MEBI) for number in range(layers)),
        Unit("head", (2,), (2, 1), MEBI, 0, MEBI),
    ]
    return Manifest(
        model_id=f"fake-{layers}x{hidden}",
        architecture="fake",
        licence="Apache-2.0",
        source_sha256=hashlib.sha256(b"".join(contents)).hexdigest(),
        hidden=hidden,
        vocab=vocab,
        context=context,
        blobs=blobs,
        units=tuple(units),
        graph=0,
        tokenizer=1,
        config={
            "eos_ids": [EOS_ID],
            "bos_id": None,
            "add_bos": False,
            "kv_heads": 1,
            "head_size": hidden,
        },
    )


def write_fake_blobs(manifest: Manifest, directory: Path) -> None:
    """The content of a fake manifest's blobs, as files named by their sha256."""
    directory.mkdir(parents=True, exist_ok=True)
    for blob, data in zip(manifest.blobs, _contents(manifest.n_layers, manifest.vocab), strict=True):
        (directory / blob.sha256).write_bytes(data)


class FakeShard:
    """Units `[start, end)` of a `fake_manifest`; see `swisd.runtime.shard.Shard` for the interface."""

    def __init__(self, manifest: Manifest, start: int, end: int, *, store: KvStore) -> None:
        if not 0 <= start < end <= manifest.n_units:
            raise ModelError(
                f"units {start} to {end} do not exist: {manifest.model_id} has {manifest.n_units}"
            )
        self.manifest, self.start, self.end = manifest, start, end
        self.units = (start, end)
        self.layers = range(max(start, 1), min(end, manifest.n_units - 1))
        self.has_head, self.only_wanted = end == manifest.n_units, end >= manifest.n_units - 1
        self.store = store
        self._closed = False

    @classmethod
    def load(
        cls, manifest: Manifest, start: int, end: int, blobs: Path, *, threads: int, store: KvStore
    ) -> "FakeShard":
        """Needs no files: `blobs` and `threads` are ignored."""
        return cls(manifest, start, end, store=store)

    def run(self, slots: Sequence[Rows], x: Array) -> Array:
        if self._closed:
            raise ModelError("this shard is closed")
        check_step(self.manifest, self.units, slots, x, self.store)
        only_head = not self.layers and self.has_head
        outputs, at = [], 0
        for slot in slots:
            rows = slot.logits if only_head else slot.rows
            part = self._slot(slot, x[at : at + rows].astype(np.int64))
            if not only_head and self.end >= self.manifest.n_units - 1:
                part = part[len(part) - slot.logits :]
            outputs.append(self._head(part) if self.has_head else part.astype(np.float32))
            at += rows
        return np.concatenate(outputs)

    def read(self, slot: Rows, x: Array, of: Callable[[Array], T]) -> T:
        return of(self.run([slot], x))

    def close(self) -> None:
        self._closed = True

    def _slot(self, slot: Rows, x: I64) -> I64:
        columns = np.arange(1, self.manifest.hidden + 1, dtype=np.int64)
        if self.start == 0:
            x = ((x[:, None] + 7) * 7919 * columns * columns + 104729 * columns) % PRIME
        positions = np.arange(slot.position, slot.position + slot.rows, dtype=np.int64)[:, None]
        total = slot.position + slot.rows
        kept = self.store.reserve(slot.session, self.layers, total) if self.layers else []
        for layer, rows in zip(self.layers, kept, strict=True):
            mixed = self._attend(rows, slot.position, np.roll(x, layer, axis=1))
            x = (x * (3 + layer) + np.roll(mixed, 1, axis=1) * 17 + positions * 257 + layer * 65537) % PRIME
        return x

    def _attend(self, kept: LayerRows, position: int, x: I64) -> I64:
        """Sums over all rows so far, which are kept: a key is the high part of a sum, its value the low."""
        total = position + len(x)
        past = kept.key[0, 0, :position].astype(np.int64) * HALF + kept.value[0, 0, :position].astype(
            np.int64
        )
        weights = np.arange(1, total + 1, dtype=np.int64)[:, None] % 1021 + 1
        seen = (past * weights[:position]).sum(axis=0) % PRIME
        mixed = np.empty_like(x)
        for number, row in enumerate(x):
            mixed[number] = (seen * 31 + row) % PRIME
            seen = (seen + mixed[number] * weights[position + number]) % PRIME
        kept.key[0, 0, position:total] = mixed // HALF
        kept.value[0, 0, position:total] = mixed % HALF
        kept.length = total
        return mixed

    def _head(self, x: I64) -> NDArray[np.float32]:
        """Logits from -8 to 8; the end token never wins, so a fake stream ends by its length."""
        total = (x * np.arange(1, self.manifest.hidden + 1)).sum(axis=1, keepdims=True) % PRIME
        mixed = (total + 1) * (np.arange(self.manifest.vocab, dtype=np.int64) * 131 + 7) * 2654435761
        logits: NDArray[np.float32] = ((mixed >> 7) % 65536).astype(np.float32) / 4096 - 8
        logits[:, EOS_ID] = -30
        return logits
