"""One blob from several devices at once into one part file.

The blob is asked for in pieces. Each device that gives is asked for the next piece as soon as it has given
one, so a fast one gives more. Pieces may come in any order, but only `WINDOW_BYTES` ahead of the first that
is missing, and the file grows from its beginning: so it can be hashed as it grows, resumed later, and passed
on to others while it is not whole yet.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from swisd.store.client import BlobClient, SentElsewhere, Source, SourceFailed, Why
from swisd.store.parts import Part
from swisd.store.protocol import MAX_WITHOUT, How, Request

PIECE_BYTES = 1 << 20
WINDOW_BYTES = 8 << 20
BUFFER_BYTES = 1 << 20  # one trip to the disk and the hash for each so many bytes,
FLUSH_S = 0.5  # or after so many seconds
WIDTH = 4  # devices that are asked at a time
SLOW = 8  # times slower than the device that named it: then it is not waited for
HELP_S = 2.0  # a device that has nothing to do for so long is asked for the piece that all wait for

Holder = tuple[str, tuple[Source, ...]]
"""A device and its addresses, the best first."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a device is asked that gives nothing, in seconds.

    `stall_s` without a byte of what it is getting itself, `busy_s` while it has too many clients, `slack_s`
    and the piece's bytes at `min_rate` bytes/s for a piece; `poll_s` between two questions.
    """

    stall_s: float = 10.0
    busy_s: float = 60.0
    slack_s: float = 25.0
    min_rate: float = 16 << 10
    poll_s: float = 0.1


@dataclass(slots=True)
class Manners:
    """What the transfers of one device share: whom to find where, and who is left in peace for a while."""

    client: BlobClient
    book: Callable[[str], Sequence[Source]]  # the addresses of a device that another one named
    patience: Patience = field(default_factory=Patience)
    shunned: dict[str, float] = field(default_factory=dict)  # device: until when, in the loop's time

    rates: dict[str, float] = field(default_factory=dict)  # bytes/s at which a device gives a piece

    SHUN_S = 30.0

    def note_rate(self, device: str, amount: int, began: float) -> None:
        """A piece of so many bytes came, asked for at `began`."""
        if amount >= PIECE_BYTES // 4:  # of small ones the way there and back is the larger part
            rate = amount / max(asyncio.get_running_loop().time() - began, 1e-6)
            self.rates[device] = 0.8 * self.rates.get(device, rate) + 0.2 * rate

    def addresses(self, device: str, now: float) -> tuple[Source, ...]:
        """Where a named device is; nowhere if it is unknown or failed just now."""
        return () if self.shunned.get(device, now) > now else tuple(self.book(device))

    def shun(self, device: str, now: float) -> None:
        """Send nobody's requests to a device that was named and gave nothing."""
        self.shunned = {one: until for one, until in self.shunned.items() if until > now}
        self.shunned[device] = now + self.SHUN_S


class Gathering:
    """Fills `part` up to `size` bytes. `grew` gets the bytes that came to the disk.

    `waits` is called when no bytes come because others must have the blob first: time to begin with another.
    With `whole` only devices that have checked all of the blob are asked, and nobody is asked instead.
    """

    def __init__(
        self, manners: Manners, part: Part, size: int, grew: Callable[[int], None],
        waits: Callable[[], None], *, whole: bool = False,
    ) -> None:  # fmt: skip
        self.givers: set[str] = set()
        self.said: dict[str, str] = {}  # what each device did, for the error
        self.out: set[str] = set()  # devices not to be asked again
        self._manners, self._part, self._size = manners, part, size
        self._grew, self._waits = grew, waits
        self._how = How.WHOLE if whole else How.ANY
        self._edge = part.size  # bytes up to here are in the file or in `_ready`
        self._next = part.size  # bytes from here on nobody was asked for
        self._back: list[tuple[int, int]] = []  # a heap of ranges that were asked for and did not come
        self._asked: dict[object, tuple[int, int]] = {}  # ranges under way
        self._early: list[tuple[int, int, bytes]] = []  # a heap of bytes beyond the edge
        self._order = count()
        self._ready: list[bytes] = []  # for the disk
        self._held = 0
        self._writing: asyncio.Task[None] | None = None
        self._flushed = 0.0
        self._due = False  # bytes are to be written even if they are few: others may be waiting for them
        self._moved = asyncio.Event()  # set, and a new one made, when a piece ended
        self._failed: dict[str, None] = {}  # devices that were named and did not deliver
        self._drawing: set[str] = set()

    async def round(self, holders: Iterable[Holder]) -> bool:
        """Ask the holders until all bytes are on disk, or each of them failed; whether they are.

        Raises `OSError` and `StoreFull`; what came until then is kept.
        """
        waiting = [holder for holder in holders if holder[0] not in self.out]
        tasks: set[asyncio.Task[None]] = set()
        try:
            while self._edge < self._size:
                pieces = -(-(self._size - self._edge) // PIECE_BYTES)
                while waiting and len(tasks) < min(WIDTH, pieces):
                    tasks.add(asyncio.create_task(self._draw(*waiting.pop(0), self._how)))
                if not tasks:
                    break
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=5)
            await self._settle()
        return self._part.size == self._size

    async def _draw(
        self, device: str, addresses: Sequence[Source], how: How, *, waits_s: float = 0.0, rate: float = 0.0
    ) -> None:
        """Take pieces from one device until it fails or there is nothing left to ask for.

        It may give nothing for `waits_s` seconds, as it waits for the bytes itself, and must not be much
        slower than `rate` bytes/s.
        """
        if device in self._drawing:
            return
        self._drawing.add(device)
        loop, patience = asyncio.get_running_loop(), self._manners.patience
        limits = {Why.COMING: waits_s or patience.stall_s, Why.BUSY: patience.busy_s}
        left = list(addresses)
        began = heard = loop.time()
        given = 0
        try:
            while left and (piece := await self._take()) is not None:
                try:
                    came = await self._piece(device, left[0], how, *piece)
                    if came is None:
                        return
                    heard, given = loop.time(), given + came
                    if heard - began > patience.stall_s and given * SLOW < rate * (heard - began):
                        raise SourceFailed(Why.LOST, "too slow")
                except SentElsewhere as other:
                    if how is not How.ANY:
                        raise SourceFailed(Why.WRONG, "names others where it should not") from None
                    await self._follow(device, other.devices)
                    heard = loop.time()
                except SourceFailed as failure:
                    if failure.why is Why.LOST and device not in self.givers:
                        self.said[device] = str(failure)
                        left.pop(0)  # another address may work
                    elif loop.time() - heard < limits.get(failure.why, 0.0):
                        self._tell_waiting()
                        await asyncio.sleep(patience.poll_s)
                    else:
                        raise
        except SourceFailed as failure:
            self.said[device] = str(failure)
            if failure.why in (Why.MISSING, Why.WRONG):
                self.out.add(device)
        finally:
            self._drawing.discard(device)

    async def _follow(self, teller: str, devices: Sequence[str]) -> None:
        """Take pieces from the first of these that is known, as `teller` said."""
        loop, manners = asyncio.get_running_loop(), self._manners
        fresh = [device for device in devices if device not in self._failed]
        if not fresh:
            raise SourceFailed(Why.WRONG, "names only devices that did not deliver")
        self._tell_waiting()
        for device in fresh:
            if device in self._drawing:  # two devices named it
                await asyncio.sleep(manners.patience.poll_s)
                return
            addresses = manners.addresses(device, loop.time())
            if addresses:
                # Who came later has more devices before it and waits longer: they find out sooner that one
                # of them is stuck, and then it is not asked for in vain.
                waits_s = len(devices) * manners.patience.stall_s
                rate = manners.rates.get(teller, 0.0)
                await self._draw(device, addresses, How.SENT, waits_s=waits_s, rate=rate)
                if self._edge < self._size:
                    manners.shun(device, loop.time())
            self._failed[device] = None
            if addresses:
                return  # the teller may know better by now

    async def _piece(self, device: str, source: Source, how: How, start: int, end: int) -> int | None:
        """Ask for a range: how many bytes came, None if others were faster.

        What does not come is for the next to ask for.
        """
        began = asyncio.get_running_loop().time()
        token, at = object(), start
        self._asked[token] = start, end
        patience = self._manners.patience
        if how is How.ANY and len(self._failed) > MAX_WITHOUT:
            how = How.WHOLE  # they do not fit a request any more: no further names
        without = tuple(self._failed) if how is How.ANY else ()
        request = Request(self._part.sha, start, end - start, how, without)
        pull = self._manners.client.pull(source, request, self._size)
        try:
            async with asyncio.timeout(patience.slack_s + (end - start) / patience.min_rate), aclosing(pull):
                async for chunk in pull:
                    self.givers.add(device)
                    self._accept(at, chunk)
                    at += len(chunk)
                    await self._spill()
                    if self._edge >= end > at:
                        return None
            self._manners.note_rate(device, at - start, began)
            await self._spill(due=True)
        except TimeoutError:
            raise SourceFailed(Why.LOST, "too slow") from None
        finally:
            del self._asked[token]
            if at < end:
                heappush(self._back, (at, end))
            self._moved.set()
            self._moved = asyncio.Event()
        return at - start

    async def _take(self) -> tuple[int, int] | None:
        """The next range to ask for; None when all is there."""
        while self._edge < self._size:
            while self._back:
                start, end = heappop(self._back)
                if end > self._edge:
                    return max(start, self._edge), end
            if self._next < min(self._size, self._edge + WINDOW_BYTES):
                start, self._next = self._next, min(self._next + PIECE_BYTES, self._size)
                return start, self._next
            try:
                async with asyncio.timeout(HELP_S):
                    await self._moved.wait()
            except TimeoutError:
                first = [end for start, end in self._asked.values() if start <= self._edge < end]
                if len(first) == 1:
                    return self._edge, first[0]
        return None

    def _accept(self, at: int, chunk: bytes) -> None:
        heappush(self._early, (at, next(self._order), chunk))
        while self._early and self._early[0][0] <= self._edge:
            at, _, chunk = heappop(self._early)
            if fresh := chunk[self._edge - at :]:
                self._ready.append(fresh)
                self._held += len(fresh)
                self._edge += len(fresh)

    def _tell_waiting(self) -> None:
        if not self._asked:
            self._waits()

    async def _spill(self, due: bool = False) -> None:
        """Write what has come, in a thread while the next bytes arrive, once it is enough or `due`."""
        now = asyncio.get_running_loop().time()
        self._due = self._due or due or now - self._flushed > FLUSH_S
        if self._writing is not None and self._writing.done():
            self._writing.result()
            self._writing = None
        if self._writing is None:
            if self._held >= BUFFER_BYTES or self._due:
                self._flushed = now
                self._writing = asyncio.create_task(self._write())
        elif self._held >= 2 * BUFFER_BYTES:  # the disk is slower than the network
            await asyncio.wait([self._writing])  # a write to the disk ends by itself

    async def _settle(self) -> None:
        """Write the rest. Raises what the disk said."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
            self._writing.result()
            self._writing = None
        self._due = True
        await self._write()

    async def _write(self) -> None:
        while self._held >= BUFFER_BYTES or (self._due and self._ready):
            pieces, self._ready, self._held, self._due = self._ready, [], 0, False
            before = self._part.size
            try:
                await asyncio.to_thread(self._part.write, pieces)
            finally:
                self._grew(self._part.size - before)
