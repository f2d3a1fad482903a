"""Devices of one process over a bus and lanes in memory: they share a model, and a loss is survived."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.bus.memory import MemoryBroker, MemoryBus
from swisd.client.asking import Options, stream
from swisd.client.link import SwarmLink
from swisd.core import deadlines
from swisd.core.effects import Notice, SetTimer
from swisd.core.events import BusChanged, FrameArrived
from swisd.core.messages import Digest
from swisd.core.rows import Activation
from swisd.core.types import Plan, Slot
from swisd.net.listener import Listener
from swisd.node import node as node_module
from swisd.node.describe import describe_device
from swisd.node.home import Home
from swisd.node.node import Node
from swisd.node.rows import frame_of
from swisd.node.settings import Settings
from swisd.store.server import BlobServer
from swisd.transport.memory import MemoryNetwork
from swisd.wire.frames import Dtype, FrameKind
from swisd.wire.handshake import Purpose
from tests.node.conftest import Until
from tests.node.fakes import KEY, MIB, FakeModel, install_runtime, solo

PROMPT = "the sea"
OPTIONS = Options(max_tokens=10, temperature=0.0, raw=True, patience=20.0)


class One:
    """A device on the shared bus and network."""

    def __init__(self, swarm: "Many", home: Home, settings: Settings, memory: int, claims: Any) -> None:
        self.swarm, self.home, self.memory = swarm, home, memory
        self.seen: list[Any] = []
        self.settings, self.claims = settings, claims

    async def start(self) -> None:
        self.server = BlobServer(_store(self.home))
        self.listener = await Listener.start("127.0.0.1", 0, KEY, {Purpose.STORE: self.server.serve})
        config = describe_device(
            self.home, self.settings, claims=self.claims, memory_bytes=self.memory, port=self.listener.port,
            addresses=("127.0.0.1",),
        )  # fmt: skip
        self.node = Node(config, self.home, KEY, self.seen.append, offering=lambda held: self.memory)
        self.id = config.device
        self.bus = MemoryBus(self.swarm.broker, self.id, self.node.courier.receive, self.node.on_bus_state)
        self.node.courier.attach(self.bus)
        self.node.start(self.swarm.network.lanes(self.id, self.node.on_frame))
        await self.bus.start()

    async def stop(self) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.listener.close)
            stack.callback(self.server.close)
            stack.push_async_callback(self.bus.close)
            stack.push_async_callback(self.node.stop)

    def plans(self) -> list[Plan]:
        return [item for item in self.seen if isinstance(item, Plan)]

    def members(self) -> set[str]:
        digests = [item for item in self.seen if isinstance(item, Digest)]
        return {member.name for member in digests[-1].members} if digests else set()

    def said(self) -> str:
        return "\n".join(item.text for item in self.seen if isinstance(item, Notice))


def _store(home: Home) -> Any:
    from swisd.store.disk import BlobStore

    return BlobStore(home.blobs)


class Many:
    """The swarm: the first device hosts and holds the model."""

    def __init__(self, model: FakeModel, folder: Path) -> None:
        self.broker, self.network = MemoryBroker(), MemoryNetwork()
        self.model, self.folder = model, folder
        self.devices: list[One] = []

    async def add(self, name: str, memory: int) -> One:
        plain = self.model.settings
        settings = replace(plain, device=replace(plain.device, name=name))
        home = Home(self.folder / name) if self.devices else self.model.home
        one = One(self, home, settings, memory, "never" if self.devices else "at once")
        self.devices.append(one)
        await one.start()
        return one

    async def ask(self, prompt: str = PROMPT) -> Any:
        told: list[str] = []

        def bus(courier: Any, ident: str, on_state: Callable[[bool, str], None]) -> MemoryBus:
            return MemoryBus(self.broker, ident, courier.receive, on_state)

        async with asyncio.timeout(30), SwarmLink(self.devices[0].home, KEY, bus, told.append) as link:
            await link.connected(20)
            await link.heard(20)
            answers = [item async for item in stream(link, prompt, OPTIONS, Settings().answer)]
        return answers[-1]


@pytest.fixture
async def many(fake_home: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Many]:
    install_runtime(monkeypatch)
    for name, seconds in (("SETTLE", 0.05), ("HOST_TICK", 0.01), ("LINKS_SETTLE", 0.01), ("BEAT", 0.1)):
        monkeypatch.setattr(deadlines, name, seconds)
    monkeypatch.setattr("swisd.node.errands.LARGE_BYTES", 1000)
    made = Many(fake_home, tmp_path)
    yield made
    for one in reversed(made.devices):
        await one.stop()


def prompt_ids(model: FakeModel) -> list[int]:
    from swisd.text.tokenizer import load_tokenizer

    blob = model.home.blobs / model.manifest.blobs[model.manifest.tokenizer].sha256
    return load_tokenizer(blob.read_bytes()).encode(PROMPT, special=True)


def in_force(one: One, *devices: One) -> bool:
    plans = one.plans()
    return (
        bool(plans)
        and plans[-1].active
        and {stage.device for pipeline in plans[-1].pipelines for stage in pipeline.stages}
        == {device.id for device in devices}
    )


async def test_two_devices_give_the_tokens_of_one(many: Many, until: Until) -> None:
    ann = await many.add("ann", 4 * MIB)
    bob = await many.add("bob", 4 * MIB)
    await until(lambda: in_force(bob, ann, bob))
    answer = await many.ask()
    assert list(answer.token_ids) == solo(many.model, prompt_ids(many.model), 10)
    assert {shard.name for shard in answer.plan.shards} == {"ann", "bob"}
    held = [path.name for path in bob.home.blobs.iterdir()]
    assert 0 < len(held) < len(many.model.manifest.blobs)
    many.network.cut(ann.id, bob.id)
    many.network.heal(ann.id, bob.id)
    assert (await many.ask()).token_ids == answer.token_ids


async def test_rows_that_are_expected_run_before_the_machine_hears_of_them(many: Many, until: Until) -> None:
    ann = await many.add("ann", 4 * MIB)
    bob = await many.add("bob", 4 * MIB)
    await until(lambda: in_force(bob, ann, bob))
    order: list[tuple[str, int]] = []
    for node in (ann.node, bob.node):
        _watched(node, order)
    answer = await many.ask()
    assert list(answer.token_ids) == solo(many.model, prompt_ids(many.model), 10)
    begun = [step for what, step in order if what == "begun"]
    assert len(begun) >= 7  # not the prompt, nor the first row behind it
    assert all(order.index(("begun", step)) < order.index(("heard", step)) for step in begun)


def _watched(node: Node, order: list[tuple[str, int]]) -> None:
    """Note which rows for the middle of the pipeline run early, and when the machine hears of them."""
    handle, begin = node.machine.handle, node._compute.begin

    def hear(event: Any, now: float) -> Any:
        if isinstance(event, FrameArrived) and event.activation.stage == 1:
            order.append(("heard", event.activation.slots[0].step))
        return handle(event, now)

    def run(effect: Any) -> None:
        order.append(("begun", effect.work.step))
        begin(effect)

    node.machine.handle = hear  # type: ignore[method-assign]
    node._compute.begin = run  # type: ignore[method-assign]


async def test_a_device_that_leaves_says_so_and_the_swarm_plans_anew(many: Many, until: Until) -> None:
    ann = await many.add("ann", 16 * MIB)
    await until(lambda: in_force(ann, ann))
    bob = await many.add("bob", 16 * MIB)
    await until(lambda: "bob" in ann.members())
    await bob.stop()
    many.devices.remove(bob)
    await until(lambda: "bob left" in ann.said())
    assert list((await many.ask()).token_ids) == solo(many.model, prompt_ids(many.model), 10)
    await bob.node.stop()  # again, after the end


async def test_a_bus_that_breaks_is_told_and_comes_back(many: Many, until: Until) -> None:
    ann = await many.add("ann", 16 * MIB)
    await until(lambda: in_force(ann, ann))
    many.broker.cut(ann.id)
    states: Callable[[], list[bool]] = lambda: [  # noqa: E731
        item.connected for item in ann.seen if isinstance(item, BusChanged)
    ]
    await until(lambda: states() == [True, False, True])
    await many.ask()


async def test_frames_without_meaning_are_counted(many: Many) -> None:
    ann = await many.add("ann", 16 * MIB)
    rows = Activation(1, 0, 1, (Slot("ab" * 8, 0, 0, 2, 1),), 2, np.zeros((2, 16), np.float32))
    good = frame_of(rows, "22" * 8)
    for bad in (
        replace(good, kind=FrameKind.PONG),
        replace(good, slots=()),
        replace(good, dtype=Dtype.INT64),
    ):
        ann.node.on_frame("22" * 8, bad)
    assert ann.node.machine.local.drops == {"frame without meaning here": 3}
    ann.node.on_frame("22" * 8, good)
    assert ann.node.machine.local.drops["frame of another epoch"] == 1
    refused = {"stranger": 2}
    ann.node.count_refused(lambda: refused)
    for total in (2, 2, 5):
        refused["stranger"] = total
        ann.node._watch_refusals()
    assert ann.node.machine.local.drops["stranger"] == 5


async def test_a_watcher_that_fails_does_not_stop_the_device(
    many: Many, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(list[Any]):
        def append(self, item: Any) -> None:
            super().append(item)
            raise BrokenPipeError("the terminal is gone")

    monkeypatch.setattr(node_module.log, "exception", lambda *_: None)
    one = One(many, many.model.home, many.model.settings, 16 * MIB, "at once")
    one.seen = Deaf()
    many.devices.append(one)
    await one.start()
    await until(lambda: in_force(one, one))
    await many.ask()


async def test_a_timer_of_the_same_name_replaces_the_first(many: Many, until: Until) -> None:
    ann = await many.add("ann", 16 * MIB)
    fired: list[str] = []
    handle = ann.node.machine.handle
    ann.node.machine.handle = lambda event, now: (
        (  # type: ignore[method-assign]
            fired.append(event.name) if getattr(event, "name", "") in ("a", "b") else None
        )
        or handle(event, now)
    )
    now = asyncio.get_running_loop().time()
    for name, at in (("a", now + 3600), ("a", now), ("b", now)):
        ann.node._do(SetTimer(name, at))
    await until(lambda: len(fired) == 2)
    assert sorted(fired) == ["a", "b"]
