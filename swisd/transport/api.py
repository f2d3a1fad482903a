"""What every lane can do, whatever carries it."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from swisd.core.errors import SwisdError
from swisd.transport.ear import Ear
from swisd.wire.frames import HEADER, MAX_FRAME_BYTES, Frame, encode

OnFrame = Callable[[str, Frame], None]
"""Called in the event loop with the proved sender and a checked frame. The payload is a view of a buffer that
belongs to this frame alone, so it may be kept."""

OnDown = Callable[[str, str], None]
"""Called in the event loop with a device and the reason (for people) when its link is lost. Frames that were
sent shortly before may be lost with it. A hint: heartbeats decide whether the device is dead."""


class LaneDown(SwisdError):
    """A frame could not be handed over to the link to `device`; `reason` is for people."""

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(f"no lane to {device}: {reason}")
        self.device, self.reason = device, reason


class Probe(NamedTuple):
    """A link as measured: round trip of a small frame in ms, bandwidth in Mbit/s."""

    rtt_ms: float
    mbit_s: float


class Lanes(Protocol):
    """The lanes of one device to all others. Frames to one device arrive in the order of the calls."""

    async def send(self, device: str, frame: Frame) -> None:
        """Hand a frame over; its payload must not be changed afterwards, as it may be sent uncopied.

        Waits while the peer is slow, with a deadline. Raises `LaneDown`; then the frame was not sent, or only
        in part.
        """

    def try_send(self, device: str, frame: Frame) -> bool:
        """`send` where it need not wait; False, and nothing sent, where it would have to or cannot."""

    def try_send_threadsafe(self, device: str, buffers: list[memoryview], size: int) -> bool:
        """`try_send` of a `packed` frame from any thread; False, and nothing sent, where that cannot be.

        Nothing that went before is overtaken.
        """

    def lend(self, device: str) -> Ear | None:
        """Whose thread has it reads what this device sends, until it gives it back; None where none can.

        What it does not use arrives as ever.
        """

    async def probe(self, device: str, payload_bytes: int, count: int) -> Probe:
        """Measure a link with `count` small pings and as many of `payload_bytes` bytes. Raises `LaneDown`."""

    async def close(self) -> None:
        """Close all links. What is queued is dropped."""


def packed(frame: Frame) -> tuple[list[memoryview], int]:
    """A frame as flat buffers, and how many bytes that makes. Raises `ValueError` if it is too long."""
    buffers = []
    for part in encode(frame):
        view = memoryview(part)
        if view.nbytes:
            buffers.append(view if view.format == "B" and view.ndim == 1 else view.cast("B"))
    size = sum(view.nbytes for view in buffers)
    if not HEADER.size <= size <= MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {size} bytes is longer than {MAX_FRAME_BYTES}")
    return buffers, size
