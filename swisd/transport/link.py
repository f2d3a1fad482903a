"""One TCP connection that carries frames, whichever side opened it.

Each frame is preceded by its length (4 bytes, little-endian). After the proof of the key, the two sides say:

    acceptor  -> connector   "SWL1" and its device id: an address may belong to another device by now
    connector -> acceptor    length 0: it is the right one, frames may flow both ways

This exchange also means that neither side's stream has bytes of frames buffered when its protocol is changed
from asyncio's streams to `FrameLink`. That one reads large frames from the socket right into their own
buffer, and wakes no task for a frame: a hop costs a third less than with streams.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from swisd.transport.api import LaneDown
from swisd.transport.ear import Ear
from swisd.wire.frames import HEADER, MAX_FRAME_BYTES

LENGTH = struct.Struct("<I")
READY = b"SWL1"
READY_BYTES = len(READY) + 8
GO = LENGTH.pack(0)

SCRATCH_BYTES = 64 << 10  # frames that fit are cut out of one buffer, larger ones get their own at once
JOIN_BYTES = 64 << 10  # up to here one copy is cheaper than a second system call
HIGH_WATER = 1 << 20
LOST_MS = 10_000  # unacknowledged bytes for so long: the connection is lost, where the platform can tell


class FrameLink(asyncio.BufferedProtocol):
    """Cuts a byte stream into frames and writes frames. All calls are made in the event loop, but for
    `write_threadsafe` and what an `Ear` calls.

    `on_bytes(link, data)` gets each frame's bytes in a buffer of its own; `on_ready(link)` is called when the
    peer reads again; `on_lost(link, reason)` exactly once.
    """

    def __init__(
        self,
        device: str,
        on_bytes: Callable[["FrameLink", bytes | bytearray], None],
        on_ready: Callable[["FrameLink"], None],
        on_lost: Callable[["FrameLink", str], None],
        *,
        stall_s: float = 20.0,
    ) -> None:
        self.device = device
        self.writable = False
        self.accepted = False  # the peer opened it
        self.impossible = False  # it announced a frame of a length that cannot be
        self.reason = ""  # why we closed it, if we did
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_bytes, self._on_ready, self._on_lost = on_bytes, on_ready, on_lost
        self._transport: asyncio.Transport | None = None
        self._streams: asyncio.BaseProtocol | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._stall_s = stall_s
        self._scratch = bytearray(SCRATCH_BYTES)
        self._view = memoryview(self._scratch)
        self._filled = 0
        self._large: bytearray | None = None
        self._large_view = memoryview(b"")
        self._got = 0
        self._stall: asyncio.TimerHandle | None = None
        self._writing = threading.Lock()
        self._socket: socket.socket | None = None  # for other threads than the loop's
        self._rest = b""  # of a frame that another thread began
        self._waits = True  # bytes may wait in asyncio's buffer
        self._ear: Ear | None = None

    def take_over(self, writer: asyncio.StreamWriter, *, writable: bool) -> None:
        """Take a proved connection from asyncio's streams; nothing may be buffered in its reader."""
        self._writer = writer  # it closes the connection when it is collected
        self._transport = cast(asyncio.Transport, writer.transport)
        self._streams = self._transport.get_protocol()
        if self._transport.is_closing():
            self.connection_lost(None)
            return
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        sock = self._transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_MS)
        if sock is not None:
            with suppress(OSError):  # no more files may be open
                self._socket = sock.dup()
                self._ear = Ear(self, self._socket)
        self.writable = writable

    def write(self, buffers: list[memoryview], size: int) -> None:
        """Send a frame of `size` bytes; look at `writable` before. Large buffers are not copied (3.12)."""
        assert self._transport is not None
        with self._writing:
            self._write_rest()
            if size <= JOIN_BYTES:
                self._transport.write(b"".join((LENGTH.pack(size), *buffers)))
            else:
                # Not writelines: it copies all in Python 3.11 and forgets to pause us in 3.12.0 to 3.12.8.
                head, *rest = buffers
                self._transport.write(LENGTH.pack(size) + head)
                for buffer in rest:
                    self._transport.write(buffer)
            self._waits = self.queued_bytes > 0

    def write_threadsafe(self, buffers: list[memoryview], size: int) -> bool:
        """Send a short frame from any thread, if nothing waits to be sent before it.

        False, and nothing is sent, if it must go by `write`. So must the first one behind any that had to
        wait: only the loop knows when asyncio's buffer is empty again.
        """
        if size > JOIN_BYTES:
            return False
        data = b"".join((LENGTH.pack(size), *buffers))
        with self._writing:
            if not self.writable or self._waits or self._socket is None:
                return False
            try:
                sent = self._socket.send(data)
            except OSError:  # the loop finds out what it is, or that the peer reads slowly
                return False
            if sent < len(data):
                self._waits, self._rest = True, data[sent:]
        if sent < len(data):
            self.lost.get_loop().call_soon_threadsafe(self._go_on)
        return True

    def lend(self) -> Ear | None:
        """Let another thread read, until it gives the ear back; None where that cannot be.

        It can where asyncio waits for sockets as other threads do, and not for what it asked the system for.
        """
        if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
            return None
        if self._ear is None or self._transport is None or self._large is not None:
            return None
        if not self._transport.is_reading():
            return None
        self._transport.pause_reading()
        self._ear.lent = True
        return self._ear

    def write_go(self) -> None:
        """The connector's last word before frames."""
        assert self._transport is not None
        self._transport.write(GO)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the peer to read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def abort(self, reason: str) -> None:
        """Cut the connection now; what is buffered is lost."""
        self.reason = self.reason or reason
        self.writable = False
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._large is not None:
            return self._large_view[self._got :]
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._large is not None:
            self._got += nbytes
            if self._got == len(self._large):
                data, self._large, self._large_view = self._large, None, memoryview(b"")
                self._watch_stall(False)
                self._on_bytes(self, data)
            return
        self._filled += nbytes
        self._cut()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        if not self.reason:
            self.writable = True
            self._on_ready(self)

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch_stall(False)
        self.writable = False
        with self._writing:
            self._socket, self._rest = None, b""
            if self._ear is not None:  # it has the same socket
                self._ear.close()
        self._large, self._large_view = None, memoryview(b"")
        if self._streams is not None:  # whoever waits for the stream writer to close
            self._streams.connection_lost(exc)
            self._streams = None
        self._writer = None
        if not self.lost.done():
            self.lost.set_result(None)
            self._on_lost(self, self.reason or (str(exc) if exc else "the other side closed the connection"))

    # What an ear calls: the first three in the thread that listens.

    def free_buffer(self) -> memoryview:
        return self._view[self._filled :]

    def whole_frame(self, nbytes: int) -> bytes | None:
        self._filled += nbytes
        if self._filled < LENGTH.size:
            return b""
        (length,) = LENGTH.unpack_from(self._scratch)
        end = LENGTH.size + length
        if self._filled > end or not HEADER.size <= length <= SCRATCH_BYTES - LENGTH.size:
            return None
        return bytes(self._view[LENGTH.size : end]) if self._filled == end else b""

    def frame_used(self) -> None:
        self._filled = 0

    def returned(self) -> None:
        self._cut()
        if self._transport is not None:
            self._transport.resume_reading()

    def _go_on(self) -> None:
        with self._writing:
            self._write_rest()

    def _write_rest(self) -> None:
        if self._rest and self._transport is not None:
            self._transport.write(self._rest)
        self._rest = b""

    def _cut(self) -> None:
        start = 0
        while self._filled - start >= LENGTH.size and not self.reason:
            (length,) = LENGTH.unpack_from(self._scratch, start)
            begin = start + LENGTH.size
            if length == 0:  # the connector's GO; later a sign of life without meaning
                start = begin
                if not self.writable and self.queued_bytes == 0:
                    self.resume_writing()
                continue
            if not HEADER.size <= length <= MAX_FRAME_BYTES:
                self.impossible = True
                self.abort(f"a frame of {length} bytes was announced")
                return
            if self._filled - begin >= length:
                start = begin + length
                self._on_bytes(self, bytes(self._view[begin:start]))
            elif length + LENGTH.size > SCRATCH_BYTES:
                self._begin_large(begin, length)
                return
            else:
                break
        if start:
            rest = self._filled - start
            self._view[:rest] = bytes(self._view[start : self._filled])
            self._filled = rest

    def _begin_large(self, begin: int, length: int) -> None:
        self._large = bytearray(length)
        self._large_view = memoryview(self._large)
        self._got = self._filled - begin
        self._large_view[: self._got] = self._view[begin : self._filled]
        self._filled = 0
        self._watch_stall(True)

    def _watch_stall(self, on: bool) -> None:
        """Half a large frame must not hold its memory for ever."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if on:
            loop = asyncio.get_running_loop()
            self._stall = loop.call_later(self._stall_s, self._stalled, self._got)

    def _stalled(self, got: int) -> None:
        if self._got == got:
            self.abort(f"the rest of a frame did not come within {self._stall_s:g} s")
        else:
            self._watch_stall(True)


def accept(me: str, writer: asyncio.StreamWriter, link: FrameLink) -> None:
    """The acceptor's side: take the connection over and say who we are."""
    link.take_over(writer, writable=False)
    writer.write(READY + bytes.fromhex(me))


async def connect(
    device: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: FrameLink
) -> None:
    """The connector's side. Raises `LaneDown` if it is another device, `OSError`, `IncompleteReadError`.

    The caller sets the deadline.
    """
    words = await reader.readexactly(READY_BYTES)
    if words[: len(READY)] != READY:
        raise LaneDown(device, "the other side speaks another lane protocol")
    if (who := words[len(READY) :].hex()) != device:
        raise LaneDown(device, f"its address belongs to {who} now")
    link.take_over(writer, writable=True)
    if link.lost.done():
        raise ConnectionResetError("closed just after its proof")
    link.write_go()
