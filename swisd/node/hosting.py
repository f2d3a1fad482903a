"""Where a device's bus is: at another device, at its own broker while it is host, or outside the swarm."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from swisd.bus.announce import Announcer
from swisd.bus.api import Bus, Will
from swisd.bus.broker import EmbeddedBroker
from swisd.bus.endpoint import SwarmBroker
from swisd.bus.mqtt import MqttBus
from swisd.bus.probing import Responder, ask_once
from swisd.core import deadlines
from swisd.core.effects import Effect, Knock, MoveBus, Notice, SeekHosts, StartBroker, StopBroker
from swisd.core.errors import SwisdError
from swisd.core.events import BrokerFailed, BrokerStarted, HostSeen, PortClosed
from swisd.core.messages import Digest, Gone
from swisd.net.knock import loops, port_closed, telling
from swisd.net.listener import Listener
from swisd.node.home import Home, Running
from swisd.node.joining import Way, look_for_host
from swisd.node.node import Node, Observed
from swisd.node.settings import Settings
from swisd.wire.handshake import Purpose
from swisd.wire.probe import HostAddress
from swisd.wire.topics import swarm_id

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
LOST_S = 5.0  # between looks at a bus that is away
LEAVE_S = 1.0  # for the clients of a broker that ends to go where its last word sent them
MAX_ADDRESSES = 3


class Hosting:
    """Carries out what the machine says of broker and bus, and leaves word of where the bus is."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        way: Way,
        listener: Listener,
        observe: Callable[[Observed], None],
    ) -> None:
        self._home, self._settings, self._way, self._observe = home, settings, way, observe
        self._listener, self._ident = listener, home.identity().device
        self._broker: EmbeddedBroker | None = None
        self._responder: Responder | None = None
        self._announcer: Announcer | None = None
        self._node: Node | None = None
        self.bus: Bus | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # a broker ends before it starts again
        self._where = (way.host or self.own_host, way.port or listener.port)
        self._known: tuple[tuple[str, int], ...] = ()
        self.note(*self._where)

    @property
    def hosting(self) -> bool:
        """Whether this device runs the swarm's broker."""
        return self._broker is not None

    @property
    def own_host(self) -> str:
        """Where this device reaches itself."""
        return self._settings.device.address or LOOPBACK

    def make_bus(self, node: Node) -> Bus:
        """The device's client, which moves with the host."""
        self._node = node
        node.on_hosting = self.do
        config, way = node.config, self._way
        topic, payload = node.courier.sealed(Gone(config.device, config.boot, proper=False))
        endpoint = way.outside or SwarmBroker(*self._where, way.key, config.device)
        self.bus = MqttBus(
            endpoint, config.device, node.courier.receive, self._on_state, will=Will(topic, payload)
        )
        return self.bus

    async def start_broker(self) -> None:
        """Serve the bus from now on. Raises `BadInput` where there is no amqtt."""
        async with self._turn:
            if self._broker is None:
                broker = EmbeddedBroker(swarm_id(self._way.key))
                await broker.start()
                self._broker = broker
                self._listener.set_handler(Purpose.BUS, broker.serve)

    async def answer_seekers(self) -> None:
        """Every device tells those who hold the key where the host is; only the host announces itself."""
        if self._way.outside is not None or not self._settings.swarm.announce:
            return
        try:
            bind = self._settings.device.address or "0.0.0.0"
            port, key = self._listener.port, self._way.key
            self._responder = await Responder.start(bind, port, key, self._where_the_host_is)
        except OSError as error:
            log.warning("cannot answer devices that look for this swarm over UDP: %s", error)
        await self._announce()

    def follow(self) -> None:
        """Begin to look for the host whenever the bus stays away."""
        if self._way.outside is None and isinstance(self.bus, MqttBus):
            self._spawn(self._follow_host(self.bus))

    async def close(self) -> None:
        """Stop looking, announcing and answering; the broker goes on until `end`."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)
        if self._responder is not None:
            self._responder.close()
        if self._announcer is not None:
            await self._announcer.withdraw()

    async def end(self) -> None:
        """Stop the broker, if one runs."""
        await self._stop_broker()

    # --- what the machine says ---------------------------------------------------------------------

    def do(self, effect: Effect) -> None:
        """Begin what takes time; it ends in an event."""
        match effect:
            case StartBroker():
                self._spawn(self._start())
            case StopBroker():
                self._listener.set_handler(Purpose.BUS, None)
                self._spawn(self._stop_broker())
            case MoveBus():
                self._spawn(self._move(effect))
            case SeekHosts():
                self._spawn(self._seek(effect))
            case Knock():
                self._spawn(self._knock(effect))
            case _:
                log.error("no hand for %s", type(effect).__name__)

    def on_digest(self, digest: Digest) -> None:
        """Remember who could be host later, for the next start and for commands of this home."""
        others = sorted(
            (item.device != digest.host, item.rank, item.addresses[0], item.port)
            for item in digest.members
            if item.broker and item.addresses and item.port and item.device != self._ident
        )
        known = tuple((address, port) for _, _, address, port in others[:7])
        if known and known != self._known:
            self._known = known
            self._write(lambda: self._home.remember_hosts(known))

    async def _start(self) -> None:
        assert self._node is not None
        try:
            await self.start_broker()
        except (SwisdError, OSError) as error:
            self._node.post(BrokerFailed(str(error)))
            return
        self._node.post(BrokerStarted())
        await self._announce()

    async def _stop_broker(self) -> None:
        async with self._turn:
            broker, self._broker = self._broker, None
            self._listener.set_handler(Purpose.BUS, None)
            announcer, self._announcer = self._announcer, None
            if broker is None:
                return
            await broker.left(timeout=LEAVE_S)
            await broker.close()
            if announcer is not None:
                await announcer.withdraw()

    async def _move(self, effect: MoveBus) -> None:
        if not isinstance(self.bus, MqttBus):
            return
        addresses = list(effect.addresses[:MAX_ADDRESSES])
        if effect.device == self._ident:
            addresses = [(self.own_host, self._listener.port)]
        elif not addresses:
            return
        if self.bus.connected and self.hosting:
            await self.bus.flushed(timeout=LEAVE_S)  # its last word, which tells the others where to go
        self.bus.set_endpoint(*addresses[0], others=addresses[1:], timeout=deadlines.DIAL / len(addresses))

    async def _seek(self, effect: SeekHosts) -> None:
        assert self._node is not None
        own = self._node.config.addresses
        targets = [
            where for where in dict.fromkeys((*effect.addresses, *self._home.hosts()))
            if where[1] != self._listener.port or (where[0] not in own and where[0] != LOOPBACK)
        ]  # fmt: skip
        found = await ask_once(self._way.key, targets, deadlines.SEEK_WAIT)
        for seen in found:
            if seen.device != self._ident:
                self._node.post(
                    HostSeen(seen.device, seen.epoch, seen.rank, seen.followed, seen.address, seen.port)
                )

    async def _knock(self, effect: Knock) -> None:
        assert self._node is not None
        near = any(loops(address) for address in self._node.config.addresses)
        if await port_closed(telling(effect.addresses, near=near)):
            self._node.post(PortClosed(effect.device))

    # --- where the bus is --------------------------------------------------------------------------

    def note(self, host: str, port: int) -> None:
        """Leave word for the commands of this home, and for the next start."""
        way = self._way
        self._where = (host, port)
        broker = self._settings.swarm.broker if way.outside is not None else ""
        address = self._settings.device.address
        running = Running(os.getpid(), host, port, self._listener.port, broker, address)
        self._write(lambda: self._home.set_running(running))
        if (host, port) != (self.own_host, self._listener.port) and way.outside is None:
            self._write(lambda: self._home.remember_host(host, port))

    def _on_state(self, connected: bool, reason: str) -> None:
        if connected and isinstance(self.bus, MqttBus) and self._way.outside is None:
            where = self.bus.where
            if where != self._where:
                self.note(*where)
        if self._node is not None:
            self._node.on_bus_state(connected, reason)

    def _write(self, work: Callable[[], None]) -> None:
        try:
            work()
        except SwisdError as error:
            log.warning("where the host is, is not kept: %s", error)

    def _where_the_host_is(self) -> HostAddress | None:
        """For a device that asks. Empty address: this device. An address of the loopback helps only there."""
        if self._node is None:
            return None
        machine, (host, port) = self._node.machine, self._where
        if self.hosting:
            epoch, rank = machine.host.epoch, self._node.config.rank
            return HostAddress(self._ident, "", self._listener.port, epoch, rank, machine.host.followed)
        leader = machine.leadership.host
        if leader is None or (loops(host) and not loops(self.own_host)):
            return None
        try:
            return HostAddress(leader, host, port)
        except ValueError:
            return None

    async def _announce(self) -> None:
        """As the host, over multicast DNS."""
        swarm, device = self._settings.swarm, self._settings.device
        if not self.hosting or self._announcer or not swarm.announce or not swarm.multicast or device.address:
            return
        from swisd import __version__

        announcer = self._announcer = Announcer(
            swarm_id(self._way.key), self._ident, __version__, self._listener.port
        )
        await announcer.publish()

    async def _follow_host(self, bus: MqttBus) -> None:
        """When the bus stays away, look for the host: it may be at an address that nobody told."""
        while True:
            await asyncio.sleep(LOST_S)
            if bus.connected or self.hosting:
                continue
            here = self._where
            try:
                found = await look_for_host(self._home, self._settings, self._way.key, [here])
                if found is None or bus.connected or self.hosting or (found.host, found.port) == here:
                    continue
                bus.set_endpoint(found.host, found.port)
                self._observe(
                    Notice("info", f"the host is at {found.host}:{found.port} now (by {found.how})")
                )
                self.note(found.host, found.port)
            except (SwisdError, OSError) as error:
                log.warning("looking for the host: %s", error)  # and again, in a while

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (OSError, SwisdError) as error:
            log.warning("the bus of this device: %s", error)
        except Exception:
            log.exception("a task of the bus failed")
