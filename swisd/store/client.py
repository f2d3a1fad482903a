"""One conversation with one device that may have a blob, over connections that are kept for the next blob."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from swisd.core.checked import Malformed
from swisd.core.errors import WrongKey
from swisd.store.protocol import REPLY, Reply, Request, Status, read_devices, read_reply, write_request

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[str, int], Awaitable[Connection]]
READ_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Source:
    """A device that may have a blob, and where its port is."""

    device: str
    host: str
    port: int


class Why(Enum):
    """Why a source did not give all bytes."""

    MISSING = "does not have it"
    BUSY = "was busy"
    COMING = "was itself waiting for it"
    LOST = "could not be reached or broke off"
    WRONG = "answered nonsense"


class SourceFailed(Exception):
    """A source did not give (all of) what was asked; `why` says whether asking again makes sense."""

    def __init__(self, why: Why, detail: str = "") -> None:
        super().__init__(f"{why.value} ({detail})" if detail else why.value)
        self.why = why


class SentElsewhere(Exception):
    """A source gave the blob to others: one of `devices` is to be asked, the first first."""

    def __init__(self, devices: tuple[str, ...]) -> None:
        super().__init__(", ".join(devices))
        self.devices = devices


class BlobClient:
    """Asks devices for blobs. `dial` proves the key and has its own deadline."""

    def __init__(self, dial: Dial, *, dial_s: float = 5.0, stall_s: float = 10.0) -> None:
        self._dial, self._dial_s, self._stall_s = dial, dial_s, stall_s
        self._idle: dict[tuple[str, int], list[Connection]] = {}

    async def pull(self, source: Source, request: Request, total: int) -> AsyncGenerator[bytes, None]:
        """Bytes of a blob of `total` bytes, as they come: all that `request` names, or the first of them.

        No wait is longer than `stall_s` seconds. Raises `SourceFailed`, and then the bytes until then can be
        kept, and `SentElsewhere`.
        """
        try:
            connection, reply = await self._ask(source, request, total)
            reader, writer = connection
            follows = reply.follows
            try:
                if reply.status is Status.ELSEWHERE:
                    async with asyncio.timeout(self._stall_s):
                        names = await reader.readexactly(follows)
                    follows = 0
                    raise SentElsewhere(read_devices(names))
                if reply.status is not Status.OK:
                    raise SourceFailed(_WHY[reply.status])
                while follows:
                    async with asyncio.timeout(self._stall_s):
                        chunk = await reader.read(min(READ_BYTES, follows))
                    if not chunk:
                        raise SourceFailed(Why.LOST, "broke off in mid-transfer")
                    follows -= len(chunk)
                    yield chunk
            finally:
                if follows:  # the rest would be taken for the next answer
                    writer.transport.abort()
                else:
                    self._idle.setdefault((source.host, source.port), []).append(connection)
        except TimeoutError:
            raise SourceFailed(Why.LOST, f"no bytes for {self._stall_s:g} s") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            raise SourceFailed(Why.LOST, str(error)[:100]) from None

    async def _ask(self, source: Source, request: Request, total: int) -> tuple[Connection, Reply]:
        kept = self._idle.get((source.host, source.port), [])
        while kept:
            connection = kept.pop()
            if not connection[0].at_eof() and not connection[1].is_closing():
                try:
                    return connection, await self._begin(connection, request, total)
                except TimeoutError:  # an OSError, but one that says something: do not wait once more
                    raise
                except (OSError, asyncio.IncompleteReadError):
                    continue  # the other side had closed it meanwhile: says nothing about the blob
        try:
            async with asyncio.timeout(self._dial_s):
                connection = await self._dial(source.host, source.port)
        except TimeoutError:
            raise SourceFailed(Why.LOST, f"no connection within {self._dial_s:g} s") from None
        except WrongKey as error:
            raise SourceFailed(Why.LOST, str(error)) from None
        return connection, await self._begin(connection, request, total)

    async def _begin(self, connection: Connection, request: Request, total: int) -> Reply:
        """Send a request and read the head of the answer."""
        reader, writer = connection
        good = False
        try:
            writer.write(write_request(request))
            async with asyncio.timeout(self._stall_s):
                reply = read_reply(await reader.readexactly(REPLY.size))
            asked = request.length or total - request.offset
            if reply.status is Status.BAD or (reply.status is Status.OK and reply.total != total):
                raise SourceFailed(
                    Why.WRONG, f"{reply.status.name}, a blob of {reply.total} bytes, not {total}"
                )
            if reply.status is Status.OK and not 0 < reply.follows <= asked:
                raise SourceFailed(Why.WRONG, f"{reply.follows} bytes, not {asked}")
            good = True
            return reply
        except Malformed as error:
            raise SourceFailed(Why.WRONG, str(error)) from None
        finally:
            if not good:
                writer.transport.abort()

    def close(self) -> None:
        """Close the connections kept for later."""
        for connections in self._idle.values():
            for _, writer in connections:
                writer.transport.abort()
        self._idle.clear()


_WHY = {Status.MISSING: Why.MISSING, Status.BUSY: Why.BUSY, Status.COMING: Why.COMING}
