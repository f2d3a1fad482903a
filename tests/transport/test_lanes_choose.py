import asyncio

import pytest

from swisd.transport.api import LaneDown, Probe
from swisd.transport.choose import LaneChooser, LaneName, Policy
from swisd.wire.frames import Frame, FrameKind

from .conftest import STRANGER, A, B, BusWorld, TcpWorld, quick

PING = Frame(FrameKind.ACTIVATION, 1, A)


class Twin:
    """A lane that works or not, as told."""

    def __init__(self) -> None:
        self.up = True
        self.sent: list[str] = []
        self.connects = 0
        self.links: set[str] = set()
        self.closed = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, device: str, frame: Frame) -> None:
        if not self.up:
            raise LaneDown(device, "told so")
        self.sent.append(device)

    async def connect(self, device: str) -> None:
        self.connects += 1
        await self.gate.wait()
        if not self.up:
            raise LaneDown(device, "told so")
        self.links.add(device)

    def connected(self, device: str) -> bool:
        return device in self.links

    async def probe(self, device: str, payload_bytes: int, count: int) -> Probe:
        await self.send(device, PING)
        return Probe(1.0, 2.0)

    async def close(self) -> None:
        self.closed = True


class Scene:
    def __init__(self, policy: Policy = "auto") -> None:
        self.tcp, self.bus, self.now = Twin(), Twin(), 0.0
        self.changes: list[tuple[str, LaneName]] = []
        self.lanes = LaneChooser(
            self.tcp,
            self.bus,
            policy,
            clock=lambda: self.now,
            on_change=lambda device, lane: self.changes.append((device, lane)),
        )

    async def send(self, device: str = B) -> None:
        await quick(self.lanes.send(device, PING))
        if task := self.lanes._retries.get(device):
            await quick(asyncio.wait([task]))


async def test_direct_while_it_works() -> None:
    scene = Scene()
    assert scene.lanes.lane(B) is None and scene.lanes.lanes() == {}
    await scene.send()
    assert scene.tcp.sent == [B] and not scene.bus.sent and scene.lanes.lane(B) == "tcp"
    await quick(scene.lanes.close())
    assert scene.tcp.closed and scene.bus.closed


async def test_the_bus_meanwhile_and_back() -> None:
    scene = Scene()
    scene.tcp.up = False
    for _ in range(3):
        await scene.send()
    assert scene.bus.sent == [B] * 3 and scene.tcp.connects == 0 and scene.lanes.lane(B) == "mqtt"
    scene.now = 29.9
    await scene.send()
    assert scene.tcp.connects == 0
    scene.now = 30.0
    await scene.send()  # this one still over the bus, the direct lane is tried beside it
    assert scene.tcp.connects == 1 and len(scene.bus.sent) == 5
    await scene.send()
    assert scene.tcp.connects == 1
    scene.tcp.up, scene.now = True, 60.0
    await scene.send()
    await scene.send()
    assert scene.tcp.sent == [B] and scene.lanes.lanes() == {B: "tcp"}
    assert scene.changes == [(B, "tcp"), (B, "mqtt"), (B, "tcp")]


async def test_a_retry_that_takes_long_does_not_hold_frames_up() -> None:
    scene = Scene()
    scene.tcp.up = False
    await scene.send()
    scene.now = 31.0
    scene.tcp.gate.clear()
    for _ in range(3):
        await quick(scene.lanes.send(B, PING))
        await asyncio.sleep(0)
    assert len(scene.bus.sent) == 4 and scene.tcp.connects == 1
    await quick(scene.lanes.close())


async def test_a_peer_that_reached_us_is_answered_directly() -> None:
    scene = Scene()
    scene.tcp.up = False
    await scene.send()
    scene.tcp.up = True
    scene.tcp.links.add(B)
    await scene.send()
    assert scene.tcp.sent == [B]


async def test_links_are_chosen_one_by_one() -> None:
    scene = Scene()
    scene.tcp.up = False
    await scene.send()
    scene.tcp.up = True
    await scene.send(STRANGER)
    assert scene.lanes.lanes() == {B: "mqtt", STRANGER: "tcp"}


async def test_no_lane_at_all_says_why_for_both() -> None:
    scene = Scene()
    scene.tcp.up = scene.bus.up = False
    with pytest.raises(LaneDown, match="direct: told so; bus: told so"):
        await scene.send()
    with pytest.raises(LaneDown, match="direct: down; bus: told so"):
        await scene.send()


async def test_policies() -> None:
    scene = Scene("tcp")
    scene.tcp.up = False
    with pytest.raises(LaneDown):
        await scene.send()
    with pytest.raises(LaneDown):
        await quick(scene.lanes.probe(B, 1, 1))
    assert not scene.bus.sent
    scene = Scene("mqtt")
    await scene.send()
    assert scene.bus.sent == [B] and not scene.tcp.sent


async def test_probe_measures_the_lane_in_use() -> None:
    scene = Scene()
    assert await quick(scene.lanes.probe(B, 1, 1)) == Probe(1.0, 2.0)
    assert scene.tcp.sent == [B]
    scene.tcp.up = False
    await quick(scene.lanes.probe(B, 1, 1))
    assert scene.bus.sent == [B] and scene.lanes.lane(B) == "mqtt"


async def test_with_real_lanes(tcp_world: TcpWorld) -> None:
    """B listens nowhere at first: frames go over the bus; then it does."""
    bus_world, now = BusWorld(), 0.0
    a, bus_a, bus_b = await tcp_world.add(A), await bus_world.add(A), await bus_world.add(B)
    chooser = LaneChooser(a.lanes, bus_a.lanes, clock=lambda: now)  # type: ignore[arg-type]
    await quick(chooser.send(B, PING))
    assert (await bus_b.got())[0] == A and chooser.lane(B) == "mqtt"
    b = await tcp_world.add(B)
    now = 30.0
    await quick(chooser.send(B, PING))
    await quick(asyncio.wait(chooser._retries.values()))
    await quick(chooser.send(B, PING))
    assert (await b.got())[0] == A and chooser.lane(B) == "tcp" and bus_b.frames.qsize() == 1
    await quick(chooser.close())
    await quick(bus_world.close())
