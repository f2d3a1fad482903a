"""Gives blobs to other devices of the swarm, one connection each, never faster than they take them."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO

from swisd.core.checked import Malformed
from swisd.store.disk import BlobStore
from swisd.store.ledger import RUSH_S, Ledger
from swisd.store.protocol import (
    REQUEST,
    How,
    Reply,
    Request,
    Status,
    read_request,
    span,
    write_devices,
    write_reply,
)
from swisd.wire.handshake import Hello

CHUNK_BYTES = 256 << 10
SMALL_BYTES = 64 << 10  # a blob up to here is given sooner than talked about


@dataclass(slots=True)
class ServerCounters:
    """What a blob server did since it started."""

    requests: int = 0
    bytes_sent: int = 0
    missing: int = 0
    busy: int = 0
    elsewhere: int = 0
    malformed: int = 0
    broken: int = 0  # transfers that ended early: the client left, stalled, or our disk failed


class BlobServer:
    """Serves the blobs of one store. `serve` is the handler for `Purpose.STORE`.

    At most `max_clients` transfers run at a time, the next one hears BUSY; eight times as many connections
    may be open. A client has `idle_s` seconds between requests and `stall_s` seconds to take each chunk.
    While several want a blob at once it is given to one of them, and the others are sent there; `rush_s`
    seconds without a request end that (see `swisd.store.ledger`).
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        max_clients: int = 16,
        idle_s: float = 30.0,
        stall_s: float = 20.0,
        rush_s: float = RUSH_S,
    ) -> None:
        self.counters = ServerCounters()
        self._store = store
        self._ledger = Ledger(rush_s)
        self._max_clients, self._idle_s, self._stall_s = max_clients, idle_s, stall_s
        self._clients: set[asyncio.Task[None]] = set()
        self._transfers = 0

    @property
    def clients(self) -> int:
        """Connections being served now."""
        return len(self._clients)

    async def serve(self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one proved connection until it ends. Whatever the client does, nothing is raised."""
        task = asyncio.current_task()
        assert task is not None
        crowded = len(self._clients) >= 8 * self._max_clients
        self._clients.add(task)
        try:
            while await self._answer(hello.device, reader, writer, crowded) and not crowded:
                pass
        except Malformed:
            self.counters.malformed += 1
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.counters.broken += 1
            self._ledger.gone(hello.device)
            writer.transport.abort()  # what is still buffered would be taken for an answer
        finally:
            self._clients.discard(task)
            writer.close()

    def close(self) -> None:
        """Break off all transfers."""
        for task in list(self._clients):
            task.cancel()

    async def _answer(
        self, device: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, crowded: bool
    ) -> bool:
        """Answer one request; False when the connection should end."""
        try:
            async with asyncio.timeout(self._idle_s):
                words = await reader.readexactly(REQUEST.size)
        except TimeoutError:
            return False
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise Malformed("half a store request") from None
            return False
        self.counters.requests += 1
        try:
            request = read_request(words)
        except Malformed:
            await self._send(writer, write_reply(Reply(Status.BAD)))
            raise
        if crowded or self._transfers >= self._max_clients:
            self.counters.busy += 1
            await self._send(writer, write_reply(Reply(Status.BUSY)))
            return True
        self._transfers += 1
        try:
            await self._give(request, device, writer)
        finally:
            self._transfers -= 1
        return True

    async def _give(self, request: Request, device: str, writer: asyncio.StreamWriter) -> None:
        opened = self._open(request)
        if isinstance(opened, Status):
            self.counters.missing += opened is Status.MISSING
            await self._send(writer, write_reply(Reply(opened)))
            return
        file, total, have = opened
        with _closing(file):
            ends = span(request, total)
            if ends is None:
                await self._send(writer, write_reply(Reply(Status.BAD)))
                raise Malformed(f"bytes {request.offset} + {request.length} of a blob of {total}")
            if have == total > SMALL_BYTES and request.how is How.ANY:
                now = asyncio.get_running_loop().time()
                others = self._ledger.ask(request.sha, device, request.without, now)
                if others:
                    self.counters.elsewhere += 1
                    names = write_devices(others)
                    await self._send(writer, write_reply(Reply(Status.ELSEWHERE, total, len(names))) + names)
                    return
            start, end = ends[0], min(ends[1], have)
            if start >= end and have < total:
                await self._send(writer, write_reply(Reply(Status.COMING, total)))
                return
            file.seek(start)
            await self._send(writer, write_reply(Reply(Status.OK, total, end - start)))
            while start < end:
                # In a thread: a worn SD card may take long, and tokens are waiting in this event loop.
                chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, end - start))
                if not chunk:
                    raise OSError(f"blob {request.sha[:12]} became shorter while it was read")
                await self._send(writer, chunk)
                start += len(chunk)
                self.counters.bytes_sent += len(chunk)

    def _open(self, request: Request) -> tuple[FileIO, int, int] | Status:
        """A blob's file, its size, and how many of its bytes are here."""
        for _ in range(2):  # a blob that is finished between two looks is seen at the third
            with contextlib.suppress(FileNotFoundError):
                file = FileIO(self._store.path(request.sha), "rb")
                total = file.seek(0, 2)
                return file, total, total
            part = self._store.coming.get(request.sha)
            if part is None or request.how is How.WHOLE:
                return Status.MISSING
            if not part.readable:
                return Status.COMING
            with contextlib.suppress(FileNotFoundError):
                return FileIO(part.path, "rb"), part.total, part.size
        return Status.MISSING

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        async with asyncio.timeout(self._stall_s):
            await writer.drain()


@contextlib.contextmanager
def _closing(file: FileIO) -> Iterator[FileIO]:
    """Close a file that a cancelled `to_thread` may still be reading from: the read then fails harmlessly."""
    try:
        yield file
    finally:
        file.close()
