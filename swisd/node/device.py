"""`swisd up`: one device with its port, bus, lanes and node, from start to a clean end."""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack

from swisd.bus.api import Bus
from swisd.bus.discovery import DEFAULT_PORT
from swisd.core.config import Claims
from swisd.core.effects import Notice
from swisd.core.errors import BadInput
from swisd.core.events import LinkLost
from swisd.net.interfaces import local_addresses
from swisd.net.listener import Listener
from swisd.node.describe import describe_device
from swisd.node.drafting import Drafting
from swisd.node.home import Home
from swisd.node.hosting import LOOPBACK, Hosting
from swisd.node.joining import Way
from swisd.node.memory import Offering
from swisd.node.node import Node, Observed
from swisd.node.settings import Settings
from swisd.store.server import BlobServer
from swisd.transport.choose import LaneChooser
from swisd.transport.mqtt import BusLanes
from swisd.transport.tcp import TcpLanes
from swisd.wire.handshake import Purpose
from swisd.wire.joincode import JoinCode

log = logging.getLogger(__name__)


class Device:
    """A device in a swarm. `observe` hears notices, digests, plans and the state of the bus."""

    def __init__(self, home: Home, settings: Settings, way: Way, observe: Callable[[Observed], None]) -> None:
        self._home, self._settings, self._way, self._observe = home, settings, way, observe
        self._listener: Listener | None = None
        self._hosting: Hosting | None = None
        self._bus: Bus | None = None
        self._lanes: LaneChooser | None = None
        self._blobs: BlobServer | None = None
        self.node: Node | None = None
        self._drafting: Drafting | None = None
        self._by_bus: set[str] = set()
        self._stopping, self._stopped = asyncio.Lock(), False
        self.port = 0
        self.join_code = ""

    @property
    def hosting(self) -> bool:
        """Whether this device runs the swarm's broker."""
        return self._hosting is not None and self._hosting.hosting

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
        hosting = self._hosting = Hosting(self._home, settings, self._way, self._listener, self._observe)
        first = not self._way.host and self._way.outside is None
        addresses = self._addresses()
        drafting = self._drafting = await Drafting.of(self._home, settings)
        offering = Offering.of(
            settings.device,
            lambda text: self._observe(Notice("warning", text)),
            drafting.memory_bytes if drafting is not None else 0,
        )
        claims: Claims = "at once" if first else "when silent" if self._way.outside else "never"
        config = describe_device(
            self._home,
            settings,
            claims=claims,
            memory_bytes=offering.now(0),
            journal_bytes=offering.journal,
            port=self.port,
            addresses=addresses,
        )
        node = self.node = Node(config, self._home, key, self._observe, offering=offering.now)
        if drafting is not None:
            node.drafting = drafting
            drafting.post = node.post
        came, made = node.times.came, node.times.made
        tcp = TcpLanes(
            key, config.device, node.addresses_of, node.on_frame, self._lane_down, arriving=came, made=made
        )
        bus_lanes = BusLanes(
            config.device, node.courier.publish_shard, node.on_frame,
            reachable=node.knows, arriving=came, made=made,
        )  # fmt: skip
        node.shard_sink = bus_lanes.feed
        listener = self._listener
        node.count_refused(lambda: {f"stranger: {why}": count for why, count in listener.refused.items()})
        node.count_refused(lambda: tcp.drops)
        node.count_refused(lambda: bus_lanes.drops)
        self._lanes = LaneChooser(tcp, bus_lanes, settings.swarm.lane, on_change=self._lane_changed)
        self._blobs = BlobServer(node.supply.store)
        self._listener.set_handler(Purpose.LANE, tcp.serve)
        self._listener.set_handler(Purpose.STORE, self._blobs.serve)
        if first:
            await hosting.start_broker()
        self._bus = hosting.make_bus(node)
        node.on_digest = hosting.on_digest
        node.courier.attach(self._bus)
        node.start(self._lanes)
        await self._bus.start()
        self.join_code = self._code(addresses)
        await hosting.answer_seekers()
        hosting.follow()

    async def stop(self) -> None:
        """Leave the swarm and close everything; safe to call at any point, and again."""
        async with self._stopping, AsyncExitStack() as last_first:  # one that fails keeps no other open
            if self._stopped:
                return
            self._stopped = True
            last_first.callback(self._forget_running)
            if self._listener is not None:
                last_first.push_async_callback(self._listener.close)
            if self._hosting is not None:
                last_first.push_async_callback(self._hosting.end)
            if self._blobs is not None:
                last_first.callback(self._blobs.close)
            if self._lanes is not None:
                last_first.push_async_callback(self._lanes.close)
            if self._bus is not None:
                last_first.push_async_callback(self._bus.close)
            if self._drafting is not None:
                last_first.push_async_callback(self._drafting.close)
            if self.node is not None:
                last_first.push_async_callback(self.node.stop)
            if self._hosting is not None:
                last_first.push_async_callback(self._hosting.close)

    def _forget_running(self) -> None:
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

    def _code(self, addresses: tuple[str, ...]) -> str:
        """What a person copies to another device."""
        way = self._way
        if way.outside is not None:
            return str(JoinCode(way.key))
        return str(JoinCode(way.key, way.host or addresses[0], way.port or self.port))

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
