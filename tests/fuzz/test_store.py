"""The blob server against mutated requests, and those who fetch against servers that lie."""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from swisd.core.checked import Malformed
from swisd.core.errors import ModelError
from swisd.net.listener import Listener
from swisd.net.secure import dial
from swisd.store.client import BlobClient, Connection, SentElsewhere, Source, SourceFailed
from swisd.store.disk import BlobStore
from swisd.store.fetch import Fetcher
from swisd.store.protocol import (
    REPLY,
    REQUEST,
    Reply,
    Request,
    Status,
    read_request,
    write_reply,
    write_request,
)
from swisd.store.server import BlobServer
from swisd.wire.handshake import Hello, Purpose
from tests.fuzz.mutate import Mutator
from tests.fuzz.pipes import Pipe

pytestmark = pytest.mark.timeout(1800)
KEY, ME, PEER = b"k" * 16, "11" * 8, "22" * 8
HELLO = Hello(Purpose.STORE, PEER, b"")
DATA = bytes(range(256)) * 3
SHA = hashlib.sha256(DATA).hexdigest()
REQUESTS = [
    write_request(Request(SHA)), write_request(Request(SHA, 100, 50)), write_request(Request(SHA, 700)),
    write_request(Request("ab" * 32)),
]  # fmt: skip


def stream(mutator: Mutator) -> bytes:
    """Requests of one connection, most of them changed."""
    parts = [
        mutator.blob(request, REQUESTS) if mutator.random.random() < 0.7 else request
        for request in mutator.random.choices(REQUESTS, k=mutator.random.randint(1, 6))
    ]
    return b"".join(parts)


def answers(words: bytes) -> bytes:
    """What the server must say, from the protocol."""
    said = b""
    for at in range(0, len(words) - REQUEST.size + 1, REQUEST.size):
        try:
            request = read_request(words[at : at + REQUEST.size])
        except Malformed:
            return said + write_reply(Reply(Status.BAD))
        if request.sha != SHA:
            said += write_reply(Reply(Status.MISSING))
            continue
        end = request.offset + request.length if request.length else len(DATA)
        if not request.offset <= end <= len(DATA):
            return said + write_reply(Reply(Status.BAD))
        said += write_reply(Reply(Status.OK, len(DATA), end - request.offset)) + DATA[request.offset : end]
    return said


async def test_requests_in_memory(fuzz_count: int, tmp_path: Path) -> None:
    store, mutator = BlobStore(tmp_path), Mutator(20)
    store.put(DATA)
    server = BlobServer(store)
    while server.counters.requests < fuzz_count:
        pipe, words = Pipe(), stream(mutator)
        for piece in mutator.pieces(words):
            pipe.feed(piece)
        pipe.hang_up()
        before = server.counters.malformed + server.counters.broken
        await asyncio.wait_for(server.serve(HELLO, pipe.reader, pipe.writer), 20)
        expected = answers(words)
        assert bytes(pipe.written) == expected
        bad = len(words) % REQUEST.size or expected.endswith(write_reply(Reply(Status.BAD)))
        assert server.counters.malformed + server.counters.broken - before == bool(bad)
    assert server.clients == 0 and server._transfers == 0
    assert store.blobs() == [SHA]


async def test_requests_over_sockets(fuzz_count: int, tmp_path: Path) -> None:
    store, mutator = BlobStore(tmp_path), Mutator(21)
    store.put(DATA)
    server = BlobServer(store)
    listener = await Listener.start("127.0.0.1", 0, KEY, {Purpose.STORE: server.serve})
    for number in range(fuzz_count // 50 + 1):
        words = stream(mutator) if number else REQUESTS[0]
        reader, writer = await dial("127.0.0.1", listener.port, KEY, PEER, Purpose.STORE)
        writer.write(words)
        writer.write_eof()
        with suppress(ConnectionResetError):  # it was cut with requests unread
            assert answers(words).startswith(await asyncio.wait_for(reader.read(), 20))
        writer.transport.abort()
    client = BlobClient(lambda host, port: dial(host, port, KEY, ME, Purpose.STORE))
    async with aclosing(
        client.pull(Source(PEER, "127.0.0.1", listener.port), Request(SHA), len(DATA))
    ) as pieces:
        assert b"".join([piece async for piece in pieces]) == DATA
    client.close()
    await listener.close()
    assert server.clients == 0


class Liar:
    """A server whose answers to every request are made by `say`; it hangs up after each."""

    def __init__(self, say: Callable[[Request], bytes]) -> None:
        self._say = say
        self.pipes: list[Pipe] = []

    async def dial(self, host: str, port: int) -> Connection:
        pipe = Pipe()

        def asked(words: bytes) -> None:
            if not pipe.reader._eof:  # type: ignore[attr-defined]
                pipe.feed(self._say(read_request(words)))
                pipe.hang_up()

        pipe.on_write = asked
        self.pipes = [each for each in self.pipes if not each.closed]
        self.pipes.append(pipe)
        return pipe.reader, pipe.writer


def right(request: Request) -> bytes:
    end = request.offset + request.length if request.length else len(DATA)
    part = DATA[request.offset : end]
    return write_reply(Reply(Status.OK, len(DATA), len(part))) + part


async def test_answers_that_lie(fuzz_count: int) -> None:
    mutator = Mutator(22)
    others = [write_reply(Reply(status, 768)) for status in Status]
    said: list[bytes] = []

    def lie(request: Request) -> bytes:
        head, data = right(request)[: REPLY.size], right(request)[REPLY.size :]
        said.append(
            mutator.blob(head, others) + (mutator.blob(data) if mutator.random.random() < 0.3 else data)
        )
        return said[-1]

    liar = Liar(lie)
    client = BlobClient(liar.dial, stall_s=20)
    source = Source(PEER, "liar", 1)
    failed = 0
    for _ in range(fuzz_count):
        said.clear()
        got = b""
        try:
            async with aclosing(client.pull(source, Request(SHA), len(DATA))) as pieces:
                async for piece in pieces:
                    got += piece
            assert 0 < len(got) <= len(DATA)  # a holder may send the first part alone; the SHA-256 tells
        except (SourceFailed, SentElsewhere):
            failed += 1
            assert len(got) < len(DATA)
        assert sum(map(len, client._idle.values())) <= 1
    assert failed > fuzz_count // 3
    client.close()


async def test_a_fetcher_keeps_nothing_that_lies(fuzz_count: int, tmp_path: Path) -> None:
    """Whatever the liar gives, the blob comes from the honest device, whole, or not at all."""
    mutator = Mutator(23)
    store = BlobStore(tmp_path)
    liar, honest = Liar(lambda request: mutator.blob(right(request))), Liar(right)

    async def connect(host: str, port: int) -> Connection:
        return await (honest if host == "honest" else liar).dial(host, port)

    fetcher = Fetcher(store, connect, stall_s=20, pause_s=0.0)
    liars = [Source("33" * 8, "liar", 1), Source("44" * 8, "liar", 2)]
    for number in range(fuzz_count // 40):
        alone = number % 2
        try:
            await fetcher.fetch(SHA, len(DATA), [*liars, *([] if alone else [Source(PEER, "honest", 3)])])
            assert store.read(SHA) == DATA
        except ModelError:
            assert alone and not store.has(SHA)
        store.remove(SHA)
        assert not fetcher._jobs
    await fetcher.fetch(SHA, len(DATA), [Source(PEER, "honest", 3)])
    assert store.blobs() == [SHA] and store.part_bytes(SHA) == 0
    await fetcher.close()
