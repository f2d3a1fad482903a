"""Frames to one device that wait: for the connection to be made, or for the peer to read."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from swisd.transport.api import LaneDown


@dataclass(eq=False, slots=True)
class _Waiting:
    buffers: list[memoryview]
    size: int
    done: asyncio.Future[None]


class Outbox:
    """A bounded queue in order of arrival. `put` returns when its frame was written."""

    def __init__(self, device: str, *, frames: int = 256, limit_bytes: int = 128 << 20) -> None:
        self._device, self._frames, self._limit_bytes = device, frames, limit_bytes
        self._queue: deque[_Waiting] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    async def put(self, buffers: list[memoryview], size: int, wait_s: float) -> None:
        """Wait until the frame was written. Raises `LaneDown` if the queue is full, `TimeoutError`."""
        if len(self._queue) >= self._frames or self.bytes + size > self._limit_bytes:
            raise LaneDown(
                self._device, f"{len(self._queue)} frames ({self.bytes >> 20} MiB) wait for it already"
            )
        item = _Waiting(buffers, size, asyncio.get_running_loop().create_future())
        self._queue.append(item)
        self.bytes += size
        try:
            async with asyncio.timeout(wait_s):
                await item.done
        finally:
            if item in self._queue:  # gave up, or was cancelled
                self._queue.remove(item)
                self.bytes -= size

    def flush(self, writable: Callable[[], bool], write: Callable[[list[memoryview], int], None]) -> None:
        """Write as long as the peer reads. Written here, not by those who wait: so nobody overtakes."""
        while self._queue and writable():
            item = self._queue.popleft()
            self.bytes -= item.size
            if not item.done.done():
                write(item.buffers, item.size)
                item.done.set_result(None)

    def fail(self, reason: str) -> None:
        """Nothing that waits will be sent."""
        while self._queue:
            item = self._queue.popleft()
            self.bytes -= item.size
            if not item.done.done():
                item.done.set_exception(LaneDown(self._device, reason))
