"""Rows on real connections that the computing thread waits for itself: what comes out is as ever."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from swisd.core.config import DeviceConfig
from swisd.core.effects import DropSession, Effect, LoadShards, RunStep, SendFrame
from swisd.core.events import FrameArrived, ShardsLoaded, StepDone
from swisd.core.rows import Activation, Work
from swisd.core.types import Slot
from swisd.node.node import Node
from swisd.node.rows import activation_of, frame_of
from swisd.runtime.fake import FakeShard
from swisd.runtime.kv import KvStore
from swisd.transport.ear import Ear
from tests.node.conftest import Until
from tests.node.fakes import KEY, MIB, FakeModel, install_runtime
from tests.transport.conftest import A as ANN
from tests.transport.conftest import B as BOB
from tests.transport.conftest import C as CAT
from tests.transport.conftest import TcpWorld, quick

ONE, TWO = "a" * 16, "b" * 16
UNITS = (2, 4)


class Worker:
    """Bob, between Ann and Cat. His machine asks for every row that comes, and sends on what was not sent."""

    def __init__(self, model: FakeModel, world: TcpWorld) -> None:
        self.model, self.world = model, world
        self.events: list[Any] = []
        self.heard = 0  # rows that the computing thread took itself

    async def begin(self, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ann, self.bob, self.cat = [await self.world.add(name) for name in (ANN, BOB, CAT)]
        config = DeviceConfig(BOB, 1, BOB, memory_bytes=64 * MIB)
        self.node = Node(config, self.model.home, KEY, lambda _: None, offering=lambda held: 64 * MIB)
        self.node.machine.handle = self._handle  # type: ignore[method-assign]
        self.node.machine.local.manifests[self.model.sha] = self.model.manifest
        self.bob.lanes._on_frame = self.node.on_frame  # type: ignore[attr-defined]
        self.until = until
        use = Ear.use

        def noted(ear: Ear) -> None:
            self.heard += 1
            use(ear)

        monkeypatch.setattr(Ear, "use", noted)
        self.node.start(self.bob.lanes)
        self.node._do(LoadShards(3, self.model.sha, (UNITS,), (), 128))
        await until(lambda: self.of(ShardsLoaded))
        await quick(self.bob.lanes.send(CAT, frame_of(a_row(0, ONE, 0.0), BOB)))
        await self.cat.got()

    def _handle(self, event: Any, now: float) -> list[Effect]:
        self.events.append(event)
        if isinstance(event, FrameArrived):
            rows = event.activation
            work = Work(rows.epoch, rows.stage, rows.slots[0].session, rows.slots[0].step)
            self.rows = rows
            return [RunStep(work, UNITS, rows, onward=CAT, inward=ANN)]
        if isinstance(event, StepDone) and not event.sent:
            return [SendFrame(CAT, self.rows.onward(event.rows, event.payload, 1.0))]
        return []

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def send(self, *rows: Activation) -> None:
        for one in rows:
            await quick(self.ann.lanes.send(BOB, frame_of(one, ANN)))

    async def got(self) -> tuple[str, int, bytes]:
        """Session, position and values of the row that Cat gets next."""
        _, frame = await self.cat.got()
        return frame.slots[0].session, frame.slots[0].position, bytes(frame.payload)

    async def through(self, *rows: Activation) -> list[tuple[str, int, bytes]]:
        """Rows that come one after the other, each once the computing thread waits for it."""
        found = []
        for one in rows:
            done = len(self.of(StepDone))
            await self.send(one)
            found.append(await self.got())
            await self.until(lambda done=done: len(self.of(StepDone)) > done)
        return found


@pytest.fixture
async def worker(
    fake_home: FakeModel, monkeypatch: pytest.MonkeyPatch, until: Until
) -> AsyncIterator[Worker]:
    install_runtime(monkeypatch)
    world = TcpWorld()
    made = Worker(fake_home, world)
    await made.begin(until, monkeypatch)
    yield made
    await made.node.stop()
    await world.close()


def a_row(position: int, session: str = ONE, value: float = 1.0) -> Activation:
    slot = Slot(session, position, position, 1, 1)
    hidden = np.full((1, 16), value + position, np.float32)
    return Activation(3, 0, 1, (slot,), 1, hidden)


def right(model: FakeModel, *rows: Activation) -> list[tuple[str, int, bytes]]:
    shard = FakeShard(model.manifest, *UNITS, store=KvStore(model.manifest, 128))
    found = []
    for one in rows:
        wide = replace(one, payload=np.asarray(one.payload))
        out = shard.run(list(wide.slots), wide.payload)
        found.append((one.slots[0].session, one.slots[0].position, np.asarray(out, np.float32).tobytes()))
    return found


async def test_rows_that_are_waited_for_come_out_as_ever(worker: Worker) -> None:
    rows = [a_row(position) for position in range(8)]
    assert await worker.through(*rows) == right(worker.model, *rows)
    assert worker.heard == 6  # the first was not expected, the second came by the loop
    done = [event.work.step for event in worker.of(StepDone)]
    assert done == list(range(8)) and len(worker.of(FrameArrived)) == 8  # the machine heard of all


async def test_another_sessions_row_goes_by_the_loop(worker: Worker) -> None:
    rows = [a_row(position) for position in range(4)]
    await worker.through(*rows)
    other = a_row(0, TWO)
    await worker.send(other)
    assert await worker.got() == right(worker.model, other)[0]
    await worker.send(a_row(4))
    assert await worker.got() == right(worker.model, *rows, a_row(4))[4]


async def test_who_waits_is_there_for_other_things(worker: Worker, until: Until) -> None:
    await worker.through(*map(a_row, range(4)))
    worker.node._do(DropSession(ONE))
    worker.node._do(RunStep(Work(3, 1, TWO, 0), UNITS, activation_of(frame_of(a_row(0, TWO), ANN))))
    worker.node.post()
    await until(lambda: worker.of(StepDone)[-1].work.session == TWO)
    probe = await quick(worker.ann.lanes.probe(BOB, 1000, 2))
    assert probe.rtt_ms > 0


async def test_a_ping_is_answered_meanwhile(worker: Worker) -> None:
    rows = [a_row(position) for position in range(6)]
    found = await worker.through(*rows[:4])
    assert (await quick(worker.ann.lanes.probe(BOB, 1000, 3))).rtt_ms > 0
    found += await worker.through(*rows[4:])
    assert found == right(worker.model, *rows)


async def test_it_leaves_while_it_waits(worker: Worker) -> None:
    await worker.through(*map(a_row, range(4)))
    await quick(worker.node.stop())
    await quick(worker.bob.lanes.close())
    await quick(worker.ann.downs.get())


async def test_the_other_side_dies_while_it_waits(worker: Worker, until: Until) -> None:
    await worker.through(*map(a_row, range(4)))
    await worker.world.kill(ANN)
    assert (await quick(worker.bob.downs.get()))[0] == ANN
    worker.node._do(RunStep(Work(3, 1, TWO, 0), UNITS, activation_of(frame_of(a_row(0, TWO), ANN))))
    worker.node.post()
    await until(lambda: worker.of(StepDone)[-1].work.session == TWO)
