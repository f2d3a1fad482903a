"""A device's hands for shards, keys and values: what its machine says is done, and comes back as events."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.core.config import DeviceConfig
from swisd.core.effects import (
    DropSession,
    KeepShards,
    LoadShards,
    ReadKv,
    RunStep,
    SendFrame,
    SendKv,
    WriteKv,
)
from swisd.core.errors import ModelError
from swisd.core.events import (
    Dropped,
    FrameArrived,
    FrameLost,
    KvArrived,
    KvFailed,
    KvRead,
    LoadFailed,
    OfferChanged,
    ShardsLoaded,
    StepDone,
)
from swisd.core.rows import Activation, KvRows, Work
from swisd.core.types import Slot
from swisd.node.node import Node
from swisd.node.rows import frame_of
from swisd.runtime.fake import FakeShard
from swisd.transport.memory import MemoryNetwork
from swisd.wire.frames import Dtype, FrameKind
from tests.node.conftest import Until
from tests.node.fakes import KEY, MIB, FakeModel, install_runtime

ANN, BOB, SESSION = "11" * 8, "22" * 8, "ab" * 8


class Hands:
    """A node whose machine only listens."""

    def __init__(self, model: FakeModel, network: MemoryNetwork, ident: str) -> None:
        self.events: list[Any] = []
        config = DeviceConfig(ident, 1, ident, memory_bytes=64 * MIB)
        self.node = Node(config, model.home, KEY, lambda _: None, offering=lambda held: 64 * MIB)
        self.node.machine.handle = self._listen  # type: ignore[method-assign]
        self.node.machine.local.manifests[model.sha] = model.manifest
        self.node.start(network.lanes(ident, self.node.on_frame))

    def _listen(self, event: Any, now: float) -> list[Any]:
        self.events.append(event)
        return []

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Pair:
    def __init__(self, model: FakeModel) -> None:
        self.model, self.network = model, MemoryNetwork()
        self.ann, self.bob = Hands(model, self.network, ANN), Hands(model, self.network, BOB)

    def load(self, *wanted: tuple[int, int]) -> LoadShards:
        return LoadShards(3, self.model.sha, wanted, (), 128)


@pytest.fixture
async def pair(fake_home: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    install_runtime(monkeypatch)
    made = Pair(fake_home)
    yield made
    await made.ann.node.stop()
    await made.bob.node.stop()


async def test_a_sessions_rows_go_from_one_device_to_another(pair: Pair, until: Until) -> None:
    ann, bob = pair.ann, pair.bob
    for hands in (ann, bob):
        hands.node._do(pair.load((0, 6)))
        await until(lambda hands=hands: hands.of(ShardsLoaded))
    prompt = Activation(3, 0, 0, (Slot(SESSION, 0, 0, 3, 1),), 3, (1, 2, 3))
    ann.node._do(RunStep(Work(3, 0, SESSION, 0), (0, 6), prompt))
    ann.node._do(ReadKv(BOB, 3, SESSION, (1, 5), 0, 3))
    await until(lambda: ann.of(KvRead))
    (read,) = ann.of(KvRead)
    ann.node._do(SendKv(read.device, read.kv))
    await until(lambda: bob.of(KvArrived))
    (arrived,) = bob.of(KvArrived)
    assert arrived.sender == ANN and arrived.kv.units == (1, 5)
    bob.node._do(WriteKv(arrived.kv))
    following = Activation(3, 0, 0, (Slot(SESSION, 1, 3, 1, 1),), 1, (4,))
    bob.node._do(RunStep(Work(3, 0, SESSION, 1), (0, 6), following))
    await until(lambda: bob.of(StepDone))
    bob.node._do(DropSession(SESSION))
    bob.node._do(WriteKv(replace(arrived.kv, position=1)))
    await until(lambda: bob.of(KvFailed))
    assert "only 0 tokens" in bob.of(KvFailed)[0].reason


async def test_rows_are_told_how_far_they_go(pair: Pair, until: Until) -> None:
    rows = Activation(3, 0, 1, (Slot(SESSION, 0, 0, 2, 1),), 2, np.ones((2, 16), np.float32), until=4)
    pair.ann.node._do(SendFrame(BOB, rows))
    await until(lambda: pair.bob.of(FrameArrived))
    assert pair.bob.of(FrameArrived)[0].activation.until == 4


async def test_rows_that_no_lane_takes_are_told_or_have_a_deadline(pair: Pair, until: Until) -> None:
    rows = Activation(3, 0, 1, (Slot(SESSION, 0, 0, 2, 1),), 2, np.ones((2, 16), np.float32))
    kv = KvRows(3, SESSION, (1, 3), 0, 2, np.ones((2, 2, 32), np.float32))
    pair.ann.node._do(SendKv("33" * 8, kv))
    pair.ann.node._do(SendFrame("33" * 8, rows))
    await until(lambda: pair.ann.of(FrameLost))
    assert [event.activation for event in pair.ann.of(FrameLost)] == [rows]


async def test_frames_without_meaning_are_dropped(pair: Pair) -> None:
    kv = frame_of(KvRows(3, SESSION, (1, 3), 0, 2, np.ones((2, 2, 32), np.float32)), ANN)
    pair.bob.node.on_frame(ANN, replace(kv, kind=FrameKind.PONG))
    pair.bob.node.on_frame(ANN, replace(kv, dtype=Dtype.INT64))
    pair.bob.node.on_frame(ANN, replace(kv, until=2))
    assert len(pair.bob.of(Dropped)) == 3 and not pair.bob.of(KvArrived)


async def test_memory_is_told_as_it_is_and_not_as_planned(pair: Pair, until: Until) -> None:
    node = pair.ann.node
    node._do(pair.load((0, 2), (2, 6)))
    await until(lambda: pair.ann.of(ShardsLoaded))
    node._watch_memory()
    assert pair.ann.of(OfferChanged)[-1].resident_bytes == 6 * MIB
    node._do(KeepShards(((0, 2),)))
    await until(lambda: node._compute.resident_bytes == 2 * MIB)
    node._watch_memory()
    assert pair.ann.of(OfferChanged)[-1].resident_bytes == 2 * MIB


async def test_a_shard_that_cannot_be_built_ends_the_fetch_for_its_plan(
    pair: Pair, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, ended = pair.ann.node, asyncio.Event()

    async def units(model: str, manifest: Any, ranges: Any, progress: Any, ready: Any) -> None:
        ready(ranges[0])
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    def fails(*_: Any, **__: Any) -> Any:
        raise ModelError("no room")

    monkeypatch.setattr(node.supply, "units", units)
    monkeypatch.setattr(FakeShard, "load", fails)
    node._do(pair.load((0, 2), (2, 6)))
    async with asyncio.timeout(20):
        await ended.wait()
    await until(lambda: pair.ann.of(LoadFailed))
    assert pair.ann.of(LoadFailed) == [LoadFailed(3, "no room")]
