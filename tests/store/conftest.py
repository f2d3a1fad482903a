import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from swisd.net.listener import Handler, Listener
from swisd.net.secure import dial
from swisd.store.client import Connection, Source
from swisd.store.disk import BlobStore
from swisd.store.fetch import Fetcher
from swisd.store.server import BlobServer
from swisd.wire.handshake import Purpose

KEY = b"k" * 16
ME = "00" * 8
Start = Callable[[Handler], Awaitable[Source]]


def connect(host: str, port: int) -> Awaitable[Connection]:
    return dial(host, port, KEY, ME, Purpose.STORE, timeout=5)


def bytes_of(seed: int, size: int) -> bytes:
    """Reproducible bytes that do not repeat at a chunk's length."""
    return b"".join((seed * 1_000_003 + number).to_bytes(8, "little") for number in range(size // 8 + 1))[
        :size
    ]


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "mine")


@asynccontextmanager
async def served(handler: Handler, device: str) -> AsyncIterator[Source]:
    listener = await Listener.start("127.0.0.1", 0, KEY, {Purpose.STORE: handler})
    try:
        yield Source(device, "127.0.0.1", listener.port)
    finally:
        await listener.close()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start store handlers on loopback; the sources are named 01.., 02.., in order."""
    open_ones = []

    async def one(handler: Handler) -> Source:
        context = served(handler, f"{len(open_ones) + 1:02}" * 8)
        open_ones.append(context)
        return await context.__aenter__()

    yield one
    for context in open_ones:
        await context.__aexit__(None, None, None)


@pytest.fixture
async def holder(
    tmp_path: Path, start: Start
) -> Callable[..., Awaitable[tuple[BlobStore, BlobServer, Source]]]:
    """Another device with a store of its own."""
    count = 0

    async def one(**options: float) -> tuple[BlobStore, BlobServer, Source]:
        nonlocal count
        count += 1
        theirs = BlobStore(tmp_path / f"theirs{count}")
        server = BlobServer(theirs, **options)  # type: ignore[arg-type]
        return theirs, server, await start(server.serve)

    return one


@pytest.fixture
async def fetcher(store: BlobStore) -> AsyncIterator[Fetcher]:
    one = Fetcher(store, connect, dial_s=5, stall_s=5, pause_s=0.01)
    yield one
    await one.close()


quick = partial(asyncio.wait_for, timeout=20)
