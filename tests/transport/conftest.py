"""Three kinds of lanes behind one face, for the tests of what they share."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from swisd.net.listener import Listener
from swisd.net.secure import dial
from swisd.transport import link as links
from swisd.transport.api import Lanes
from swisd.transport.memory import MemoryNetwork
from swisd.transport.mqtt import BusLanes
from swisd.transport.tcp import TcpLanes
from swisd.wire.frames import Frame
from swisd.wire.handshake import Purpose

KEY = b"k" * 16
A, B, C = "aa" * 8, "bb" * 8, "cc" * 8
STRANGER = "ee" * 8
quick = partial(asyncio.wait_for, timeout=20)


@dataclass
class Device:
    """One end: its lanes and what came to it."""

    name: str
    lanes: Lanes = None  # type: ignore[assignment]
    frames: "asyncio.Queue[tuple[str, Frame]]" = field(default_factory=asyncio.Queue)
    downs: "asyncio.Queue[tuple[str, str]]" = field(default_factory=asyncio.Queue)
    listener: Listener | None = None

    def on_frame(self, device: str, frame: Frame) -> None:
        self.frames.put_nowait((device, frame))

    def on_down(self, device: str, reason: str) -> None:
        self.downs.put_nowait((device, reason))

    async def got(self) -> tuple[str, Frame]:
        return await quick(self.frames.get())

    @property
    def drops(self) -> "Counter[str]":
        return self.lanes.drops  # type: ignore[attr-defined, no-any-return]


class World:
    """Devices that can send to each other."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}

    async def add(self, name: str) -> Device:
        raise NotImplementedError

    async def kill(self, name: str) -> None:
        """A device is gone, as if its process had died."""
        raise NotImplementedError

    async def inject(self, sender: str, device: str, data: bytes) -> None:
        """Deliver any bytes to `device` in the name of `sender`, whose key is proved."""
        raise NotImplementedError

    async def close(self) -> None:
        for device in list(self.devices.values()):
            await device.lanes.close()
            if device.listener is not None:
                await device.listener.close()


class TcpWorld(World):
    options: dict[str, float] = {}  # noqa: RUF012

    def address_of(self, name: str) -> list[tuple[str, int]]:
        device = self.devices.get(name)
        return [] if device is None or device.listener is None else [("127.0.0.1", device.listener.port)]

    async def add(self, name: str) -> Device:
        device = Device(name)
        lanes = TcpLanes(KEY, name, self.address_of, device.on_frame, device.on_down, **self.options)  # type: ignore[arg-type]
        device.lanes = lanes
        device.listener = await Listener.start("127.0.0.1", 0, KEY, {Purpose.LANE: lanes.serve})
        self.devices[name] = device
        return device

    async def kill(self, name: str) -> None:
        device = self.devices[name]
        assert device.listener is not None
        await device.listener.close()
        await device.lanes.close()

    async def inject(self, sender: str, device: str, data: bytes) -> None:
        (address,) = self.address_of(device)
        reader, writer = await dial(*address, KEY, sender, Purpose.LANE)
        await quick(reader.readexactly(links.READY_BYTES))
        writer.write(links.GO + links.LENGTH.pack(len(data)) + data)
        await quick(reader.read())  # until it hangs up
        writer.transport.abort()


class BusWorld(World):
    def publish(self, sender: str, device: str, body: bytes) -> None:
        if device in self.devices:
            lanes = self.devices[device].lanes
            assert isinstance(lanes, BusLanes)
            asyncio.get_running_loop().call_soon(lanes.feed, sender, body)

    async def add(self, name: str) -> Device:
        device = Device(name)
        device.lanes = BusLanes(
            name, partial(self.publish, name), device.on_frame, reachable=self.devices.__contains__
        )
        self.devices[name] = device
        return device

    async def kill(self, name: str) -> None:
        await self.devices.pop(name).lanes.close()
        for device in self.devices.values():
            assert isinstance(device.lanes, BusLanes)
            device.lanes.lost(name, "its heartbeats stopped")
            device.on_down(name, "its heartbeats stopped")

    async def inject(self, sender: str, device: str, data: bytes) -> None:
        self.publish(sender, device, data)


class MemoryWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.network = MemoryNetwork()

    async def add(self, name: str) -> Device:
        device = Device(name)
        device.lanes = self.network.lanes(name, device.on_frame, device.on_down)
        self.devices[name] = device
        return device

    async def kill(self, name: str) -> None:
        self.network.kill(name)

    async def inject(self, sender: str, device: str, data: bytes) -> None:
        self.network.inject(sender, device, data)


WORLDS: dict[str, Callable[[], World]] = {"tcp": TcpWorld, "bus": BusWorld, "memory": MemoryWorld}


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    one = WORLDS[request.param]()
    yield one
    await quick(one.close())


@pytest.fixture
async def tcp_world() -> AsyncIterator[TcpWorld]:
    one = TcpWorld()
    yield one
    await quick(one.close())
