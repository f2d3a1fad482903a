"""`swisd up`: one device with its port, bus, lanes and node, from start to a clean end."""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack

from swisd.bus.announce import Announcer
from swisd.bus.api import Bus, Will
from swisd.bus.broker import EmbeddedBroker
from swisd.bus.discovery import DEFAULT_PORT
from swisd.bus.endpoint import SwarmBroker
from swisd.bus.mqtt import MqttBus
from swisd.bus.probing import Responder
from swisd.core.config import Claims
from swisd.core.effects import Notice
from swisd.core.errors import BadInput, SwisdError
from swisd.core.events import LinkLost
from swisd.core.messages import Gone
from swisd.net.interfaces import local_addresses
from swisd.net.listener import Listener
from swisd.node.describe import describe_device
from swisd.node.home import Home, Running
from swisd.node.joining import Way, look_for_host
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
        self._by_bus: set[str] = set()
        self._stopping, self._stopped = asyncio.Lock(), False
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
        self._home.must_be_free()
        self._listener = await self._listen(key)
        self.port = self._listener.port
        self._note_host(self._way.host or self._own_host, self._way.port or self.port)
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
        """Leave the swarm and close everything; safe to call at any point, and again."""
        async with self._stopping, AsyncExitStack() as last_first:  # one that fails keeps no other open
            if self._stopped:
                return
            self._stopped = True
            last_first.callback(self._forget_running)
            if self._listener is not None:
                last_first.push_async_callback(self._listener.close)
            if self._broker is not None:
                last_first.push_async_callback(self._broker.close)
            if self._blobs is not None:
                last_first.callback(self._blobs.close)
            if self._lanes is not None:
                last_first.push_async_callback(self._lanes.close)
            if self._bus is not None:
                last_first.push_async_callback(self._bus.close)
            if self.node is not None:
                last_first.push_async_callback(self.node.stop)
            if self._responder is not None:
                last_first.callback(self._responder.close)
            if self._announcer is not None:
                last_first.push_async_callback(self._announcer.withdraw)
            if self._following is not None:
                self._following.cancel()
                await asyncio.wait([self._following], timeout=2.0)

    def _forget_running(self) -> None:
        running = self._home.running()
        if running is not None and running.pid == os.getpid():
            self._home.set_running(None)

    @property
    def _own_host(self) -> str:
        """Where this device reaches itself."""
        return self._settings.device.address or LOOPBACK

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
        endpoint = SwarmBroker(way.host or self._own_host, way.port or self.port, way.key, config.device)
        return MqttBus(endpoint, config.device, node.courier.receive, node.on_bus_state, will=will)

    async def _tell_others(self, addresses: tuple[str, ...]) -> None:
        """Leave word for people and for devices that look for the swarm."""
        way = self._way
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
            here = self._bus_host, self._bus_port
            try:
                found = await look_for_host(self._home, self._settings, way.key, [here])
                if found is None or bus.connected or (found.host, found.port) == here:
                    continue
                bus.set_endpoint(found.host, found.port)
                self._observe(
                    Notice("info", f"the host is at {found.host}:{found.port} now (by {found.how})")
                )
                self._note_host(found.host, found.port)
            except (SwisdError, OSError) as error:
                log.warning("looking for the host: %s", error)  # and again, in a while

    def _lane_down(self, device: str, reason: str) -> None:
        log.info("lane to %s is down: %s", device, reason)
        if self.node is not None:
            self.node.post(LinkLost(device, reason))

    def _lane_changed(self, device: str, lane: str) -> None:
        """Direct lanes are what everyone expects; only the way round is worth a word, and its end."""
        before = self._by_bus.copy()
        (self._by_bus.add if lane == "mqtt" else self._by_bus.discard)(device)
        if before != self._by_bus:
            name = self.node.name_of(device) if self.node is not None else device
            way = "the bus" if lane == "mqtt" else "a direct lane again"
            self._observe(Notice("info", f"rows to {name} go over {way}"))
