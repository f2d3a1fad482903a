"""A connection in memory: asyncio's streams and protocols as over a socket, thousands of them a second."""

import asyncio
from collections.abc import Callable
from typing import Any

from swisd.net.secure import STREAM_LIMIT


class Pipe(asyncio.Transport):
    """Our end of a connection. `feed` is what the other side sends; what we write collects in `written` and
    is told to `on_write`."""

    def __init__(self, on_write: Callable[[bytes], None] = lambda data: None) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.written = bytearray()
        self.closed = False
        self.on_write = on_write
        self.reader = asyncio.StreamReader(STREAM_LIMIT, loop=loop)
        self._protocol: Any = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        self._protocol.connection_made(self)
        self.writer = asyncio.StreamWriter(self, self._protocol, self.reader, loop)

    def feed(self, data: bytes) -> None:
        """Bytes from the other side."""
        if self.closed or not data:
            return
        if not isinstance(self._protocol, asyncio.BufferedProtocol):
            self._protocol.data_received(data)
            return
        rest = memoryview(data)
        while rest and not self.closed:
            room = self._protocol.get_buffer(-1)
            taken = min(len(room), len(rest))
            room[:taken] = rest[:taken]
            rest = rest[taken:]
            self._protocol.buffer_updated(taken)

    def hang_up(self) -> None:
        """The other side says no more."""
        if not self.closed and not self._protocol.eof_received():
            self.close()

    # What asyncio and swisd call.

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data
            self.on_write(bytes(data))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(lambda: self._protocol.connection_lost(None))

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def pause_reading(self) -> None:
        """Nothing flows by itself here."""

    def resume_reading(self) -> None:
        """Nothing flows by itself here."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered here."""

    def can_write_eof(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default
