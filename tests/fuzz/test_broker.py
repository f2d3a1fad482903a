"""The embedded broker against clients that hold the key and talk nonsense, from the first packet on."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from swisd.bus.amqtt_broker import MAX_RETAINED
from swisd.bus.connect_packet import Connect, length, parse_connect
from swisd.core.checked import Malformed
from swisd.net.secure import dial
from swisd.wire.handshake import Hello, Purpose
from tests.bus.worlds import KEY, ROOT, Embedded
from tests.fuzz.mutate import Mutator
from tests.fuzz.pipes import Pipe

pytestmark = pytest.mark.timeout(3600)
ME = "00000000000000f1"
HELLO = Hello(Purpose.BUS, ME, b"")


def text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def packet(first: int, body: bytes) -> bytes:
    size = len(body)
    digits = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([first]) + digits + body


def connect(*, flags: int = 2, rest: bytes = b"", name: str = ME) -> bytes:
    return packet(0x10, text("MQTT") + bytes([4, flags]) + b"\0\x3c" + text(name) + rest)


CONNECTS = [
    connect(),
    connect(name=ME + ".ask"),
    connect(flags=0x2E, rest=text(f"{ROOT}/gone/{ME}") + text("will")),
    connect(flags=0xC2, rest=text("user") + text("word")),
]
PACKETS = [
    packet(0x82, b"\0\1" + text(f"{ROOT}/plan") + b"\1"),
    packet(0x82, b"\0\2" + text(f"{ROOT}/beat/+") + b"\0" + text(f"{ROOT}/#") + b"\2"),
    packet(0xA2, b"\0\3" + text(f"{ROOT}/plan")),
    packet(0x30, text(f"{ROOT}/beat/{ME}") + b"beat"),
    packet(0x31, text(f"{ROOT}/cap/{ME}") + b"capability"),
    packet(0x33, text(f"{ROOT}/plan") + b"\0\5" + b"plan"),
    packet(0x32, text(f"{ROOT}/ask/{ME}") + b"\0\6" + bytes(200)),
    packet(0x34, text(f"{ROOT}/call") + b"\0\7" + b"call"),
    packet(0x40, b"\0\1"),
    packet(0x50, b"\0\2"),
    packet(0x62, b"\0\7"),
    packet(0x70, b"\0\4"),
    packet(0xC0, b""),
    packet(0xE0, b""),
    connect(),
]


def stream(mutator: Mutator) -> bytes:
    """Some packets, the later ones less likely to be right."""
    parts = []
    for _ in range(mutator.random.randint(1, 10)):
        each = mutator.random.choice(PACKETS[:-2] if mutator.random.random() < 0.9 else PACKETS)
        if mutator.random.random() < 0.5:
            # A length that lies swallows all that follows; so mostly the body alone is changed.
            body = mutator.blob(each[2 if each[1] < 128 else 3 :], PACKETS)[:16000]
            each = packet(each[0] if mutator.random.random() < 0.8 else mutator.random.randrange(256), body)
        elif mutator.random.random() < 0.1:
            each = mutator.blob(each, PACKETS)
        parts.append(each)
    return b"".join(parts)


@pytest.fixture
async def embedded() -> AsyncIterator[Embedded]:
    world = Embedded()
    await world.start()
    yield world
    await world.close()


async def serve(world: Embedded, words: bytes, mutator: Mutator) -> Pipe:
    """One connection that says `words` and hangs up, until the broker is done with it."""
    pipe = Pipe()
    for piece in mutator.pieces(words):
        pipe.feed(piece)
    pipe.hang_up()
    await asyncio.wait_for(world.broker.serve(HELLO, pipe.reader, pipe.writer), 20)
    pipe.close()
    return pipe


async def still_serves(world: Embedded) -> None:
    """Two honest devices hear each other."""
    ann, bob = [await world.peer(len(world.peers) + number) for number in (1, 2)]
    await ann.hears("call")
    bob.says("call", b"well?")
    await ann.until(lambda: ("call", b"well?") in ann.got)


async def nothing_is_left(world: Embedded, honest: int) -> None:
    """Of all that came only the honest ones are remembered, once amqtt has looked after its sessions."""
    broker: Any = world.broker._broker
    names = {peer.name for peer in world.peers}
    async with asyncio.timeout(20):
        while set(broker._sessions) != names or broker._broadcast_queue.qsize():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len(broker.admitted) == len(world.broker.clients) == honest
    assert all(session.client_id in names for each in broker._subscriptions.values() for session, _ in each)
    assert len(broker._subscriptions) <= 4
    assert len(broker._retained_messages) <= MAX_RETAINED


def test_any_connect_is_read_or_malformed(fuzz_count: int) -> None:
    mutator = Mutator(30)
    for _ in range(fuzz_count):
        data = mutator.blob(mutator.random.choice(CONNECTS), PACKETS)
        digits, rest = data[1:2], data[2:]
        try:
            while length(digits) is None:
                digits, rest = digits + rest[:1] if rest else digits + b"\xff", rest[1:]
            read = parse_connect(digits, rest)
        except Malformed:
            continue
        assert isinstance(read, Connect) and read.client_id.isascii()
        assert len(read.without_keepalive) == 1 + len(digits) + len(rest)


async def test_connects(fuzz_count: int, embedded: Embedded) -> None:
    """Counts: those that amqtt is shown at all."""
    mutator, taken = Mutator(31), 0
    for _ in range(fuzz_count // 4):
        words = mutator.blob(mutator.random.choice(CONNECTS), PACKETS)
        before = embedded.broker.refused.total()
        pipe = await serve(embedded, words, mutator)
        taken += pipe.written[:4] == b"\x20\x02\x00\x00"
        if pipe.written[:4] != b"\x20\x02\x00\x00":
            assert embedded.broker.refused.total() == before + 1, words
    assert 0 < taken < fuzz_count // 4
    await still_serves(embedded)
    await nothing_is_left(embedded, 2)


async def test_packets_of_a_client(fuzz_count: int, embedded: Embedded) -> None:
    """Clients that leave without acknowledging hold amqtt up for five seconds: so many come at once."""
    mutator, honest, left = Mutator(32), await embedded.peer(1), fuzz_count // 2  # half of about five packets
    await honest.hears("beat/+", "ask/+")
    tasks = len(asyncio.all_tasks())

    async def client(number: int) -> None:
        nonlocal left
        will = text(f"{ROOT}/gone/{ME}") + text("will")
        while left > 0:
            left -= 1
            flags, rest = mutator.random.choice(((2, b""), (0x2E, will)))
            hello = connect(flags=flags, rest=rest, name=f"{ME}.{number}")
            await serve(embedded, hello + stream(mutator), mutator)

    await asyncio.gather(*(client(number) for number in range(40)))
    await still_serves(embedded)
    await nothing_is_left(embedded, 3)
    broker: Any = embedded.broker._broker
    while len(broker._tasks_queue) > 100:  # noqa: ASYNC110 (the loop's next turn)
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) < tasks + 150


async def test_packets_over_sockets(fuzz_count: int, embedded: Embedded) -> None:
    mutator = Mutator(33)
    for _ in range(fuzz_count // 100):
        reader, writer = await dial("127.0.0.1", embedded.port, KEY, ME, Purpose.BUS)
        writer.write(mutator.random.choice(CONNECTS) + stream(mutator))
        writer.write_eof()
        with suppress(ConnectionResetError):  # it was cut with packets unread
            await asyncio.wait_for(reader.read(), 20)
        writer.transport.abort()
    await still_serves(embedded)
