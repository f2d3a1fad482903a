"""A swarm of one: the same machine, runtime and messages, with the bus in memory and no socket at all."""

from collections.abc import Callable

from swisd.bus.memory import MemoryBroker, MemoryBus
from swisd.node.describe import describe_device
from swisd.node.home import Home
from swisd.node.memory import offer
from swisd.node.node import Node, Observed
from swisd.node.settings import Settings
from swisd.transport.api import LaneDown, Probe
from swisd.transport.ear import Ear
from swisd.wire.frames import Frame


class NoLanes:
    """The lanes of a device that is alone."""

    async def send(self, device: str, frame: Frame) -> None:
        raise LaneDown(device, "this device is alone")

    def try_send(self, device: str, frame: Frame) -> bool:
        """Nothing can be sent."""
        return False

    def try_send_threadsafe(self, device: str, buffers: list[memoryview], size: int) -> bool:
        """Nothing can be sent."""
        return False

    def lend(self, device: str) -> Ear | None:
        """Nobody is to be heard."""
        return None

    async def probe(self, device: str, payload_bytes: int, count: int) -> Probe:
        raise LaneDown(device, "this device is alone")

    async def close(self) -> None:
        return


class LonelyDevice:
    """One device and its broker in this process. `broker` lets an asker attach a bus of its own."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        key: bytes,
        observe: Callable[[Observed], None],
        memory: int | None,
    ) -> None:
        self.broker = MemoryBroker()
        # Alone it sends nothing on, and works for its own person, whatever the battery says.
        config = describe_device(
            home, settings, claims="at once", memory_bytes=offer(memory, 0), journal_bytes=0
        )
        self.node = Node(config, home, key, observe, offering=lambda held: offer(memory, held), alone=True)
        courier = self.node.courier
        self._bus = MemoryBus(self.broker, config.device, courier.receive, self.node.on_bus_state)
        courier.attach(self._bus)

    async def start(self) -> None:
        """Begin; `stop` afterwards, even if this raises."""
        self.node.start(NoLanes())
        await self._bus.start()

    async def stop(self) -> None:
        """Leave and free everything."""
        try:
            await self.node.stop()
        finally:
            await self._bus.close()
