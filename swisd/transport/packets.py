"""Lanes on which a frame arrives as one message: what every such lane does with it."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable

from swisd.core.checked import Malformed
from swisd.transport.api import LaneDown, OnFrame, Probe
from swisd.transport.ear import Ear
from swisd.transport.ping import Pinger, pong
from swisd.wire.frames import Frame, FrameKind, decode


class PacketLanes(ABC):
    """Checks what arrives, answers pings, hands rows on. `drops` counts what was refused, by reason;
    `arriving` is called before a frame is checked.
    """

    def __init__(
        self,
        device: str,
        on_frame: OnFrame,
        *,
        answer_s: float = 5.0,
        arriving: Callable[[], None] = lambda: None,
    ) -> None:
        self.drops: Counter[str] = Counter()
        self._device, self._on_frame = device, on_frame
        self._arriving = arriving
        self._pinger = Pinger(device, self.drops, answer_s=answer_s)

    @abstractmethod
    def _post(self, device: str, frame: Frame) -> None:
        """Hand a frame over without waiting. Raises `LaneDown`."""

    async def send(self, device: str, frame: Frame) -> None:
        """See `Lanes.send`. Raises `LaneDown`; a frame that is lost on the way is lost without a word."""
        self._post(device, frame)

    def try_send_threadsafe(self, device: str, buffers: list[memoryview], size: int) -> bool:
        """See `Lanes.try_send_threadsafe`: messages leave from the event loop only."""
        return False

    def lend(self, device: str) -> Ear | None:
        """See `Lanes.lend`: messages arrive in the event loop only."""
        return None

    async def probe(self, device: str, payload_bytes: int, count: int) -> Probe:
        """See `Lanes.probe`. Raises `LaneDown`."""
        return await self._pinger.probe(self.send, device, payload_bytes, count)

    def _take(self, sender: str, data: bytes | memoryview) -> None:
        """One message from a proved sender; bad ones are dropped and counted."""
        self._arriving()
        try:
            frame = decode(data)
        except Malformed:
            self.drops["malformed frame"] += 1
            return
        if frame.sender != sender:
            self.drops["frame of another sender"] += 1
        elif frame.kind is FrameKind.PING:
            try:
                self._post(sender, pong(self._device, frame))
            except LaneDown:
                self.drops["pong to a device that is gone"] += 1
        elif frame.kind is FrameKind.PONG:
            self._pinger.arrived(sender, frame)
        else:
            self._on_frame(sender, frame)
