import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.net.listener import Handler, Listener
from swisd.net.secure import dial
from swisd.transport import link as links
from swisd.transport.api import LaneDown, packed
from swisd.transport.link import GO, LENGTH, READY, READY_BYTES, SCRATCH_BYTES, FrameLink
from swisd.transport.tcp import TcpLanes
from swisd.wire.frames import HEADER, MAX_FRAME_BYTES, Frame, FrameKind, encode
from swisd.wire.handshake import Hello, Purpose

from .conftest import KEY, STRANGER, A, B, C, Device, TcpWorld, quick


def frame(number: int, size: int = 16, sender: str = A) -> Frame:
    return Frame(FrameKind.ACTIVATION, number, sender, payload=bytes([number % 256]) * size)


@asynccontextmanager
async def listening(handler: Handler, key: bytes = KEY) -> AsyncIterator[tuple[str, int]]:
    listener = await Listener.start("127.0.0.1", 0, key, {Purpose.LANE: handler})
    try:
        yield "127.0.0.1", listener.port
    finally:
        await quick(listener.close())


def lanes_to(
    *addresses: tuple[str, int], clock: Callable[[], float] | None = None, **options: float
) -> Device:
    """Device A, which finds every other device at `addresses`."""
    device = Device(A)
    if clock is not None:
        options["clock"] = clock  # type: ignore[assignment]
    device.lanes = TcpLanes(KEY, A, lambda _: addresses, device.on_frame, device.on_down, **options)  # type: ignore[arg-type]
    return device


async def deaf(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A lane that says it is B and reads nothing."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(READY + bytes.fromhex(B))
    await asyncio.Event().wait()


async def test_a_peer_that_does_not_read_is_cut() -> None:
    async with listening(deaf) as address:
        a = lanes_to(address, send_s=0.3)
        with pytest.raises(LaneDown, match="did not read"):
            for number in range(100):
                await quick(a.lanes.send(B, frame(number, 4 << 20)))
        assert (await quick(a.downs.get())) == (B, "it did not read for 0.3 s")
        await quick(a.lanes.close())


async def test_a_full_queue_says_so_and_a_cancelled_send_leaves_it() -> None:
    async with listening(deaf) as address:
        a = lanes_to(address)
        sends = [asyncio.create_task(a.lanes.send(B, frame(n, 32 << 20))) for n in range(8)]
        done, waiting = await quick(asyncio.wait(sends, return_when=asyncio.FIRST_EXCEPTION))
        full = [task for task in done if task.exception() is not None]
        assert full and all("wait for it already" in str(task.exception()) for task in full)
        outbox = a.lanes._peers[B].outbox  # type: ignore[attr-defined]
        assert 0 < len(outbox) <= 4 and outbox.bytes <= 128 << 20
        for task in waiting:
            task.cancel()
        await quick(asyncio.wait(waiting))
        assert len(outbox) == 0 and outbox.bytes == 0
        rest = asyncio.create_task(a.lanes.send(B, frame(0)))
        await asyncio.sleep(0)
        await quick(a.lanes.close())
        with pytest.raises(LaneDown, match="leaving"):
            await quick(rest)


async def test_after_a_failure_sends_fail_at_once_until_the_backoff_is_over() -> None:
    now, asked = 100.0, 0

    def address_of(device: str) -> list[tuple[str, int]]:
        nonlocal asked
        asked += 1
        return [("127.0.0.1", 1)]

    device = Device(A)
    lanes = TcpLanes(KEY, A, address_of, device.on_frame, device.on_down, clock=lambda: now)
    waits = []
    for _ in range(7):
        with pytest.raises(LaneDown, match=r"127\.0\.0\.1:1"):
            await quick(lanes.send(B, frame(1)))
        with pytest.raises(LaneDown, match="next attempt in") as info:
            await quick(lanes.send(B, frame(1)))
        waits.append(float(info.value.reason.split()[-2]))
        now += waits[-1] + 0.1
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] and asked == 7
    with pytest.raises(LaneDown):
        await quick(lanes.connect(B))  # asked for by name: no backoff
    assert asked == 8 and not lanes.connected(B) and not lanes.connected(C)
    await quick(lanes.close())


async def test_every_address_is_tried_and_the_good_one_remembered(tcp_world: TcpWorld) -> None:
    b = await tcp_world.add(B)
    assert b.listener is not None
    good = ("127.0.0.1", b.listener.port)
    a = lanes_to(("127.0.0.1", 1), ("127.0.0.1", 2), good)
    await quick(a.lanes.send(B, frame(5)))
    assert (await b.got())[1].epoch == 5
    assert a.lanes._peers[B].good_address == good  # type: ignore[attr-defined]
    await quick(a.lanes.close())


async def test_an_address_that_belongs_to_another_device_now(tcp_world: TcpWorld) -> None:
    c = await tcp_world.add(C)
    assert c.listener is not None
    a = lanes_to(("127.0.0.1", c.listener.port))
    with pytest.raises(LaneDown, match=f"belongs to {C} now"):
        await quick(a.lanes.send(B, frame(1)))
    assert c.frames.empty() and a.downs.empty()
    await quick(a.lanes.close())


async def test_another_key_and_another_protocol() -> None:
    async def nonsense(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * READY_BYTES)
        await reader.read()

    async def silent(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def rude(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        return

    async with (
        listening(deaf, b"x" * 16) as one,
        listening(nonsense) as two,
        listening(silent) as three,
        listening(rude) as four,
    ):
        a = lanes_to(one, two, three, four, dial_s=0.3)
        with pytest.raises(LaneDown) as info:
            await quick(a.lanes.send(B, frame(1)))
        assert "did not prove" in str(info.value) and "another lane protocol" in str(info.value)
        await quick(a.lanes.close())


async def test_a_connection_in_use_is_shared_and_closing_is_quick(tcp_world: TcpWorld) -> None:
    """B cannot be reached by A's dial, but B has connected to A."""
    a, b = await tcp_world.add(A), await tcp_world.add(B)
    await quick(b.lanes.send(A, frame(1, sender=B)))
    await a.got()
    listener, b.listener = b.listener, None
    assert listener is not None and a.listener is not None
    await quick(listener.close())
    await quick(a.lanes.send(B, frame(2)))
    assert (await b.got())[1].epoch == 2
    await quick(a.listener.close())
    assert a.listener.connections == 0
    assert (await quick(b.downs.get()))[0] == A


async def test_a_newer_connection_replaces_the_older(tcp_world: TcpWorld) -> None:
    b = await tcp_world.add(B)
    (address,) = tcp_world.address_of(B)
    streams = []
    for number in (1, 2):
        reader, writer = await quick(dial(*address, KEY, A, Purpose.LANE))
        assert await quick(reader.readexactly(READY_BYTES)) == READY + bytes.fromhex(B)
        data = b"".join(encode(frame(number)))
        writer.write(GO + LENGTH.pack(len(data)) + data)
        assert (await b.got())[1].epoch == number
        streams.append((reader, writer))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await quick(streams[0][0].readexactly(1))
    assert await quick(b.downs.get()) == (A, "replaced by a newer connection")
    await quick(b.lanes.send(A, frame(3, sender=B)))
    (length,) = LENGTH.unpack(await quick(streams[1][0].readexactly(4)))
    assert length == HEADER.size + 16
    for _, writer in streams:
        writer.transport.abort()


@pytest.mark.parametrize("length", [1, HEADER.size - 1, MAX_FRAME_BYTES + 1, 0xFFFFFFFF])
async def test_an_impossible_length_ends_the_connection(tcp_world: TcpWorld, length: int) -> None:
    b = await tcp_world.add(B)
    (address,) = tcp_world.address_of(B)
    reader, writer = await quick(dial(*address, KEY, A, Purpose.LANE))
    await quick(reader.readexactly(READY_BYTES))
    writer.write(GO + LENGTH.pack(length))
    assert await quick(b.downs.get()) == (A, f"a frame of {length} bytes was announced")
    assert b.drops == {"impossible length": 1}
    writer.transport.abort()


async def test_half_a_large_frame_does_not_hold_its_memory(tcp_world: TcpWorld) -> None:
    tcp_world.options = {"send_s": 0.05}
    b = await tcp_world.add(B)
    (address,) = tcp_world.address_of(B)
    reader, writer = await quick(dial(*address, KEY, A, Purpose.LANE))
    await quick(reader.readexactly(READY_BYTES))
    writer.write(GO + LENGTH.pack(MAX_FRAME_BYTES) + bytes(1000))
    device, reason = await quick(b.downs.get())
    assert device == A and "rest of a frame" in reason
    writer.transport.abort()


async def test_any_bytes_after_the_proof_are_survived(tcp_world: TcpWorld) -> None:
    a, b = await tcp_world.add(A), await tcp_world.add(B)
    for junk in (b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, LENGTH.pack(50) + bytes(50)):
        reader, writer = await quick(dial(*tcp_world.address_of(B)[0], KEY, STRANGER, Purpose.LANE))
        await quick(reader.readexactly(READY_BYTES))
        writer.write(junk)
        writer.write_eof()
        await quick(b.downs.get())
        writer.transport.abort()
    await quick(a.lanes.send(B, frame(9)))
    assert (await b.got())[1].epoch == 9


class Sink(asyncio.Transport):
    """A transport that only knows whether it was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.cut = True


sizes = st.lists(
    st.sampled_from([0, 1, 100, 5000, SCRATCH_BYTES - 44, SCRATCH_BYTES - 43, 300_000]), max_size=8
)


@settings(deadline=None, max_examples=60)
@given(sizes, st.lists(st.integers(1, 200_000), min_size=1, max_size=20))
def test_a_stream_is_cut_the_same_way_however_it_arrives(lengths: list[int], steps: list[int]) -> None:
    frames = [bytes([number + 1]) * (HEADER.size + size) for number, size in enumerate(lengths)]
    stream = b"".join(LENGTH.pack(len(one)) + one + GO for one in frames)
    got: list[bytes] = []

    async def run() -> None:
        link = FrameLink(A, lambda _, data: got.append(bytes(data)), lambda _: None, lambda _, __: None)
        link._transport = Sink()
        at = turn = 0
        while at < len(stream):
            buffer = link.get_buffer(-1)
            count = min(steps[turn % len(steps)], len(buffer), len(stream) - at)
            buffer[:count] = stream[at : at + count]
            link.buffer_updated(count)
            at, turn = at + count, turn + 1
        link.connection_lost(None)

    asyncio.run(run())
    assert got == frames


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=3000))
def test_any_stream_is_cut_or_refused(stream: bytes) -> None:
    got: list[bytes] = []

    async def run() -> None:
        link = FrameLink(A, lambda _, data: got.append(bytes(data)), lambda _: None, lambda _, __: None)
        link._transport = Sink()
        at = 0
        while at < len(stream) and not link.reason:
            buffer = link.get_buffer(-1)
            count = min(len(buffer), len(stream) - at)
            assert count
            buffer[:count] = stream[at : at + count]
            link.buffer_updated(count)
            at += count
        link.connection_lost(None)

    asyncio.run(run())
    assert all(len(one) >= HEADER.size for one in got) and links.LENGTH.size == 4


async def test_a_thread_begins_a_frame_that_the_loop_ends(tcp_world: TcpWorld) -> None:
    a, b = await tcp_world.add(A), await tcp_world.add(B)
    await quick(a.lanes.send(B, frame(0)))
    await b.got()
    (link,) = b.lanes._peers[A].links  # type: ignore[attr-defined]
    link._transport.pause_reading()

    def thread(number: int) -> bool:
        return a.lanes.try_send_threadsafe(B, *packed(frame(number, 60_000)))

    sent = 1
    while await quick(asyncio.to_thread(thread, sent)):
        sent += 1
        assert sent < 10_000, "nothing fills up"
    assert not await quick(asyncio.to_thread(thread, sent))
    sends = [asyncio.create_task(a.lanes.send(B, frame(sent + more, 60_000))) for more in range(30)]
    await asyncio.sleep(0)
    link._transport.resume_reading()
    await quick(asyncio.gather(*sends))
    sent += 30
    for number in range(1, sent):
        assert (await b.got())[1].epoch == number
    await quick(a.lanes.send(B, frame(sent)))  # the loop sees that nothing waits
    assert await quick(asyncio.to_thread(thread, sent + 1))
    assert [(await b.got())[1].epoch for _ in range(2)] == [sent, sent + 1] and not b.drops


async def test_a_thread_sends_nothing_on_a_connection_that_is_over(tcp_world: TcpWorld) -> None:
    a, b = await tcp_world.add(A), await tcp_world.add(B)
    await quick(a.lanes.send(B, frame(0)))
    await b.got()
    (link,) = a.lanes._peers[B].links  # type: ignore[attr-defined]
    assert await quick(asyncio.to_thread(link.write_threadsafe, *packed(frame(1))))
    link.abort("a test")
    assert not await quick(asyncio.to_thread(link.write_threadsafe, *packed(frame(2))))
    await quick(asyncio.shield(link.lost))
    assert not await quick(asyncio.to_thread(link.write_threadsafe, *packed(frame(2))))
