"""A connection that another thread reads for a while: it takes one frame, or leaves all to the loop."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from swisd.core.types import Slot
from swisd.transport.ear import Ear
from swisd.transport.link import GO, LENGTH
from swisd.wire.frames import HEADER, Dtype, Frame, FrameKind, decode, encode

from .conftest import A, B, TcpWorld, quick


def frame(number: int, size: int = 64, sender: str = A) -> Frame:
    slot = Slot("5e" * 8, number, number, 1, 1)
    payload = bytes([number % 256]) * size
    return Frame(FrameKind.ACTIVATION, number, sender, 0, 1, (slot,), Dtype.FLOAT32, size // 4, 1, payload)


def on_wire(one: Frame) -> bytes:
    data = b"".join(encode(one))
    return LENGTH.pack(len(data)) + data


class Raw:
    """What a link from A to B sends, byte for byte; B's loop has read what came before."""

    def __init__(self, world: TcpWorld) -> None:
        self.world = world

    async def begin(self) -> None:
        self.a, self.b = await self.world.add(A), await self.world.add(B)
        await quick(self.a.lanes.send(B, frame(0)))
        await self.b.got()
        (self._link,) = self.a.lanes._peers[B].links  # type: ignore[attr-defined]

    def send(self, data: bytes) -> None:
        self._link._transport.write(data)

    def lend(self) -> Ear:
        ear = self.b.lanes.lend(A)
        assert ear is not None
        return ear

    async def got(self) -> list[int]:
        """The frames that arrived in B's loop up to one that is sent now."""
        await quick(self.a.lanes.send(B, frame(99)))
        found = []
        while (number := (await self.b.got())[1].epoch) != 99:
            found.append(number)
        return found


@pytest.fixture
async def raw(tcp_world: TcpWorld) -> Raw:
    found = Raw(tcp_world)
    await found.begin()
    return found


def readable(file: int) -> bool:
    """Waits for bytes, and does not wait for ever."""
    with socket.socket(fileno=socket.dup(file)) as sock:
        sock.settimeout(20)
        sock.recv(1, socket.MSG_PEEK)
    return True


async def listened(ear: Ear, wait: Callable[[int], bool] = readable) -> int | None:
    """The number of the frame that a thread hears."""
    found = await quick(asyncio.to_thread(ear.listen, wait))
    return decode(found).epoch if found is not None else None


async def test_a_thread_takes_a_frame_and_the_loop_goes_on(raw: Raw) -> None:
    for number in (1, 2, 3):
        ear = raw.lend()
        raw.send(on_wire(frame(number)))
        assert await listened(ear) == number
        ear.use()
        ear.give_back()
    assert await raw.got() == []


async def test_what_is_not_used_arrives_as_ever(raw: Raw) -> None:
    ear = raw.lend()
    raw.send(on_wire(frame(1)))
    assert await listened(ear) == 1
    ear.give_back()
    assert await raw.got() == [1]


async def test_the_loop_reads_nothing_meanwhile(raw: Raw) -> None:
    ear = raw.lend()
    raw.send(on_wire(frame(1)) + on_wire(frame(2)))
    await quick(raw.b.lanes.send(A, frame(7, sender=B)))
    await raw.a.got()  # the other way is open; B's loop turned
    assert raw.b.frames.empty()
    ear.give_back()
    assert await raw.got() == [1, 2]


async def test_the_rest_of_a_frame_is_waited_for(raw: Raw) -> None:
    data = on_wire(frame(1))
    ear, turns = raw.lend(), 0

    def wait(file: int) -> bool:
        nonlocal turns
        turns += 1
        if turns < 4:
            loop.call_soon_threadsafe(
                raw.send, data[:2] if turns == 1 else data[2:50] if turns == 2 else data[50:]
            )
        return readable(file)

    loop = asyncio.get_running_loop()
    assert await listened(ear, wait) == 1 and turns >= 2
    ear.use()
    ear.give_back()
    assert await raw.got() == []


async def test_half_a_frame_is_left_to_the_loop(raw: Raw) -> None:
    data, ear, turns = on_wire(frame(1)), raw.lend(), 0

    def wait(file: int) -> bool:
        nonlocal turns
        turns += 1
        return turns == 1 and readable(file)

    raw.send(data[:30])
    assert await listened(ear, wait) is None
    ear.give_back()
    raw.send(data[30:])
    assert await raw.got() == [1]


@pytest.mark.parametrize(
    "others",
    [
        [frame(1), frame(2)],
        [frame(1, 100_000)],
    ],
)
async def test_the_loop_takes_what_is_no_row_that_came_alone(raw: Raw, others: list[Frame]) -> None:
    ear = raw.lend()
    raw.send(b"".join(map(on_wire, others)))
    assert await listened(ear) is None
    ear.give_back()
    assert await raw.got() == [one.epoch for one in others]


async def test_pings_are_answered_by_the_loop(raw: Raw) -> None:
    ear = raw.lend()
    probe = asyncio.create_task(raw.a.lanes.probe(B, 1000, 1))
    assert await quick(asyncio.to_thread(ear.listen, readable)) is not None
    ear.give_back()  # it is not what was waited for
    assert (await quick(probe)).rtt_ms > 0


@pytest.mark.parametrize(
    "data",
    [
        on_wire(frame(1, sender=B)),
        LENGTH.pack(3) + b"abc",
        LENGTH.pack(HEADER.size) + bytes(HEADER.size),
        LENGTH.pack((64 << 20) + 1) + b"x",
    ],
)
async def test_what_is_wrong_ends_the_connection(raw: Raw, data: bytes) -> None:
    ear = raw.lend()
    raw.send(data)
    await quick(asyncio.to_thread(ear.listen, readable))
    ear.give_back()
    assert (await quick(raw.b.downs.get()))[0] == A
    assert sum(raw.b.drops.values()) == 1
    await quick(raw.a.downs.get())


async def test_a_word_without_meaning_is_passed_over(raw: Raw) -> None:
    ear = raw.lend()
    raw.send(GO)
    assert await listened(ear) is None
    ear.give_back()
    assert await raw.got() == []


async def test_who_listens_hears_that_the_connection_is_over(raw: Raw) -> None:
    ear = raw.lend()
    thread = asyncio.create_task(listened(ear))
    (link,) = raw.b.lanes._peers[A].links  # type: ignore[attr-defined]
    link.abort("the test")
    assert (await quick(raw.b.downs.get())) == (A, "the test")
    assert await thread is None
    ear.give_back()
    assert raw.b.lanes.lend(A) is None
    await quick(raw.a.lanes.send(B, frame(5)))
    assert (await raw.b.got())[1].epoch == 5


async def test_the_other_side_dies_while_somebody_listens(raw: Raw) -> None:
    ear = raw.lend()
    await raw.world.kill(A)
    assert await listened(ear) is None
    ear.give_back()
    assert (await quick(raw.b.downs.get()))[0] == A


async def test_nothing_is_lent_twice_or_where_there_are_two_connections(raw: Raw) -> None:
    ear = raw.lend()
    assert raw.b.lanes.lend(A) is None
    ear.give_back()
    assert raw.b.lanes.lend(B) is None
    raw.b.lanes._peers[A].links.append(object())  # type: ignore[attr-defined]
    assert raw.b.lanes.lend(A) is None
    raw.b.lanes._peers[A].links.pop()  # type: ignore[attr-defined]
    raw.lend().give_back()


async def test_a_large_frame_that_is_under_way_is_the_loops(raw: Raw) -> None:
    data = on_wire(frame(1, 200_000))
    (link,) = raw.b.lanes._peers[A].links  # type: ignore[attr-defined]
    begun = asyncio.Event()
    begin, link._begin_large = link._begin_large, lambda *some: begin(*some) or begun.set()
    raw.send(data[:100_000])
    await quick(begun.wait())
    assert raw.b.lanes.lend(A) is None
    raw.send(data[100_000:])
    assert await raw.got() == [1]
