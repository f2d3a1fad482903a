"""What every kind of lanes promises."""

import asyncio

import numpy as np
import pytest

from swisd.core.types import Slot
from swisd.transport.api import LaneDown, packed
from swisd.wire.frames import HEADER, MAX_FRAME_BYTES, Dtype, Frame, FrameKind, encode

from .conftest import STRANGER, A, B, C, Device, World, quick


def step(sender: str, number: int, size: int = 4096) -> Frame:
    width = size // 4
    rows = np.full((1, width), number, np.float32)
    slot = Slot("5e" * 8, number, number, 1, 1)
    return Frame(
        FrameKind.ACTIVATION, 7, sender, 1, 2, (slot,), Dtype.FLOAT32, width, 1, memoryview(rows)
    )  # fmt: skip


def data_of(frame: Frame) -> bytes:
    return b"".join(encode(frame))


async def test_frames_arrive_in_order_and_whole(world: World) -> None:
    a, b = await world.add(A), await world.add(B)
    sizes = [4, 4096, 300_000, 8, 70_000, 4096, 8 << 20, 4, 262_144, 65_536, 1 << 20, 4096] * 3
    for number, size in enumerate(sizes):
        await quick(a.lanes.send(B, step(A, number, size)))
    for number, size in enumerate(sizes):
        sender, frame = await b.got()
        assert sender == A and frame.slots[0].step == number and frame.epoch == 7 and frame.sender == A
        assert (np.frombuffer(frame.payload, np.float32) == number).all() and len(frame.payload) == size
    assert not b.drops and not a.drops


async def test_concurrent_senders_keep_the_order_of_their_calls(world: World) -> None:
    a, b = await world.add(A), await world.add(B)
    tasks = [asyncio.create_task(a.lanes.send(B, step(A, number, 40_000))) for number in range(200)]
    await quick(asyncio.gather(*tasks))
    assert [(await b.got())[1].slots[0].step for _ in tasks] == list(range(200))


async def test_both_ways_and_three_devices(world: World) -> None:
    devices = {name: await world.add(name) for name in (A, B, C)}
    pairs = [(one, other) for one in devices for other in devices if one != other]
    await quick(asyncio.gather(*(devices[one].lanes.send(other, step(one, 1)) for one, other in pairs)))
    for name, device in devices.items():
        senders = {(await device.got())[0] for _ in range(2)}
        assert senders == set(devices) - {name} and device.frames.empty()


async def test_probe(world: World) -> None:
    a, b = await world.add(A), await world.add(B)
    rtt_ms, mbit_s = await quick(a.lanes.probe(B, 1 << 20, 3))
    assert rtt_ms > 0 and mbit_s > 0
    await quick(b.lanes.probe(A, 0, 0))
    assert a.frames.empty() and b.frames.empty() and not a.drops and not b.drops


async def test_unknown_device(world: World) -> None:
    a = await world.add(A)
    with pytest.raises(LaneDown, match=STRANGER):
        await quick(a.lanes.send(STRANGER, step(A, 1)))
    with pytest.raises(LaneDown):
        await quick(a.lanes.probe(STRANGER, 10, 1))


async def test_a_peer_dies_and_comes_back(world: World) -> None:
    a, b = await world.add(A), await world.add(B)
    await quick(a.lanes.send(B, step(A, 1)))
    await b.got()
    await world.kill(B)
    assert (await quick(a.downs.get()))[0] == B
    with pytest.raises(LaneDown):
        await quick(a.lanes.send(B, step(A, 2)))
    again = await world.add(B)
    await quick(again.lanes.send(A, step(B, 3)))  # reaches A, and so A reaches B whatever its backoff says
    assert (await a.got())[1].slots[0].step == 3
    await quick(a.lanes.send(B, step(A, 4)))
    assert (await again.got())[1].slots[0].step == 4


GOOD = data_of(step(A, 1))
BAD = {
    "empty": b"\0" * HEADER.size,
    "short": GOOD[:-1],
    "long": GOOD + b"x",
    "flipped": GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "header": GOOD[:8] + b"\xff" + GOOD[9:],
}


@pytest.mark.parametrize("name", BAD)
async def test_malformed_frames_are_dropped_and_counted(world: World, name: str) -> None:
    a, b = await world.add(A), await world.add(B)
    await quick(world.inject(C, B, BAD[name]))
    await quick(a.lanes.send(B, step(A, 1)))
    assert (await b.got())[0] == A and b.frames.empty()
    assert b.drops == {"malformed frame": 1}


async def test_a_frame_in_the_name_of_another_is_dropped(world: World) -> None:
    a, b = await world.add(A), await world.add(B)
    await quick(world.inject(C, B, GOOD))
    await quick(a.lanes.send(B, step(A, 2)))
    assert (await b.got())[1].slots[0].step == 2 and b.frames.empty()
    assert b.drops == {"frame of another sender": 1}


async def test_a_pong_nobody_waits_for(world: World) -> None:
    a, b = await world.add(A), await world.add(B)
    await quick(a.lanes.send(B, Frame(FrameKind.PONG, 99, A)))
    await quick(a.lanes.send(B, step(A, 1)))
    await b.got()
    assert b.drops == {"pong nobody waits for": 1}


async def test_too_long_a_frame_is_not_sent(world: World) -> None:
    a, _ = await world.add(A), await world.add(B)
    with pytest.raises(ValueError, match="longer"):
        await quick(a.lanes.send(B, Frame(FrameKind.PING, 0, A, payload=bytes(MAX_FRAME_BYTES))))


async def test_after_close_nothing_is_sent(world: World) -> None:
    a, _ = await world.add(A), await world.add(B)
    await quick(a.lanes.send(B, step(A, 1)))
    await quick(a.lanes.close())
    with pytest.raises(LaneDown):
        await quick(a.lanes.send(B, step(A, 1)))
    await quick(a.lanes.close())


async def in_a_thread(a: Device, device: str, *frames: Frame) -> list[bool]:
    def work() -> list[bool]:
        return [a.lanes.try_send_threadsafe(device, *packed(frame)) for frame in frames]

    return await quick(asyncio.to_thread(work))


async def test_a_thread_sends_what_can_go_at_once_and_overtakes_nothing(world: World) -> None:
    a, b = await world.add(A), await world.add(B)
    assert await in_a_thread(a, B, step(A, 0)) == [False]  # nobody knows the way yet
    for number in range(0, 60, 3):
        await quick(a.lanes.send(B, step(A, number)))
        for later in (number + 1, number + 2):
            if not (await in_a_thread(a, B, step(A, later)))[0]:
                await quick(a.lanes.send(B, step(A, later)))
    assert [(await b.got())[1].slots[0].step for _ in range(60)] == list(range(60))
    assert await in_a_thread(a, C, step(A, 0)) == [False]
    await world.kill(B)
    assert await in_a_thread(a, B, step(A, 0)) in ([False], [True])  # its end may not be known yet
    assert not a.drops and not b.drops
