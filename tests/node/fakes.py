"""A fake model in a home, and the runtime that runs it."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from swisd.core.effects import RunStep
from swisd.core.model import Manifest
from swisd.core.types import Member, Stage
from swisd.node.compute import Compute
from swisd.node.home import Home
from swisd.node.settings import Settings
from swisd.runtime import fake
from swisd.store.disk import BlobStore
from swisd.store.models import ModelIndex

KEY = b"a swarm key 16 b"
MIB = 1 << 20


@dataclass(frozen=True)
class FakeModel:
    """A home and the model in it; `sha` and `size` are the manifest's."""

    home: Home
    manifest: Manifest
    sha: str
    size: int

    @classmethod
    def in_home(cls, path: Path, layers: int = 4) -> "FakeModel":
        """Write all blobs of a model into a home and note it there."""
        home = Home(path)
        manifest = fake.fake_manifest(layers=layers, context=512)
        fake.write_fake_blobs(manifest, home.blobs)
        store = BlobStore(home.blobs)
        sha = store.put(manifest.to_bytes())
        ModelIndex(home.models, store).add(sha, imported=True)
        return cls(home, manifest, sha, len(manifest.to_bytes()))

    @property
    def settings(self) -> Settings:
        """Settings that ask for this model and for no network."""
        plain = Settings()
        return replace(
            plain,
            device=replace(plain.device, name="lone", memory="64MiB", threads=1),
            swarm=replace(plain.swarm, multicast=False, announce=False),
            model=replace(plain.model, id=self.manifest.model_id, context=256, min_context=16),
        )


class Promptly(Compute):
    """Steps go a turn of the loop later, if nobody flushes them before."""

    def run(self, effect: RunStep) -> None:
        super().run(effect)
        asyncio.get_running_loop().call_soon(self.flush)


def install_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards and probes that need no model and no ONNX Runtime."""
    from swisd.runtime import probe, shard

    def measured(manifest: Manifest, blobs: Path, *, threads: Sequence[int], **_: Any) -> probe.ProbeResult:
        return probe.ProbeResult(
            layer_ms=1.0, layer_row_ms=0.5, head_ms=1.0, embed_ms=0.1, run_ms=0.1, threads=threads[-1]
        )

    monkeypatch.setattr(shard, "Shard", fake.FakeShard)
    monkeypatch.setattr(probe, "probe", measured)


def solo(model: FakeModel, prompt: list[int], count: int) -> list[int]:
    """The greedy tokens of a prompt on the whole model in one piece, from its definition."""
    import numpy as np

    from swisd.core.types import Slot
    from swisd.runtime.kv import KvStore

    store = KvStore(model.manifest, 512)
    shard = fake.FakeShard(model.manifest, 0, model.manifest.n_units, store=store)
    tokens: list[int] = []
    rows, at = prompt, 0
    for step in range(count):
        slot = Slot("ab" * 8, step, at, len(rows), 1)
        logits = shard.run([slot], np.array(rows, np.int64))
        at += len(rows)
        rows = [int(logits[-1].argmax())]
        tokens += rows
    return tokens


def stage(start: int, end: int, device: str = "11" * 8) -> Stage:
    return Stage(start, end, (Member(device),))


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
