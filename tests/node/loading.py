"""Loads of shards that wait at a gate, so that a test says when each one ends."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swisd.core.effects import LoadShards
from swisd.core.errors import ModelError
from swisd.core.events import ShardsLoaded, StepFailed
from swisd.core.types import Units
from swisd.runtime import shard
from swisd.runtime.fake import FakeShard
from tests.node.test_compute import Bench, bench, step

__all__ = ["Loader", "bench", "loaded", "loader", "settled"]


class Loader:
    """Loads of shards that wait at a gate; `made` are those that were let through."""

    def __init__(self) -> None:
        self.made: list[FakeShard] = []
        self.asked: list[Units] = []
        self.closed: list[Units] = []
        self.closing: queue.SimpleQueue[Units] = queue.SimpleQueue()
        self.fail: set[Units] = set()
        self.at_gate, self.gate = threading.Semaphore(0), threading.Semaphore(0)

    def load(
        self, manifest: Any, start: int, end: int, blobs: Path, *, threads: int, store: Any
    ) -> FakeShard:
        self.asked.append((start, end))
        self.at_gate.release()
        assert self.gate.acquire(timeout=20)
        if (start, end) in self.fail:
            raise ModelError("no room")
        made = FakeShard(manifest, start, end, store=store)
        self.made.append(made)
        return made

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.at_gate.acquire, timeout=20)

    def let(self, count: int = 1) -> None:
        self.gate.release(count)


@pytest.fixture
async def loader(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loader]:
    made = Loader()
    close = FakeShard.close

    def closes(self: FakeShard) -> None:
        made.closed.append(self.units)
        made.closing.put(self.units)
        close(self)

    monkeypatch.setattr(FakeShard, "close", closes)
    monkeypatch.setattr(shard.Shard, "load", made.load)
    yield made
    made.let(100)


async def settled(bench: Bench) -> None:
    """Everything that was asked of the compute thread before is done."""
    bench.compute.run(step((), units=(40, 41)))
    assert isinstance(await bench.next(), StepFailed)


async def loaded(bench: Bench, loader: Loader, effect: LoadShards) -> None:
    loader.let(len(effect.wanted))
    bench.load(effect)
    assert isinstance(await bench.next(), ShardsLoaded)
    while loader.at_gate.acquire(blocking=False):
        pass
