"""Lanes over the bus, for devices that cannot reach each other: a frame is one message on a shard topic."""

from collections.abc import Callable

from swisd.core.errors import SwisdError
from swisd.transport.api import LaneDown, OnFrame, packed
from swisd.transport.packets import PacketLanes
from swisd.wire.frames import MAX_FRAME_BYTES, Frame

MAX_BUS_FRAME_BYTES = MAX_FRAME_BYTES - 1024  # the envelope goes with it into one message

Publish = Callable[[str, bytes], None]
"""Publishes a body on the shard topic of a device, without waiting. Raises `SwisdError` or `OSError` when the
bus is not connected or its queue is full."""


class BusLanes(PacketLanes):
    """The lanes of one device over the bus. Whoever owns the bus calls `feed` with what arrives for us.

    The bus does not know who listens, so `reachable` says whether a device is there at all.
    `drops` counts what was refused, by reason. `arriving` is called before a frame is checked, `made` before
    one goes to the bus.
    """

    def __init__(
        self,
        device: str,
        publish: Publish,
        on_frame: OnFrame,
        *,
        reachable: Callable[[str], bool] = lambda device: True,
        answer_s: float = 5.0,
        arriving: Callable[[], None] = lambda: None,
        made: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(device, on_frame, answer_s=answer_s, arriving=arriving)
        self._publish, self._reachable, self._made = publish, reachable, made
        self._closed = False

    def try_send(self, device: str, frame: Frame) -> bool:
        """See `Lanes.try_send`."""
        try:
            self._post(device, frame)
        except LaneDown:
            return False
        return True

    def feed(self, sender: str, body: bytes | memoryview) -> None:
        """A message for this device, from the device whose envelope proved it. Bad ones are dropped."""
        if self._closed:
            return
        self._take(sender, body)

    def lost(self, device: str, reason: str) -> None:
        """`device` is gone (or, for each device, the bus is): its pings are not waited for."""
        self._pinger.lost(device, reason)

    async def close(self) -> None:
        """Take and send no more frames."""
        self._closed = True

    def _post(self, device: str, frame: Frame) -> None:
        buffers, size = packed(frame)
        if size > MAX_BUS_FRAME_BYTES:
            raise ValueError(f"a frame of {size} bytes is longer than the bus takes ({MAX_BUS_FRAME_BYTES})")
        if self._closed:
            raise LaneDown(device, "this device is leaving")
        if not self._reachable(device):
            raise LaneDown(device, "it is not in the swarm now")
        data = b"".join(buffers)
        self._made()
        try:
            self._publish(device, data)
        except LaneDown:
            raise
        except (OSError, SwisdError) as error:
            raise LaneDown(device, f"the bus does not take it: {error}") from None
