"""Direct TCP lanes: one connection to each peer, made on first use, kept while it works."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from swisd.core.checked import Malformed
from swisd.core.errors import WrongKey
from swisd.net.secure import dial
from swisd.transport import link as links
from swisd.transport.api import LaneDown, OnDown, OnFrame, Probe, packed
from swisd.transport.ear import Ear
from swisd.transport.link import FrameLink
from swisd.transport.outbox import Outbox
from swisd.transport.ping import Pinger, pong
from swisd.wire.frames import Frame, FrameKind, decode
from swisd.wire.handshake import Hello, Purpose

Address = tuple[str, int]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[str, int], Awaitable[Connection]]

PONG_QUEUE_BYTES = 64 << 20  # answers to pings of a peer that does not read are dropped from here on
FIRST_BACKOFF_S = 0.2
LAST_BACKOFF_S = 5.0


@dataclass(eq=False)
class _Peer:
    device: str
    outbox: Outbox
    link: FrameLink | None = None  # where frames to it are written
    links: list[FrameLink] = field(default_factory=list)  # all open ones, oldest first
    connecting: asyncio.Task[None] | None = None
    good_address: Address | None = None
    failures: int = 0
    retry_at: float = 0.0
    reason: str = ""


class TcpLanes:
    """The direct lanes of one device; `serve` is the handler for `Purpose.LANE`.

    `address_of` says where a device may listen, best address first; all are tried, the one that worked last
    time first, `dial_s` seconds each and `connect_s` in all. `send` waits at most `send_s` seconds for a peer
    that reads slowly, then the connection is cut. After a failed connection sends fail at once until a
    backoff of 0.2 to 5 s is over. A connection the peer opened is used too: it may be behind a filter.

    `drops` counts what was refused, by reason. `arriving` is called before a frame is checked, `made` before
    one goes to the system.
    """

    def __init__(
        self,
        key: bytes,
        device: str,
        address_of: Callable[[str], Sequence[Address]],
        on_frame: OnFrame,
        on_down: OnDown,
        *,
        dial_s: float = 2.0,
        connect_s: float = 5.0,
        send_s: float = 10.0,
        answer_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        arriving: Callable[[], None] = lambda: None,
        made: Callable[[], None] = lambda: None,
    ) -> None:
        self.drops: Counter[str] = Counter()
        self._key, self._device = key, device
        self._address_of, self._on_frame, self._on_down = address_of, on_frame, on_down
        self._dial_s, self._connect_s, self._send_s, self._clock = dial_s, connect_s, send_s, clock
        self._arriving, self._made = arriving, made
        self._pinger = Pinger(device, self.drops, answer_s=answer_s)
        self._peers: dict[str, _Peer] = {}
        self._closed = False

    async def send(self, device: str, frame: Frame) -> None:
        """See `Lanes.send`. Raises `LaneDown`."""
        if self.try_send(device, frame):
            return
        buffers, size = packed(frame)
        peer = self._peer(device)
        if peer.link is None:
            self._start_connecting(peer)
        try:
            await peer.outbox.put(buffers, size, self._send_s)
        except TimeoutError:
            reason = f"it did not read for {self._send_s:g} s"
            if peer.link is not None:
                peer.link.abort(reason)
            raise LaneDown(device, reason) from None

    def try_send(self, device: str, frame: Frame) -> bool:
        """See `Lanes.try_send`."""
        peer = self._peers.get(device)
        if peer is None or peer.link is None or not peer.link.writable or peer.outbox:
            return False
        buffers, size = packed(frame)
        self._made()
        peer.link.write(buffers, size)
        return True

    def try_send_threadsafe(self, device: str, buffers: list[memoryview], size: int) -> bool:
        """See `Lanes.try_send_threadsafe`."""
        peer = self._peers.get(device)
        link = peer.link if peer is not None and not peer.outbox else None
        return link is not None and link.write_threadsafe(buffers, size)

    def lend(self, device: str) -> Ear | None:
        """See `Lanes.lend`: where there is one connection, which is the one that is written to at its end."""
        peer = self._peers.get(device)
        return peer.links[0].lend() if peer is not None and len(peer.links) == 1 else None

    async def connect(self, device: str) -> None:
        """Make the connection now, whatever the backoff says. Raises `LaneDown`."""
        peer = self._peer(device)
        if peer.link is None:
            peer.retry_at = 0.0
            self._start_connecting(peer)
            assert peer.connecting is not None
            await asyncio.wait([peer.connecting])  # it has its deadline
            if peer.link is None:
                raise LaneDown(device, peer.reason)

    def connected(self, device: str) -> bool:
        """Whether there is a connection to `device` now."""
        peer = self._peers.get(device)
        return peer is not None and peer.link is not None

    async def probe(self, device: str, payload_bytes: int, count: int) -> Probe:
        """See `Lanes.probe`. Raises `LaneDown`."""
        await self.connect(device)  # or the first ping would measure the handshake
        return await self._pinger.probe(self.send, device, payload_bytes, count)

    async def serve(self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Receive frames on a proved connection that `hello.device` opened, until it ends."""
        if self._closed:
            return
        link = self._new_link(hello.device)
        peer = self._peer(hello.device)
        for older in [one for one in peer.links if one.accepted]:
            older.abort("replaced by a newer connection")  # it has restarted, or its side was cut
        link.accepted = True
        peer.links.append(link)
        links.accept(self._device, writer, link)
        try:
            await link.lost  # keep-alive ends it when the peer is gone
        finally:
            link.abort("closed")

    async def close(self) -> None:
        """Close all connections; who still waits to send gets `LaneDown`."""
        self._closed = True
        waits: list[asyncio.Future[None]] = []
        for peer in list(self._peers.values()):
            peer.outbox.fail("this device is leaving")
            self._pinger.lost(peer.device, "this device is leaving")
            if peer.connecting is not None:
                peer.connecting.cancel()
                waits.append(peer.connecting)
            for link in list(peer.links):
                link.abort("closed")
                waits.append(link.lost)
        if waits:
            await asyncio.wait(waits, timeout=2)

    def _peer(self, device: str) -> _Peer:
        peer = self._peers.get(device)
        if peer is None:
            peer = self._peers[device] = _Peer(device, Outbox(device))
        return peer

    def _new_link(self, device: str) -> FrameLink:
        return FrameLink(device, self._arrived, self._ready, self._lost, stall_s=2 * self._send_s)

    def _start_connecting(self, peer: _Peer) -> None:
        if self._closed:
            raise LaneDown(peer.device, "this device is leaving")
        if peer.connecting is None:
            if (wait := peer.retry_at - self._clock()) > 0:
                raise LaneDown(peer.device, f"{peer.reason}; next attempt in {wait:.1f} s")
            name = f"lane to {peer.device}"
            peer.connecting = asyncio.create_task(self._connect(peer), name=name)

    async def _connect(self, peer: _Peer) -> None:
        addresses = list(self._address_of(peer.device))
        if peer.good_address in addresses:
            addresses.remove(peer.good_address)
            addresses.insert(0, peer.good_address)
        said = [] if addresses else ["no address of it is known"]
        try:
            async with asyncio.timeout(self._connect_s):
                for address in addresses:
                    try:
                        await self._connect_to(peer, address)
                    except (OSError, asyncio.IncompleteReadError, WrongKey, LaneDown) as error:
                        why = error.reason if isinstance(error, LaneDown) else str(error)
                        said.append(f"{address[0]}:{address[1]} {why}")
                    else:
                        peer.good_address, peer.failures = address, 0
                        peer.connecting = None
                        self._flush(peer)
                        return
        except TimeoutError:
            said.append(f"no connection within {self._connect_s:g} s")
        finally:
            peer.connecting = None
        self._failed(peer, "; ".join(said))

    async def _connect_to(self, peer: _Peer, address: Address) -> None:
        reader, writer = await dial(*address, self._key, self._device, Purpose.LANE, timeout=self._dial_s)
        link = self._new_link(peer.device)
        try:
            async with asyncio.timeout(self._dial_s):
                await links.connect(peer.device, reader, writer, link)
        finally:
            if not link.writable:
                writer.transport.abort()
        peer.links.append(link)
        if peer.link is None:  # else it connected to us meanwhile: changing over could reorder frames
            peer.link = link

    def _failed(self, peer: _Peer, reason: str) -> None:
        backoff = min(FIRST_BACKOFF_S * 2**peer.failures, LAST_BACKOFF_S)
        peer.failures = min(peer.failures + 1, 16)
        peer.retry_at = self._clock() + backoff
        peer.reason = reason
        if peer.link is None:  # the peer may have connected to us meanwhile
            peer.outbox.fail(reason)

    # What links call.

    def _ready(self, link: FrameLink) -> None:
        peer = self._peer(link.device)
        if peer.link is None:
            peer.link = link
        self._flush(peer)

    def _flush(self, peer: _Peer) -> None:
        link = peer.link
        if link is not None:
            peer.outbox.flush(lambda: link.writable, link.write)

    def _lost(self, link: FrameLink, reason: str) -> None:
        peer = self._peer(link.device)
        if link in peer.links:
            peer.links.remove(link)
        if peer.link is link:
            peer.link = next((one for one in reversed(peer.links) if one.writable), None)
            peer.outbox.fail(reason)
        if link.impossible:
            self.drops["impossible length"] += 1
        if not self._closed:
            self._pinger.lost(link.device, reason)
            self._on_down(link.device, reason)

    def _arrived(self, link: FrameLink, data: bytes | bytearray) -> None:
        self._arriving()
        try:
            frame = decode(memoryview(data))
        except Malformed as error:
            self.drops["malformed frame"] += 1
            link.abort(f"it sent a malformed frame ({error})")
            return
        if frame.sender != link.device:
            self.drops["frame of another sender"] += 1
            link.abort(f"it sent a frame in the name of {frame.sender}")
        elif frame.kind is FrameKind.PING:
            self._answer(link, frame)
        elif frame.kind is FrameKind.PONG:
            self._pinger.arrived(link.device, frame)
        else:
            self._on_frame(link.device, frame)

    def _answer(self, link: FrameLink, frame: Frame) -> None:
        buffers, size = packed(pong(self._device, frame))
        if link.queued_bytes + size > PONG_QUEUE_BYTES:
            self.drops["pong to a peer that does not read"] += 1
        else:
            link.write(buffers, size)  # before what waits: the link is measured, not our queue
