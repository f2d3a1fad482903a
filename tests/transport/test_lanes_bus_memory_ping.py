from collections import Counter

import pytest

from swisd.core.errors import SwisdError
from swisd.transport.api import LaneDown
from swisd.transport.memory import MemoryNetwork
from swisd.transport.mqtt import MAX_BUS_FRAME_BYTES, BusLanes
from swisd.transport.ping import Pinger
from swisd.wire.frames import HEADER, Frame, FrameKind, encode

from .conftest import A, B, C, Device, quick


@pytest.mark.parametrize("error", [OSError("not connected"), SwisdError("queue full"), LaneDown(B, "gone")])
async def test_a_bus_that_takes_nothing(error: Exception) -> None:
    def publish(device: str, body: bytes) -> None:
        raise error

    device = Device(A)
    lanes = BusLanes(A, publish, device.on_frame)
    with pytest.raises(LaneDown, match=str(error)):
        await quick(lanes.send(B, Frame(FrameKind.ACTIVATION, 1, A)))
    lanes.feed(B, b"".join(encode(Frame(FrameKind.PING, 1, B))))
    assert lanes.drops == {"pong to a device that is gone": 1}


async def test_the_bus_takes_a_little_less_than_a_lane() -> None:
    sent: list[bytes] = []
    lanes = BusLanes(A, lambda device, body: sent.append(body), Device(A).on_frame)
    for extra in (0, 1):
        frame = Frame(FrameKind.ACTIVATION, 1, A, payload=bytes(MAX_BUS_FRAME_BYTES - HEADER.size + extra))
        if extra:
            with pytest.raises(ValueError, match="longer"):
                await quick(lanes.send(B, frame))
        else:
            await quick(lanes.send(B, frame))
    assert [len(body) for body in sent] == [MAX_BUS_FRAME_BYTES]


async def test_a_bus_ping_without_an_answer_ends() -> None:
    lanes = BusLanes(A, lambda device, body: None, Device(A).on_frame, answer_s=0.05)
    with pytest.raises(LaneDown, match="no answer to a ping within"):
        await quick(lanes.probe(B, 10, 2))
    await quick(lanes.close())
    lanes.feed(B, b"after the end")
    assert not lanes.drops


async def test_memory_links_can_be_cut_and_healed() -> None:
    network = MemoryNetwork()
    a, b, c = Device(A), Device(B), Device(C)
    for device in (a, b, c):
        device.lanes = network.lanes(device.name, device.on_frame, device.on_down)
    frame = Frame(FrameKind.ACTIVATION, 1, A)
    await a.lanes.send(B, frame)  # under way when the link is cut
    network.cut(A, B, "axe")
    assert await quick(a.downs.get()) == (B, "axe") and await quick(b.downs.get()) == (A, "axe")
    with pytest.raises(LaneDown, match="cut"):
        await a.lanes.send(B, frame)
    await a.lanes.send(C, frame)
    await c.got()
    network.heal(A, B)
    await a.lanes.send(B, Frame(FrameKind.ACTIVATION, 2, A))
    assert (await b.got())[1].epoch == 2 and b.frames.empty() and c.downs.empty()
    await a.lanes.close()
    assert (await quick(c.downs.get()))[0] == A


async def test_what_a_probe_computes() -> None:
    """100 Mbit/s and 2 ms there and back, on a clock of our own."""
    now, drops = 0.0, Counter[str]()
    pinger = Pinger(A, drops, clock=lambda: now)

    async def send(device: str, frame: Frame) -> None:
        nonlocal now
        now += 0.002 + 2 * len(frame.payload) * 8 / 100e6
        pinger.arrived(device, Frame(FrameKind.PONG, frame.epoch, device, payload=frame.payload))

    rtt_ms, mbit_s = await quick(pinger.probe(send, B, 1_000_000, 5))
    assert rtt_ms == pytest.approx(2.0) and mbit_s == pytest.approx(100.0)

    async def liar(device: str, frame: Frame) -> None:
        pinger.arrived(device, Frame(FrameKind.PONG, frame.epoch, device, payload=b"?"))
        pinger.arrived(C, Frame(FrameKind.PONG, frame.epoch, C))

    with pytest.raises(LaneDown, match="another length"):
        await quick(pinger.probe(liar, B, 1000, 1))
    assert drops == {"pong nobody waits for": 1}
