import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swisd.store.client import Source
from swisd.store.disk import BlobStore
from swisd.store.fetch import Fetcher
from swisd.store.protocol import REPLY, Request, Status, read_reply, write_request
from swisd.store.server import BlobServer
from swisd.wire.handshake import Hello, Purpose

from .conftest import ME, Start, bytes_of, connect, quick

Holder = Callable[..., Awaitable[tuple[BlobStore, BlobServer, Source]]]


async def ask(source: Source, *requests: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await quick(connect(source.host, source.port))
    writer.write(b"".join(requests))
    return reader, writer


async def head(reader: asyncio.StreamReader) -> tuple[Status, int]:
    reply = read_reply(await quick(reader.readexactly(REPLY.size)))
    return reply.status, reply.follows


async def test_ranges_of_a_blob_on_one_connection(holder: Holder) -> None:
    theirs, server, source = await holder()
    data = bytes_of(1, 1_000_000)
    sha = theirs.put(data)
    wanted = [(0, 0), (10, 20), (999_999, 1), (1_000_000, 0), (300_000, 0)]
    reader, writer = await ask(source, *(write_request(Request(sha, *one)) for one in wanted))
    for offset, length in wanted:
        expected = data[offset : offset + length if length else None]
        assert await head(reader) == (Status.OK, len(expected))
        assert await quick(reader.readexactly(len(expected))) == expected
    assert server.clients == 1
    writer.write(write_request(Request("a" * 64)))
    assert await head(reader) == (Status.MISSING, 0)
    writer.write(write_request(Request(sha, 1_000_001)))
    assert await head(reader) == (Status.BAD, 0)
    assert await quick(reader.read()) == b""
    writer.close()
    assert server.counters.missing == 1 and server.counters.malformed == 1


async def test_one_too_many_hears_busy(holder: Holder, store: BlobStore) -> None:
    theirs, server, source = await holder(max_clients=1)
    sha = theirs.put(bytes(64 << 20))  # more than the kernel and both streams hold: the transfer stays open
    _, slow = await ask(source, write_request(Request(sha)))
    reader, writer = await ask(source)
    while True:  # until the server has begun with the first
        writer.write(write_request(Request(sha, 0, 1)))
        status, follows = await head(reader)
        if status is Status.BUSY:
            break
        await quick(reader.readexactly(follows))
    assert server.counters.busy == 1
    slow.transport.abort()
    fetcher = Fetcher(store, connect, pause_s=0.02, attempts=100)
    await quick(fetcher.fetch(sha, 64 << 20, [source]))
    await fetcher.close()
    writer.close()


async def test_a_client_that_takes_nothing_is_left(store: BlobStore, start: Start) -> None:
    server, ended = BlobServer(store, stall_s=0.1), asyncio.Event()

    async def handler(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.serve(hello, reader, writer)
        ended.set()

    sha = store.put(bytes(64 << 20))
    _, writer = await ask(await start(handler), write_request(Request(sha)))
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await quick(ended.wait())
    writer.transport.abort()
    assert server.clients == 0 and server.counters.bytes_sent < 64 << 20 and server.counters.broken == 1


async def test_a_silent_client_is_left(holder: Holder) -> None:
    _, server, source = await holder(idle_s=0.05)
    reader, writer = await ask(source)
    assert await quick(reader.read()) == b""
    writer.close()
    assert server.counters.requests == 0


async def test_close_ends_transfers(holder: Holder) -> None:
    theirs, server, source = await holder()
    sha = theirs.put(bytes(64 << 20))
    reader, writer = await ask(source, write_request(Request(sha)))
    await head(reader)
    server.close()
    assert len(await quick(reader.read())) < 64 << 20
    writer.close()


class Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:  # type: ignore[override]
        self.data += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed


magic = st.sampled_from([b"SWQ1", b"SWQ2", b""])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(words=st.lists(st.tuples(magic, st.binary(max_size=140)), max_size=5), known=st.booleans())
def test_hostile_words_never_crash_it_nor_leave_files(
    store: BlobStore, words: list[tuple[bytes, bytes]], known: bool
) -> None:
    sha = store.put(b"some bytes")
    before = set(store.root.iterdir())

    async def run() -> bytearray:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        pipe = Pipe()
        protocol.connection_made(pipe)
        writer = asyncio.StreamWriter(pipe, protocol, reader, asyncio.get_running_loop())
        for start, rest in words:
            reader.feed_data(start + (bytes.fromhex(sha) if known else b"") + rest)
        reader.feed_eof()
        server = BlobServer(store)
        await quick(server.serve(Hello(Purpose.STORE, ME, b""), reader, writer))
        assert pipe.closed and server.clients == 0
        return pipe.data

    asyncio.run(run())
    assert set(store.root.iterdir()) == before
