"""Several devices fill up at once: what the source sends, and what failing devices cost."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from swisd.core.model import Blob
from swisd.net.listener import Handler
from swisd.net.secure import dial
from swisd.store.client import Connection, Source
from swisd.store.disk import BlobStore
from swisd.store.fetch import Fetcher
from swisd.store.gather import PIECE_BYTES
from swisd.store.parts import Part
from swisd.store.protocol import (
    REPLY,
    REQUEST,
    How,
    Reply,
    Request,
    Status,
    read_reply,
    read_request,
    write_reply,
    write_request,
)
from swisd.store.server import BlobServer
from swisd.wire.handshake import Hello, Purpose

from .conftest import KEY, Start, bytes_of, connect, quick

SIZES = [3_000_000, *[300_000] * 12, 1_500_000]
DATAS = [bytes_of(number, size) for number, size in enumerate(SIZES)]
BLOBS = [Blob(hashlib.sha256(data).hexdigest(), len(data)) for data in DATAS]
MODEL_BYTES = sum(SIZES)


class Peer:
    """A device: a store, a server on loopback, a fetcher that knows all peers."""

    def __init__(self, folder: Path, all_of_them: "list[Peer]", max_clients: int = 16) -> None:
        self.store = BlobStore(folder)
        self.server = BlobServer(self.store, max_clients=max_clients)
        self.source = Source("", "", 0)
        self.handler: Handler = self.server.serve

        async def reach(host: str, port: int) -> Connection:
            return await dial(host, port, KEY, self.source.device, Purpose.STORE, timeout=5)

        def book(device: str) -> list[Source]:
            return [peer.source for peer in all_of_them if peer.source.device == device]

        self.reach, self.book = reach, book
        self.fetcher = Fetcher(self.store, reach, book, stall_s=1, pause_s=0.01, poll_s=0.01)

    async def serve(self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.handler(hello, reader, writer)

    async def fill(self, holders: "Sequence[Peer]", blobs: Sequence[Blob] = BLOBS) -> None:
        await self.fetcher.fetch_all(blobs, lambda _: [peer.source for peer in holders])

    @property
    def sent(self) -> int:
        return self.server.counters.bytes_sent

    def full(self, blobs: Sequence[Blob] = BLOBS) -> bool:
        return all(self.store.verify(blob.sha256) for blob in blobs)


Make = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def peer(tmp_path: Path, start: Start) -> AsyncIterator[Make]:
    """Make a device; with `full` it has the model."""
    made: list[Peer] = []

    async def one(*, full: bool = False, max_clients: int = 16) -> Peer:
        new = Peer(tmp_path / f"peer{len(made)}", made, max_clients)
        new.source = await start(new.serve)
        made.append(new)
        if full:
            for data in DATAS:
                new.store.put(data)
        return new

    yield one
    for each in made:
        await each.fetcher.close()
        each.server.close()


async def test_four_devices_that_want_all_cost_the_source_one_copy(peer: Make) -> None:
    source = await peer(full=True)
    four = [await peer() for _ in range(4)]
    await quick(asyncio.gather(*(one.fill([source]) for one in four)))
    assert all(one.full() for one in four)
    assert source.sent == MODEL_BYTES
    assert sum(one.sent for one in four) == 3 * MODEL_BYTES


async def test_devices_that_want_different_parts_are_given_them_by_the_source(peer: Make) -> None:
    source = await peer(full=True)
    four = [await peer() for _ in range(4)]
    parts = [BLOBS[number::4] for number in range(4)]
    await quick(asyncio.gather(*(one.fill([source], part) for one, part in zip(four, parts, strict=True))))
    assert all(one.full(part) for one, part in zip(four, parts, strict=True))
    assert source.sent == MODEL_BYTES and sum(one.sent for one in four) == 0


async def test_parts_that_overlap_cost_the_source_one_copy_of_each_blob(peer: Make) -> None:
    source = await peer(full=True)
    four = [await peer() for _ in range(4)]
    parts = [BLOBS[:8], BLOBS[4:], [*BLOBS[10:], BLOBS[0]], [BLOBS[0], BLOBS[-1]]]
    await quick(asyncio.gather(*(one.fill([source], part) for one, part in zip(four, parts, strict=True))))
    assert all(one.full(part) for one, part in zip(four, parts, strict=True))
    assert source.sent == MODEL_BYTES


async def test_one_after_the_other_costs_the_source_one_copy_too(peer: Make) -> None:
    source = await peer(full=True)
    four = [await peer() for _ in range(4)]
    for one in four:
        await quick(one.fill([source]))
        assert one.full()
    assert source.sent == MODEL_BYTES


async def test_twelve_devices_and_two_sources(peer: Make) -> None:
    sources = [await peer(full=True) for _ in range(2)]
    twelve = [await peer() for _ in range(12)]
    await asyncio.wait_for(asyncio.gather(*(one.fill(sources) for one in twelve)), 60)
    assert all(one.full() for one in twelve)
    assert all(source.sent <= MODEL_BYTES for source in sources)


async def test_a_source_that_serves_one_at_a_time_fills_all(peer: Make) -> None:
    source = await peer(full=True, max_clients=1)
    four = [await peer(max_clients=1) for _ in range(4)]
    await asyncio.wait_for(asyncio.gather(*(one.fill([source]) for one in four)), 60)
    assert all(one.full() for one in four) and source.sent <= 1.3 * MODEL_BYTES


async def test_a_device_that_was_given_blobs_and_died_costs_the_others_only_those(peer: Make) -> None:
    source = await peer(full=True)
    dead = await peer()
    await quick(dead.fill([source], BLOBS[:4]))

    async def gone(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    dead.handler = gone
    three = [await peer() for _ in range(3)]
    await quick(asyncio.gather(*(one.fill([source]) for one in three)))
    assert all(one.full() for one in three)
    assert source.sent == MODEL_BYTES + sum(SIZES[:4])


async def test_when_many_were_given_a_blob_and_died_it_is_given_again(peer: Make) -> None:
    source, sha = await peer(full=True), BLOBS[0].sha256

    async def gone(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    for _ in range(12):
        dead = await peer()
        dead.handler = gone
        reader, writer = await dial("127.0.0.1", source.source.port, KEY, dead.source.device, Purpose.STORE)
        writer.write(write_request(Request(sha, 0, 1)))
        # To the end: a connection that broke would tell the source that this device is gone.
        reply = read_reply(await quick(reader.readexactly(REPLY.size)))
        await quick(reader.readexactly(reply.follows))
        writer.close()
    one = await peer()
    await quick(one.fill([source], BLOBS[:1]))
    assert one.full(BLOBS[:1]) and source.sent == 1 + SIZES[0]


async def test_a_device_that_never_gets_what_it_was_given_is_waited_for_only_so_long(peer: Make) -> None:
    source = await peer(full=True)
    stuck = await peer()
    reader, writer = await dial("127.0.0.1", source.source.port, KEY, stuck.source.device, Purpose.STORE)
    for blob in BLOBS[:4]:
        writer.write(write_request(Request(blob.sha256, 0, 1)))
    stuck.store.coming = {blob.sha256: Part(stuck.store.root, blob.sha256, blob.size) for blob in BLOBS}
    while source.server.counters.requests < 4:
        await quick(reader.read(1))
    three = [await peer() for _ in range(3)]
    await quick(asyncio.gather(*(one.fill([source]) for one in three)))
    assert all(one.full() for one in three)
    assert source.sent == MODEL_BYTES + 4
    writer.close()
    for part in stuck.store.coming.values():
        part.close()


async def test_a_device_that_is_much_slower_than_the_source_is_not_waited_for(peer: Make) -> None:
    source, slow, fast = await peer(full=True), await peer(), await peer()
    await quick(slow.fill([source], BLOBS[:1]))
    given = 0

    async def drip(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal given
        while True:
            request = read_request(await reader.readexactly(REQUEST.size))
            if given:
                await asyncio.sleep(0.05)
            body = DATAS[0][request.offset :][:100]
            given += len(body)
            writer.write(write_reply(Reply(Status.OK, SIZES[0], len(body))) + body)

    slow.handler = drip
    await quick(fast.fill([source], BLOBS[::-1]))
    assert fast.full() and source.sent == MODEL_BYTES + SIZES[0] - given


async def test_a_device_that_passes_on_bad_bytes_costs_only_time(peer: Make) -> None:
    source = await peer(full=True)
    liar = await peer()
    await quick(liar.fill([source]))
    for blob in BLOBS[:4]:
        liar.store.path(blob.sha256).write_bytes(bytes(blob.size))
    three = [await peer() for _ in range(3)]
    await quick(asyncio.gather(*(one.fill([source]) for one in three)))
    assert all(one.full() for one in three)


async def test_a_device_that_joins_later_is_served_by_all_holders(peer: Make) -> None:
    holders = [await peer(full=True) for _ in range(3)]
    late = await peer()
    await quick(late.fill(holders))
    assert late.full() and sum(one.sent for one in holders) == MODEL_BYTES
    assert all(one.sent for one in holders)


async def test_a_large_blob_comes_from_several_holders_at_the_same_time(
    peer: Make, store: BlobStore, start: Start
) -> None:
    """Each holder gives its first piece only when the others were asked for one too."""
    data = bytes_of(7, 6 * PIECE_BYTES + 5)
    sha, asked, all_asked = hashlib.sha256(data).hexdigest(), set[int](), asyncio.Event()

    def gated(number: int) -> Handler:
        async def serve(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                request = read_request(await reader.readexactly(REQUEST.size))
                asked.add(number)
                if len(asked) == 3:
                    all_asked.set()
                await all_asked.wait()
                body = data[request.offset : request.offset + request.length]
                writer.write(write_reply(Reply(Status.OK, len(data), len(body))) + body)

        return serve

    fetcher = Fetcher(store, connect)
    await quick(fetcher.fetch(sha, len(data), [await start(gated(number)) for number in range(3)]))
    assert store.read(sha) == data
    await fetcher.close()


async def test_a_holder_that_hangs_in_the_middle_does_not_stop_the_others(
    peer: Make, store: BlobStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swisd.store.gather.HELP_S", 0.05)
    data = bytes_of(8, 20 * PIECE_BYTES)
    good = await peer()
    sha = good.store.put(data)

    async def hang(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = read_request(await reader.readexactly(REQUEST.size))
        writer.write(write_reply(Reply(Status.OK, len(data), request.length)) + data[request.offset :][:1000])
        await asyncio.sleep(60)

    fetcher = Fetcher(store, connect, stall_s=50)
    await quick(fetcher.fetch(sha, len(data), [await start(hang), good.source]))
    assert store.read(sha) == data and good.sent == len(data) - 1000
    await fetcher.close()


async def test_what_has_come_is_passed_on_before_all_is_there(
    peer: Make, store: BlobStore, start: Start
) -> None:
    """The source gives the second half only when somebody else has the first."""
    data = bytes_of(9, 4 * PIECE_BYTES)
    blob, half, second = hashlib.sha256(data).hexdigest(), len(data) // 2, asyncio.Event()

    async def slow(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = read_request(await reader.readexactly(REQUEST.size))
            if request.offset >= half:
                await second.wait()
            body = data[request.offset : request.offset + request.length]
            writer.write(write_reply(Reply(Status.OK, len(data), len(body))) + body)

    middle, end = await peer(), await peer()
    source, began, came = await start(slow), asyncio.Event(), 0

    def count(amount: int) -> None:
        nonlocal came
        came += amount
        if came >= half:
            second.set()

    first = asyncio.create_task(
        middle.fetcher.fetch(blob, len(data), [source], lambda amount: began.set() if amount else None)
    )
    await quick(began.wait())
    await quick(end.fetcher.fetch(blob, len(data), [middle.source], count))
    await quick(first)
    assert end.store.verify(blob) and middle.store.verify(blob)


async def test_whole_means_checked(peer: Make) -> None:
    one = await peer()
    sha = BLOBS[0].sha256
    part = one.store.coming[sha] = one.store.part(sha, BLOBS[0].size)
    part.write([DATAS[0][:1000]])
    reader, writer = await connect("127.0.0.1", one.source.port)
    for how, offset, status, follows in [
        (How.ANY, 0, Status.OK, 1000), (How.SENT, 400, Status.OK, 600), (How.SENT, 1000, Status.COMING, 0),
        (How.WHOLE, 0, Status.MISSING, 0),
    ]:  # fmt: skip
        writer.write(write_request(Request(sha, offset, 0, how)))
        assert await quick(reader.readexactly(21)) == write_reply(
            Reply(status, 0 if status is Status.MISSING else BLOBS[0].size, follows)
        )
        assert await quick(reader.readexactly(follows)) == DATAS[0][offset : offset + follows]
    writer.close()
    part.close()


async def test_a_source_that_sends_everybody_in_circles_is_left(
    peer: Make, store: BlobStore, start: Start
) -> None:
    good = await peer(full=True)

    async def circles(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readexactly(REQUEST.size)
            writer.write(write_reply(Reply(Status.ELSEWHERE, 3_000_000, 16)) + bytes(8) + b"\xff" * 8)

    fetcher = Fetcher(store, connect, pause_s=0.01)
    await quick(fetcher.fetch(BLOBS[0].sha256, SIZES[0], [await start(circles), good.source]))
    assert store.verify(BLOBS[0].sha256)
    await fetcher.close()


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_others_do_an_honest_source_fills_all(peer: Make, seed: int) -> None:
    """Five devices fill up; on every connection to one of them anything may go wrong."""
    random = Random(seed)
    source = await peer(full=True)
    five = [await peer() for _ in range(5)]

    def flaky(server: BlobServer) -> Handler:
        async def serve(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            mishap = random.choice(["none", "none", "abort", "hang", "babble", "busy", "lie"])
            if mishap == "none":
                await server.serve(hello, reader, writer)
                return
            request = read_request(await reader.readexactly(REQUEST.size))
            size = dict(zip((blob.sha256 for blob in BLOBS), SIZES, strict=True))[request.sha]
            if mishap == "hang":
                await asyncio.sleep(60)
            if mishap == "babble":
                writer.write(random.randbytes(100))
            if mishap == "busy":
                writer.write(write_reply(Reply(Status.BUSY)))
            if mishap == "lie":
                writer.write(write_reply(Reply(Status.OK, size, request.length)) + bytes(request.length))
            writer.close()

        return serve

    for one in five:
        one.handler = flaky(one.server)
        one.fetcher = Fetcher(one.store, one.reach, one.book, stall_s=0.3, pause_s=0.01, poll_s=0.01)
    await asyncio.wait_for(asyncio.gather(*(one.fill([source]) for one in five)), 60)
    assert all(one.full() for one in five)
