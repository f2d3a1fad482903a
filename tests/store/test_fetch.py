import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from swisd.core.errors import ModelError, WrongKey
from swisd.core.model import Blob
from swisd.store import parts
from swisd.store.client import Connection, Source
from swisd.store.disk import BlobStore, StoreFull
from swisd.store.fetch import Fetcher
from swisd.store.protocol import REQUEST, Reply, Status, read_request, write_reply
from swisd.store.server import BlobServer
from swisd.wire.handshake import Hello

from .conftest import Start, bytes_of, connect, quick

Holder = Callable[..., Awaitable[tuple[BlobStore, BlobServer, Source]]]
SIZE = 5_000_000
DATA = bytes_of(1, SIZE)
SHA = hashlib.sha256(DATA).hexdigest()


class Flawed:
    """A store handler that gives `limit` bytes on a connection, then hangs up, or hangs."""

    def __init__(self, data: bytes, limit: int | None = None, hang: bool = False) -> None:
        self.data, self.limit, self.hang = data, limit, hang
        self.offsets: list[int] = []
        self.given = 0

    async def __call__(
        self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        left = len(self.data) if self.limit is None else self.limit
        while True:
            request = read_request(await reader.readexactly(REQUEST.size))
            self.offsets.append(request.offset)
            body = self.data[request.offset :][: request.length or None]
            writer.write(write_reply(Reply(Status.OK, len(self.data), len(body))) + body[:left])
            self.given += len(body[:left])
            await writer.drain()
            left -= len(body[:left])
            if not left and self.hang:
                await asyncio.sleep(60)
            if not left:
                return


def files(store: BlobStore) -> set[str]:
    return {path.name for path in store.root.iterdir()}


def nowhere() -> Source:
    return Source("ff" * 8, "127.0.0.1", 1)


async def test_fetch(store: BlobStore, fetcher: Fetcher, holder: Holder) -> None:
    theirs, server, source = await holder()
    theirs.put(DATA)
    seen: list[int] = []
    await quick(fetcher.fetch(SHA, SIZE, [source], seen.append))
    assert store.read(SHA) == DATA and sum(seen) == SIZE and files(store) == {SHA}
    await quick(fetcher.fetch(SHA, SIZE, [], seen.append))
    assert sum(seen) == 2 * SIZE and server.counters.bytes_sent == SIZE


async def test_an_empty_blob(store: BlobStore, fetcher: Fetcher, holder: Holder) -> None:
    theirs, _, source = await holder()
    sha = theirs.put(b"")
    await quick(fetcher.fetch(sha, 0, [source]))
    assert store.read(sha) == b""


@pytest.mark.parametrize("hang", [False, True])
async def test_a_broken_transfer_is_resumed_elsewhere(
    store: BlobStore, holder: Holder, start: Start, hang: bool
) -> None:
    fetcher = Fetcher(store, connect, stall_s=0.3 if hang else 5, pause_s=0.01)
    broken = Flawed(DATA, 2_000_000, hang)
    first = await start(broken)
    theirs, server, second = await holder()
    theirs.put(DATA)
    seen: list[int] = []
    await quick(fetcher.fetch(SHA, SIZE, [nowhere(), first, second], seen.append))
    assert store.read(SHA) == DATA and sum(seen) == SIZE and min(seen) >= 0
    assert broken.given == 2_000_000 and server.counters.bytes_sent == SIZE - 2_000_000
    await fetcher.close()


async def test_a_lonely_source_that_breaks_off_is_asked_again(
    store: BlobStore, fetcher: Fetcher, start: Start
) -> None:
    broken = Flawed(DATA, 1_200_000)
    await quick(fetcher.fetch(SHA, SIZE, [await start(broken)]))
    assert {0, 1_200_000, 2_400_000, 3_600_000, 4_800_000} <= set(broken.offsets) and broken.given == SIZE
    assert store.read(SHA) == DATA


async def test_a_transfer_is_resumed_after_a_restart(
    store: BlobStore, fetcher: Fetcher, holder: Holder, start: Start
) -> None:
    source = await start(Flawed(DATA, 500_000))
    with pytest.raises(ModelError, match="broke off"):
        await quick(Fetcher(store, connect, pause_s=0.01, attempts=2).fetch(SHA, SIZE, [source]))
    assert store.part_bytes(SHA) == 1_000_000 and files(store) == {f"{SHA}.part"}
    theirs, server, second = await holder()
    theirs.put(DATA)
    await quick(fetcher.fetch(SHA, SIZE, [second]))
    assert store.read(SHA) == DATA and server.counters.bytes_sent == SIZE - 1_000_000


async def test_bad_bytes_then_a_good_source(
    store: BlobStore, fetcher: Fetcher, holder: Holder, start: Start
) -> None:
    bad = Flawed(bytes(SIZE))
    first = await start(bad)
    theirs, _, second = await holder()
    theirs.put(DATA)
    seen: list[int] = []
    await quick(fetcher.fetch(SHA, SIZE, [first, second], seen.append))
    assert store.read(SHA) == DATA and sum(seen) == SIZE
    assert min(seen) == -SIZE and bad.given <= 2 * SIZE


async def test_a_blob_put_together_from_good_and_bad(
    store: BlobStore, fetcher: Fetcher, start: Start
) -> None:
    """Who lied cannot be known, so each is asked for the whole; the honest one must still win."""
    honest, liar = Flawed(DATA), Flawed(bytes(SIZE), 2_000_000)
    await quick(fetcher.fetch(SHA, SIZE, [await start(liar), await start(honest)]))
    assert store.read(SHA) == DATA and 0 in honest.offsets


async def test_a_rotten_leftover_does_not_blame_an_honest_source(
    store: BlobStore, fetcher: Fetcher, holder: Holder
) -> None:
    (store.root / f"{SHA}.part").write_bytes(b"rotten")
    theirs, _, source = await holder()
    theirs.put(DATA)
    await quick(fetcher.fetch(SHA, SIZE, [source]))
    assert store.read(SHA) == DATA


async def test_all_give_bad_bytes(store: BlobStore, fetcher: Fetcher, start: Start) -> None:
    sources = [await start(Flawed(bytes([number]) * SIZE)) for number in range(2)]
    with pytest.raises(
        ModelError, match=r"(?s)0101010101010101 gave bad bytes.*0202020202020202 gave bad bytes"
    ):
        await quick(fetcher.fetch(SHA, SIZE, sources))
    assert files(store) == set()


async def test_missing_everywhere(store: BlobStore, fetcher: Fetcher, holder: Holder) -> None:
    sources = [(await holder())[2], (await holder())[2]]
    with pytest.raises(ModelError, match=f"{SHA[:12]}.*does not have it.*does not have it"):
        await quick(fetcher.fetch(SHA, SIZE, sources))
    with pytest.raises(ModelError, match="no device that is up"):
        await quick(fetcher.fetch(SHA, SIZE, []))
    assert files(store) == set()


async def test_a_blob_of_another_size_is_not_taken(
    store: BlobStore, fetcher: Fetcher, holder: Holder
) -> None:
    theirs, _, source = await holder()
    theirs.put(DATA)
    with pytest.raises(ModelError, match="answered nonsense"):
        await quick(fetcher.fetch(SHA, SIZE - 1, [source]))
    assert files(store) == set()


async def test_nonsense_is_not_asked_twice(store: BlobStore, fetcher: Fetcher, start: Start) -> None:
    calls = 0

    async def babble(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n<html></html>")

    with pytest.raises(ModelError, match="answered nonsense"):
        await quick(fetcher.fetch(SHA, SIZE, [await start(babble)]))
    assert calls == 1


async def test_dial_that_fails_or_never_ends(store: BlobStore) -> None:
    async def dial(host: str, port: int) -> Connection:
        if port == 1:
            raise WrongKey("another swarm")
        if port == 2:
            raise ConnectionRefusedError("refused")
        await asyncio.Event().wait()
        raise AssertionError

    fetcher = Fetcher(store, dial, dial_s=0.05, pause_s=0.01)
    sources = [Source(f"{port:02}" * 8, "127.0.0.1", port) for port in (1, 2, 3)]
    with pytest.raises(ModelError, match=r"another swarm.*refused.*no connection within 0.05 s"):
        await quick(fetcher.fetch(SHA, SIZE, sources))


async def test_a_device_that_freezes_is_waited_for_once(store: BlobStore, start: Start) -> None:
    """Not once for each connection that was kept from before."""
    frozen, asked, data = False, 0, bytes_of(2, 100)

    async def serve(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            request = read_request(await reader.readexactly(REQUEST.size))
            if frozen:
                asked += 1
                await asyncio.sleep(60)
            await both.wait() if request.sha == SHA else both.set()
            body = data if request.sha != SHA else DATA[request.offset :][: request.length]
            writer.write(write_reply(Reply(Status.OK, len(data if request.sha != SHA else DATA), len(body))))
            writer.write(body)

    both = asyncio.Event()
    source = await start(serve)
    fetcher = Fetcher(store, connect, stall_s=0.3, attempts=1, pause_s=0.01)
    sha = hashlib.sha256(data).hexdigest()
    await quick(asyncio.gather(fetcher.fetch(SHA, SIZE, [source]), fetcher.fetch(sha, 100, [source])))
    frozen = True
    with pytest.raises(ModelError, match=r"no bytes for 0\.3 s"):
        await quick(fetcher.fetch("ab" * 32, 100, [source]))
    assert asked == 1
    await fetcher.close()


async def test_a_trickle_is_too_slow(store: BlobStore, start: Start) -> None:
    async def trickle(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = read_request(await reader.readexactly(REQUEST.size))
        writer.write(write_reply(Reply(Status.OK, SIZE, request.length)))
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    fetcher = Fetcher(store, connect, dial_s=0.2, stall_s=0.1, min_rate=1e9, attempts=1)
    with pytest.raises(ModelError, match="too slow"):
        await quick(fetcher.fetch(SHA, SIZE, [await start(trickle)]))


async def test_one_blob_wanted_twice_is_fetched_once(
    store: BlobStore, fetcher: Fetcher, holder: Holder
) -> None:
    theirs, server, source = await holder()
    theirs.put(DATA)
    seen: tuple[list[int], list[int]] = ([], [])
    await quick(asyncio.gather(*(fetcher.fetch(SHA, SIZE, [source], one.append) for one in seen)))
    assert store.read(SHA) == DATA and server.counters.bytes_sent == SIZE
    assert [sum(one) for one in seen] == [SIZE, SIZE]


async def test_two_processes_fetch_one_blob(store: BlobStore, fetcher: Fetcher, holder: Holder) -> None:
    theirs, _, source = await holder()
    theirs.put(DATA)
    other = Fetcher(BlobStore(store.root), connect)
    await quick(asyncio.gather(*(one.fetch(SHA, SIZE, [source]) for one in (fetcher, other))))
    await other.close()
    assert store.read(SHA) == DATA and files(store) == {SHA}


async def test_giving_up_stops_the_transfer_only_for_the_last(store: BlobStore, start: Start) -> None:
    fetcher = Fetcher(store, connect)
    hanging = Flawed(DATA, 1_500_000, hang=True)
    source = await start(hanging)
    began = asyncio.Event()

    def progress(count: int) -> None:
        if count:
            began.set()

    one = asyncio.create_task(fetcher.fetch(SHA, SIZE, [source], progress))
    two = asyncio.create_task(fetcher.fetch(SHA, SIZE, [source]))
    await quick(began.wait())
    one.cancel()
    await quick(asyncio.wait([one]))
    assert not two.done() and len(fetcher._jobs) == 1
    two.cancel()
    await quick(asyncio.wait([two]))
    assert two.cancelled() and not fetcher._jobs
    assert store.part_bytes(SHA) == 1_500_000  # all that came is kept
    await quick(fetcher.close())


async def test_close_stops_transfers(store: BlobStore, fetcher: Fetcher, start: Start) -> None:
    began = asyncio.Event()
    source = await start(Flawed(DATA, 1_500_000, hang=True))
    task = asyncio.create_task(
        fetcher.fetch(SHA, SIZE, [source], lambda count: began.set() if count else None)
    )
    await quick(began.wait())
    await quick(fetcher.close())
    await quick(asyncio.wait([task]))
    assert task.cancelled()


async def test_disk_full(
    store: BlobStore, fetcher: Fetcher, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, _, source = await holder()
    theirs.put(DATA)

    class FullDisk(parts.FileIO):
        def write(self, data: object) -> int:
            if self.tell() > 2_000_000:
                raise OSError(28, "No space left on device")
            return super().write(data)  # type: ignore[call-overload]

    monkeypatch.setattr(parts, "FileIO", FullDisk)
    with pytest.raises(StoreFull, match="disk is full"):
        await quick(fetcher.fetch(SHA, SIZE, [source]))
    assert files(store) == set()


async def test_broken_disk_is_an_error_for_people(
    store: BlobStore, fetcher: Fetcher, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, _, source = await holder()
    theirs.put(DATA)

    class BrokenDisk(parts.FileIO):
        def write(self, data: object) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(parts, "FileIO", BrokenDisk)
    with pytest.raises(ModelError, match=r"cannot be written.*Input/output error"):
        await quick(fetcher.fetch(SHA, SIZE, [source]))


async def test_fetch_all_spreads_the_load(store: BlobStore, fetcher: Fetcher, holder: Holder) -> None:
    datas = [bytes_of(number, 300_000) for number in range(12)]
    blobs = [Blob(hashlib.sha256(data).hexdigest(), len(data)) for data in datas]
    holders = [await holder() for _ in range(3)]
    for theirs, _, _ in holders:
        for data in datas:
            theirs.put(data)
    seen: list[int] = []
    sources = [source for _, _, source in holders]
    await quick(fetcher.fetch_all([*blobs, blobs[0]], lambda _: sources, parallel=3, progress=seen.append))
    assert all(store.verify(blob.sha256) for blob in blobs) and sum(seen) == 12 * 300_000
    assert [server.counters.requests for _, server, _ in holders] == [4, 4, 4]


async def test_fetch_all_when_one_is_nowhere(store: BlobStore, fetcher: Fetcher, holder: Holder) -> None:
    theirs, _, source = await holder()
    blobs = [Blob(theirs.put(bytes_of(number, 300_000)), 300_000) for number in range(6)]
    blobs.insert(2, Blob(SHA, SIZE))
    with pytest.raises(ModelError, match=SHA[:12]):
        await quick(fetcher.fetch_all(blobs, lambda sha: [] if sha == SHA else [source]))
    assert not store.has(SHA)
    await quick(fetcher.fetch_all([], lambda _: []))


async def test_fetch_all_without_room(
    store: BlobStore, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BlobStore, "free_bytes", lambda _: 1 << 20)
    with pytest.raises(StoreFull, match=r"1 blobs: 4\.8 MiB needed, 1\.0 MiB free"):
        await quick(fetcher.fetch_all([Blob(SHA, SIZE)], lambda _: []))


async def test_a_shortened_blob_is_fetched_again(
    store: BlobStore, fetcher: Fetcher, holder: Holder, tmp_path: Path
) -> None:
    theirs, _, source = await holder()
    theirs.put(DATA)
    store.path(SHA).write_bytes(DATA[:100])
    await quick(fetcher.fetch(SHA, SIZE, [source]))
    assert store.read(SHA) == DATA
