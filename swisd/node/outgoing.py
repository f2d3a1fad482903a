"""Sends activations: one queue and one task per peer, so that rows to a device keep their order."""

import asyncio
from collections.abc import Callable
from typing import Any

from swisd.core.effects import Activation
from swisd.transport.api import LaneDown, Lanes
from swisd.wire.frames import Dtype, Frame, FrameKind

QUEUE = 256


class Outgoing:
    """`failed(device, activation, reason)` is called for rows that no lane could take."""

    def __init__(self, lanes: Lanes, device: str, failed: Callable[[str, Activation, str], None]) -> None:
        self._lanes, self._device, self._failed = lanes, device, failed
        self._queues: dict[str, asyncio.Queue[Activation]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: set[str] = set()  # devices whose task has rows in hand

    def send(self, device: str, activation: Activation) -> None:
        """Line rows up for a device; never blocks."""
        queue = self._queues.get(device)
        if queue is None:
            queue = self._queues[device] = asyncio.Queue(QUEUE)
            task = asyncio.create_task(self._pump(device, queue), name=f"rows to {device}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # A turn of the loop for each hop would be felt: what can go at once goes at once.
        if queue.empty() and device not in self._sending and self._at_once(device, activation):
            return
        try:
            queue.put_nowait(activation)
        except asyncio.QueueFull:
            self._failed(device, activation, f"{QUEUE} frames wait already")

    def _at_once(self, device: str, activation: Activation) -> bool:
        try:
            return self._lanes.try_send(device, frame_of(activation, self._device))
        except (LaneDown, TypeError, ValueError):
            return False  # the task finds out again, and says why

    async def close(self) -> None:
        """Stop sending, within a deadline; what waits is dropped."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)

    async def _pump(self, device: str, queue: asyncio.Queue[Activation]) -> None:
        while True:
            activation = await queue.get()
            self._sending.add(device)
            try:
                await self._lanes.send(device, frame_of(activation, self._device))
            except LaneDown as error:
                self._failed(device, activation, error.reason)
            except (TypeError, ValueError) as error:  # rows that make no frame, as one of over 64 MiB
                self._failed(device, activation, f"cannot be sent: {error}")
            finally:
                self._sending.discard(device)


def frame_of(activation: Activation, sender: str) -> Frame:
    """Rows as a frame; an array's memory is sent as it lies, without a copy."""
    payload: Any = activation.payload
    width = 0
    if activation.rows:
        width = payload.shape[1] if hasattr(payload, "shape") else len(payload) // (4 * activation.rows)
        payload = memoryview(payload).cast("B") if hasattr(payload, "shape") else payload
    else:
        payload = b""
    return Frame(
        FrameKind.ACTIVATION, activation.epoch, sender, activation.pipeline, activation.stage,
        activation.slots, Dtype.FLOAT32, width, activation.rows, payload,
    )  # fmt: skip


def activation_of(frame: Frame) -> Activation:
    """A frame's rows; the payload stays bytes until the compute thread reads it."""
    return Activation(frame.epoch, frame.pipeline, frame.stage, frame.slots, frame.rows, frame.payload)
