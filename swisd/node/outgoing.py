"""Sends rows: one queue and one task per peer, so that those to a device keep their order.

Rows of several sessions that were computed together travel in one frame.
"""

import asyncio
from collections.abc import Callable

from swisd.node.company import Sent, companies, joined
from swisd.node.rows import frame_of
from swisd.transport.api import LaneDown, Lanes

QUEUE = 256


class Outgoing:
    """`failed(device, rows, reason)` is called for rows that no lane could take."""

    def __init__(self, lanes: Lanes, device: str, failed: Callable[[str, Sent, str], None]) -> None:
        self._lanes, self._device, self._failed = lanes, device, failed
        self._held: dict[str, list[Sent]] = {}
        self._queues: dict[str, asyncio.Queue[list[Sent]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: set[str] = set()  # devices whose task has rows in hand

    def send(self, device: str, rows: Sent) -> None:
        """Line rows up for a device, to go once `flush` says that no more come with them; never blocks."""
        self._held.setdefault(device, []).append(rows)

    def clear(self, device: str) -> bool:
        """Whether no rows for a device wait here. Any thread may ask."""
        queue = self._queues.get(device)
        waits = device in self._held or device in self._sending
        return not waits and (queue is None or queue.empty())

    def flush(self) -> None:
        """Send what is lined up; rows that can share a frame do."""
        held, self._held = self._held, {}
        for device, rows in held.items():
            for part in companies(rows):
                self._line_up(device, part)

    def _line_up(self, device: str, rows: list[Sent]) -> None:
        queue = self._queues.get(device)
        if queue is None:
            queue = self._queues[device] = asyncio.Queue(QUEUE)
            task = asyncio.create_task(self._pump(device, queue), name=f"rows to {device}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # A turn of the loop for each hop would be felt: what can go at once goes at once.
        if queue.empty() and device not in self._sending and self._at_once(device, rows):
            return
        try:
            queue.put_nowait(rows)
        except asyncio.QueueFull:
            self._lost(device, rows, f"{QUEUE} frames wait already")

    def _at_once(self, device: str, rows: list[Sent]) -> bool:
        try:
            return self._lanes.try_send(device, frame_of(joined(rows), self._device))
        except (LaneDown, TypeError, ValueError):
            return False  # the task finds out again, and says why

    def _lost(self, device: str, rows: list[Sent], reason: str) -> None:
        for item in rows:
            self._failed(device, item, reason)

    async def close(self) -> None:
        """Stop sending, within a deadline; what waits is dropped."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)

    async def _pump(self, device: str, queue: asyncio.Queue[list[Sent]]) -> None:
        while True:
            rows = await queue.get()
            self._sending.add(device)
            try:
                await self._lanes.send(device, frame_of(joined(rows), self._device))
            except LaneDown as error:
                self._lost(device, rows, error.reason)
            except (TypeError, ValueError) as error:  # rows that make no frame, as one of over 64 MiB
                self._lost(device, rows, f"cannot be sent: {error}")
            finally:
                self._sending.discard(device)
