"""`swisd up`: one device with its port, bus, lanes and node, from start to a clean end."""

import asyncio
import logging
import os
from collections.abc import Callable

from swisd.bus.announce import Announcer
from swisd.bus.api import Bus, Will
from swisd.bus.broker import EmbeddedBroker
from swisd.bus.discovery import DEFAULT_PORT, find
from swisd.bus.endpoint import SwarmBroker
from swisd.bus.mqtt import MqttBus
from swisd.bus.probing import Responder
from swisd.core.config import Claims
from swisd.core.effects import Notice
from swisd.core.errors import BadInput
from swisd.core.messages import Gone
from swisd.net.interfaces import local_addresses
from swisd.net.listener import Listener
from swisd.node.describe import describe_device
from swisd.node.home import Home, Running
from swisd.node.joining import Way
from swisd.node.memory import offer
from swisd.node.node import Node, Observed
from swisd.node.settings import Settings, parse_size
from swisd.store.server import BlobServer
from swisd.transport.choose import LaneChooser
from swisd.transport.mqtt import BusLanes
from swisd.transport.tcp import TcpLanes
from swisd.wire.handshake import Purpose
from swisd.wire.joincode import JoinCode
from swisd.wire.probe import HostAddress
from swisd.wire.topics import swarm_id

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
LOST_S = 5.0  # between looks at a bus that is away


class Device:
    """A device in a swarm. `observe` hears notices, digests, plans and the state of the bus."""

    def __init__(self, home: Home, settings: Settings, way: Way, observe: Callable[[Observed], None]) -> None:
        self._home, self._settings, self._way, self._observe = home, settings, way, observe
        self._listener: Listener | None = None
        self._broker: EmbeddedBroker | None = None
        self._responder: Responder | None = None
        self._announcer: Announcer | None = None
        self._bus: Bus | None = None
        self._lanes: LaneChooser | None = None
        self._blobs: BlobServer | None = None
        self.node: Node | None = None
        self._following: asyncio.Task[None] | None = None
        self._bus_host, self._bus_port = "", 0
        self.port = 0
        self.join_code = ""

    @property
    def hosting(self) -> bool:
        """Whether this device runs the swarm's broker."""
        return not self._way.host and self._way.outside is None

    async def start(self) -> None:
        """Open the port, reach or start the bus, begin. Raises `BadInput`, `NoSwarm`."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings, key = self._settings, self._way.key
        running = self._home.running()
        if running is not None and running.pid != os.getpid():
            raise BadInput(
                f"`swisd up` runs already in {self._home.path} (process {running.pid}): "
                "use it, or give this one another folder with --home"
            )
        self._listener = await self._listen(key)
        self.port = self._listener.port
        addresses = self._addresses()
        memory = parse_size(settings.device.memory) if settings.device.memory else None
        claims: Claims = "at once" if self.hosting else "when silent" if self._way.outside else "never"
        config = describe_device(
            self._home,
            settings,
            claims=claims,
            memory_bytes=offer(memory, 0),
            port=self.port,
            addresses=addresses,
        )
        node = self.node = Node(config, self._home, key, self._observe, asked_memory=memory)
        tcp = TcpLanes(key, config.device, node.addresses_of, node.on_frame, self._lane_down)
        bus_lanes = BusLanes(config.device, node.courier.publish_shard, node.on_frame, reachable=node.knows)
        node.shard_sink = bus_lanes.feed
        listener = self._listener
        node.count_refused(lambda: {f"stranger: {why}": count for why, count in listener.refused.items()})
        node.count_refused(lambda: tcp.drops)
        node.count_refused(lambda: bus_lanes.drops)
        self._lanes = LaneChooser(tcp, bus_lanes, settings.swarm.lane, on_change=self._lane_changed)
        self._blobs = BlobServer(node.supply.store)
        self._listener.set_handler(Purpose.LANE, tcp.serve)
        self._listener.set_handler(Purpose.STORE, self._blobs.serve)
        if self.hosting:
            self._broker = EmbeddedBroker(swarm_id(key))
            await self._broker.start()
            self._listener.set_handler(Purpose.BUS, self._broker.serve)
        self._bus = self._make_bus(node)
        node.courier.attach(self._bus)
        node.start(self._lanes)
        await self._bus.start()
        await self._tell_others(addresses)
        self._following = asyncio.create_task(self._follow_host(), name="follow the host")

    async def stop(self) -> None:
        """Leave the swarm and close everything; safe to call at any point."""
        if self._following is not None:
            self._following.cancel()
        if self._announcer is not None:
            await self._announcer.withdraw()
        if self._responder is not None:
            self._responder.close()
        if self.node is not None:
            await self.node.stop()
        if self._bus is not None:
            await self._bus.close()
        if self._lanes is not None:
            await self._lanes.close()
        if self._blobs is not None:
            self._blobs.close()
        if self._broker is not None:
            await self._broker.close()
        if self._listener is not None:
            await self._listener.close()
        running = self._home.running()
        if running is not None and running.pid == os.getpid():
            self._home.set_running(None)

    async def _listen(self, key: bytes) -> Listener:
        """The one port of this device. A port that was asked for must be free; the default may give way."""
        asked, host = self._settings.device.port, self._settings.device.address or "0.0.0.0"
        if asked:
            return await Listener.start(host, asked, key, {})
        try:
            return await Listener.start(host, DEFAULT_PORT, key, {})
        except BadInput:
            return await Listener.start(host, 0, key, {})

    def _addresses(self) -> tuple[str, ...]:
        if self._settings.device.address:
            return (self._settings.device.address,)
        found = tuple(interface.address for interface in local_addresses())
        # Without a network the processes of this machine can still form a swarm.
        return found[:8] or (LOOPBACK,)

    def _make_bus(self, node: Node) -> Bus:
        config, way = node.config, self._way
        topic, payload = node.courier.sealed(Gone(config.device, config.boot, proper=False))
        will = Will(topic, payload)
        if way.outside is not None:
            return MqttBus(way.outside, config.device, node.courier.receive, node.on_bus_state, will=will)
        host = way.host or (self._settings.device.address or LOOPBACK)
        endpoint = SwarmBroker(host, way.port or self.port, way.key, config.device)
        return MqttBus(endpoint, config.device, node.courier.receive, node.on_bus_state, will=will)

    async def _tell_others(self, addresses: tuple[str, ...]) -> None:
        """Leave word: for this home's commands, for the next start, for devices that look for the swarm."""
        way, device = self._way, self._settings.device
        self._note_host(way.host or (device.address or LOOPBACK), way.port or self.port)
        if way.outside is not None:
            self.join_code = str(JoinCode(way.key))
            return
        self.join_code = str(JoinCode(way.key, way.host or addresses[0], way.port or self.port))
        if self._settings.swarm.announce:
            await self._answer_seekers()

    async def _answer_seekers(self) -> None:
        """Every device tells those who hold the key where the host is; only the host announces itself."""
        way, device = self._way, self._settings.device
        try:
            bind = device.address or "0.0.0.0"
            self._responder = await Responder.start(bind, self.port, way.key, self._where_the_host_is)
        except OSError as error:
            log.warning("cannot answer devices that look for this swarm over UDP: %s", error)
        if self.hosting and self._settings.swarm.multicast and not device.address:
            from swisd import __version__

            ident = self._home.identity().device
            self._announcer = Announcer(swarm_id(way.key), ident, __version__, self.port)
            await self._announcer.publish()

    def _where_the_host_is(self) -> HostAddress | None:
        """For a device that asks. Empty address: this device. An address of the loopback helps nobody."""
        if self.hosting:
            return HostAddress(self._home.identity().device, "", self.port)
        host = self.node.machine.leadership.host if self.node is not None else None
        if host is None or not self._bus_host or self._bus_host.startswith("127."):
            return None
        return HostAddress(host, self._bus_host, self._bus_port)

    def _note_host(self, host: str, port: int) -> None:
        """Remember where the bus is, for the commands of this home and for the next start."""
        way = self._way
        self._bus_host, self._bus_port = host, port
        broker = self._settings.swarm.broker if way.outside is not None else ""
        running = Running(os.getpid(), host, port, self.port, broker, self._settings.device.address)
        self._home.set_running(running)
        if way.host:
            self._home.remember_host(host, port)

    async def _follow_host(self) -> None:
        """When the bus stays away, look for the host: it may have come back at another address."""
        bus, way = self._bus, self._way
        if not isinstance(bus, MqttBus) or self.hosting or way.outside is not None:
            return
        while True:
            await asyncio.sleep(LOST_S)
            if bus.connected:
                continue
            found = await find(
                way.key,
                self._home.identity().device,
                hints=[(self._bus_host, self._bus_port)],
                timeout=self._settings.swarm.find_seconds,
                zeroconf=self._settings.swarm.multicast,
                extra_ports=self._settings.swarm.probe_ports,
            )
            if (
                found is not None
                and not bus.connected
                and (found.host, found.port) != (self._bus_host, self._bus_port)
            ):
                self._observe(
                    Notice("info", f"the host is at {found.host}:{found.port} now (by {found.how})")
                )
                self._note_host(found.host, found.port)
                bus.set_endpoint(found.host, found.port)

    def _lane_down(self, device: str, reason: str) -> None:
        log.info("lane to %s is down: %s", device, reason)

    def _lane_changed(self, device: str, lane: str) -> None:
        name = self.node.name_of(device) if self.node is not None else device
        self._observe(
            Notice("info", f"rows to {name} go over {'a direct lane' if lane == 'tcp' else 'the bus'}")
        )
