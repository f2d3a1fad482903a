"""Several devices in one process, for tests: the same frames and checks, a network that can be cut."""

import asyncio

from swisd.transport.api import LaneDown, OnDown, OnFrame, packed
from swisd.transport.packets import PacketLanes
from swisd.wire.frames import Frame


class MemoryNetwork:
    """The devices that can reach each other, and which links are cut."""

    def __init__(self) -> None:
        self._devices: dict[str, MemoryLanes] = {}
        self._cut: set[frozenset[str]] = set()

    def lanes(
        self, device: str, on_frame: OnFrame, on_down: OnDown = lambda device, reason: None
    ) -> "MemoryLanes":
        """Put a device on the network; one of the same name is replaced."""
        self._devices[device] = lanes = MemoryLanes(self, device, on_frame, on_down)
        return lanes

    def cut(self, one: str, other: str, reason: str = "the link is cut") -> None:
        """Break the link between two devices; both notice. Frames under way are lost."""
        self._cut.add(frozenset((one, other)))
        self._notice(one, other, reason)
        self._notice(other, one, reason)

    def heal(self, one: str, other: str) -> None:
        """Undo `cut`."""
        self._cut.discard(frozenset((one, other)))

    def kill(self, device: str) -> None:
        """A device goes without a word; those on the network notice."""
        self._devices.pop(device, None)
        for other in list(self._devices):
            self._notice(other, device, "the other side closed the connection")

    def inject(self, sender: str, device: str, data: bytes) -> None:
        """Deliver any bytes to `device` as coming from `sender`."""
        asyncio.get_running_loop().call_soon(self._deliver, sender, device, data)

    def why_not(self, sender: str, device: str) -> str:
        """Why nothing can be sent from one to the other, or an empty text."""
        if device not in self._devices or sender not in self._devices:
            return "no address of it is known"
        return "the link is cut" if frozenset((sender, device)) in self._cut else ""

    def _deliver(self, sender: str, device: str, data: bytes) -> None:
        if device in self._devices and frozenset((sender, device)) not in self._cut:
            self._devices[device].arrived(sender, data)

    def _notice(self, device: str, other: str, reason: str) -> None:
        if device in self._devices:
            asyncio.get_running_loop().call_soon(self._devices[device].lost, other, reason)


class MemoryLanes(PacketLanes):
    """The lanes of one device of a `MemoryNetwork`; make them with `MemoryNetwork.lanes`."""

    def __init__(self, network: MemoryNetwork, device: str, on_frame: OnFrame, on_down: OnDown) -> None:
        super().__init__(device, on_frame)
        self._network, self._on_down = network, on_down

    def try_send(self, device: str, frame: Frame) -> bool:
        """See `Lanes.try_send`: here everything waits a turn of the loop."""
        return False

    async def close(self) -> None:
        """Leave the network."""
        self._network.kill(self._device)

    def arrived(self, sender: str, data: bytes) -> None:
        """Bytes from `sender`; bad ones are dropped and counted."""
        self._take(sender, data)

    def lost(self, device: str, reason: str) -> None:
        """The network noticed that the link to `device` is gone."""
        self._pinger.lost(device, reason)
        self._on_down(device, reason)

    def _post(self, device: str, frame: Frame) -> None:
        buffers, _ = packed(frame)
        if reason := self._network.why_not(self._device, device):
            raise LaneDown(device, reason)
        self._network.inject(self._device, device, b"".join(buffers))
