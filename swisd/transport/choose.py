"""Which lane a link uses: the direct one while it works, the bus meanwhile."""

import asyncio
import time
from collections.abc import Callable
from typing import Literal, Protocol

from swisd.transport.api import LaneDown, Lanes, Probe
from swisd.transport.ear import Ear
from swisd.wire.frames import Frame

Policy = Literal["auto", "tcp", "mqtt"]
LaneName = Literal["tcp", "mqtt"]
RETRY_S = 30.0


class DirectLanes(Lanes, Protocol):
    """Lanes with connections, as `TcpLanes`."""

    async def connect(self, device: str) -> None:
        """Make the connection now. Raises `LaneDown`."""

    def connected(self, device: str) -> bool:
        """Whether there is a connection."""
        ...


class LaneChooser:
    """Lanes that choose for each device. With "auto" a frame goes over the bus when the direct lane fails;
    the direct one is then tried again every `retry_s` seconds, in the background, while frames flow.

    A frame may overtake one of the other lane when the lane changes; steps are numbered, so a receiver can
    tell.
    """

    def __init__(
        self,
        tcp: DirectLanes,
        bus: Lanes,
        policy: Policy = "auto",
        *,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[str, LaneName], None] = lambda device, lane: None,
    ) -> None:
        self._tcp, self._bus, self._policy = tcp, bus, policy
        self._retry_s, self._clock, self._on_change = retry_s, clock, on_change
        self._lanes: dict[str, LaneName] = {}
        self._retry_at: dict[str, float] = {}
        self._retries: dict[str, asyncio.Task[None]] = {}

    def lane(self, device: str) -> LaneName | None:
        """The lane that the link to `device` uses, or None if nothing was sent to it yet."""
        return self._lanes.get(device)

    def lanes(self) -> dict[str, LaneName]:
        """Every link and its lane."""
        return dict(self._lanes)

    async def send(self, device: str, frame: Frame) -> None:
        """See `Lanes.send`. Raises `LaneDown` when no lane takes the frame."""
        lane = self._choose(device)
        if lane == "tcp":
            try:
                await self._tcp.send(device, frame)
                return
            except LaneDown as error:
                if self._policy == "tcp":
                    raise
                self._fall_back(device)
                direct = error.reason
        else:
            direct = "off" if self._policy == "mqtt" else "down"
        try:
            await self._bus.send(device, frame)
        except LaneDown as error:
            raise LaneDown(device, f"direct: {direct}; bus: {error.reason}") from None

    def try_send(self, device: str, frame: Frame) -> bool:
        """See `Lanes.try_send`."""
        if self._choose(device) == "tcp":
            return self._tcp.try_send(device, frame)
        return self._bus.try_send(device, frame)

    def try_send_threadsafe(self, device: str, buffers: list[memoryview], size: int) -> bool:
        """See `Lanes.try_send_threadsafe`: on the lane that the link uses; nothing is chosen here."""
        if self._lanes.get(device) == "tcp":
            return self._tcp.try_send_threadsafe(device, buffers, size)
        return self._bus.try_send_threadsafe(device, buffers, size)

    def lend(self, device: str) -> Ear | None:
        """See `Lanes.lend`: rows take the direct lane from where it is taken to there, or none is lent."""
        return self._tcp.lend(device) if self._lanes.get(device) != "mqtt" else None

    async def probe(self, device: str, payload_bytes: int, count: int) -> Probe:
        """Measure the lane that the link uses. Raises `LaneDown`."""
        if self._choose(device) == "tcp":
            try:
                return await self._tcp.probe(device, payload_bytes, count)
            except LaneDown:
                # A ping that came late on a link that stands says nothing against the link.
                if self._policy == "tcp" or self._tcp.connected(device):
                    raise
                self._fall_back(device)
        return await self._bus.probe(device, payload_bytes, count)

    async def close(self) -> None:
        """Close both lanes."""
        tasks = list(self._retries.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2)
        await self._tcp.close()
        await self._bus.close()

    def _choose(self, device: str) -> LaneName:
        if self._policy == "mqtt":
            self._use(device, "mqtt")
        elif self._policy == "tcp" or device not in self._lanes:
            self._use(device, "tcp")
        elif self._lanes[device] == "mqtt":
            if self._tcp.connected(device):
                self._use(device, "tcp")  # the peer has reached us
            elif self._clock() >= self._retry_at[device] and device not in self._retries:
                self._retries[device] = asyncio.create_task(self._retry(device), name=f"direct to {device}")
        return self._lanes[device]

    def _fall_back(self, device: str) -> None:
        self._retry_at[device] = self._clock() + self._retry_s
        self._use(device, "mqtt")

    def _use(self, device: str, lane: LaneName) -> None:
        if self._lanes.get(device) != lane:
            self._lanes[device] = lane
            self._on_change(device, lane)

    async def _retry(self, device: str) -> None:
        try:
            await self._tcp.connect(device)
            self._use(device, "tcp")
        except LaneDown:
            self._retry_at[device] = self._clock() + self._retry_s
        finally:
            self._retries.pop(device, None)
