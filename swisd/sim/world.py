"""A swarm in virtual time: a bus, lanes and devices."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from swisd.core import deadlines
from swisd.core.config import Claims, DeviceConfig
from swisd.core.effects import Knock, Publish
from swisd.core.events import (
    BusChanged,
    HoldingsChanged,
    LinkLost,
    PortClosed,
    Received,
    Started,
    Stopping,
)
from swisd.core.machine import NodeMachine
from swisd.core.messages import Gone
from swisd.core.model import Manifest
from swisd.core.types import Holding, Objective
from swisd.sim.askers import Askers, Stream
from swisd.sim.bus import EXTERNAL, Broker, Buses, Client, kept_by
from swisd.sim.hands import STOP_S, Device, Hands, Speed
from swisd.sim.timeline import Timeline
from swisd.sim.toy import MODEL, MODEL_ID, ToyShard, toy_manifest
from swisd.wire.messages import decode_message, encode_message, topic_of
from swisd.wire.topics import Kind, Topic

BUS_S = 0.002
RESET_S = 0.005  # until the other end of a connection knows that a process is gone


class World(Timeline):
    """A swarm in virtual time. `log` holds the lines of a transcript.

    `check` is called after every event, `on_effect` with each effect of a device before it is carried out;
    `loses` says of a message or frame (sender, receiver, what) whether the network loses it.
    """

    def __init__(self, seed: int = 0, manifest: Manifest | None = None, *, jitter: float = 0.2) -> None:
        super().__init__(seed, jitter)
        self.manifest = manifest or toy_manifest()
        self.devices: dict[str, Device] = {}
        self.log: list[str] = []
        self.on_effect: Callable[[str, object], None] | None = None
        self.loses: Callable[[str, str, object], bool] | None = None
        self.buses = Buses(self)
        self.lanes: set[frozenset[str]] = set()  # connections between devices
        self.hands = self._hands()
        self.askers = Askers(self)
        self.ask = self.askers.ask
        self._last_delivery: dict[tuple[str, str], float] = {}

    def _hands(self) -> Hands:
        return Hands(self)

    @property
    def streams(self) -> dict[str, Stream]:
        """What each asker saw."""
        return self.askers.streams

    # --- building ----------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        *,
        memory_bytes: int = 1 << 30,
        speed: Speed | None = None,
        holds: bool = False,
        claims: Claims | None = None,
        journal_bytes: int = 32 << 20,
        spares: bool = True,
        objective: Objective = "latency",
        drafter: str = "",
    ) -> str:
        """Start a device; the first one runs the broker and is host unless `claims` says otherwise.

        A device that finds no host is the host. `spares` says whether it has others' units kept loaded while
        it is host, `objective` what it plans for then. With a `drafter` it has a small model
        that guesses tokens. Returns its id.
        """
        number = len(self.devices) + 1
        ident = f"{number:016x}"
        config = DeviceConfig(
            device=ident, boot=number, name=name, port=7000 + number, addresses=("10.0.0." + str(number),),
            memory_bytes=memory_bytes, rank=number,
            claims=claims or ("never" if self.buses.found("") else "at once"),
            broker=True, forge=True, model_id=MODEL_ID, journal_bytes=journal_bytes, spares=spares,
            objective=objective, drafter=drafter,
        )  # fmt: skip
        device = Device(NodeMachine(config), speed or Speed(), ToyShard(self.manifest))
        self.devices[ident] = device
        self._feed(ident, Started())
        if holds:
            self._feed(
                ident, HoldingsChanged((Holding(MODEL, MODEL_ID, 1000, ((0, self.manifest.n_units),)),))
            )
        self._join(ident, config.claims)
        return ident

    def _join(self, ident: str, claims: Claims) -> None:
        device = self.devices[ident]
        if claims == "at once":
            self.buses.open(ident)
        wants = {"at once": ident, "when silent": EXTERNAL, "never": None}[claims]

        def gained(broker: Broker) -> None:
            self._feed(ident, BusChanged(True), device)
            for sender, message in kept_by(broker):
                self._feed(ident, Received(sender, message), device)

        def lost(why: str) -> None:
            self._feed(ident, BusChanged(False, why), device)

        def lives() -> bool:
            return device.alive and self.devices[ident] is device

        self.buses.join(ident, Client(wants, lives, gained, lost), 0.05)

    def leave(self, ident: str) -> None:
        """A proper farewell."""
        self._feed(ident, Stopping())
        self.devices[ident].alive = False
        self._later(STOP_S, lambda: self._end(ident))

    def _end(self, ident: str) -> None:
        if not self.devices[ident].alive:
            self.buses.close(ident)

    def kill(self, ident: str, *, mute: bool = False) -> None:
        """End the process in mid-sentence. Its machine refuses connections from then on, or is `mute`."""
        device, bus = self.devices[ident], self.buses.of(ident)
        device.alive, device.mute = False, mute
        self._say(f"{self._name(ident)} killed")
        will = Publish(Gone(ident, device.machine.local.config.boot, proper=False))
        if bus is not None and bus != ident and device.online:
            self._later(RESET_S, lambda: self._speak_will(bus, ident, will))
        for lane in sorted((lane for lane in self.lanes if ident in lane), key=sorted):
            self.lanes.discard(lane)
            (peer,) = lane - {ident}
            if device.online and self.devices[peer].online and device.side == self.devices[peer].side:
                lost = LinkLost(ident, "connection reset")
                self._later(RESET_S, partial(self._feed, peer, lost, self.devices[peer]))
        self.buses.close(ident)

    def _speak_will(self, bus: str, ident: str, will: Publish) -> None:
        if bus in self.buses.brokers and not self.buses._frozen(bus):
            self._pass_on(self.buses.brokers[bus], bus, ident, will)

    def restart(self, ident: str) -> None:
        """The process begins anew, under the same id and with nothing in memory."""
        old = self.devices[ident]
        old.timers.clear()
        old.shards.clear()
        self.buses.close(ident)
        config = replace(old.machine.local.config, boot=old.machine.local.config.boot + 1000)
        if config.claims != "when silent":
            # A device looks for its swarm first, where hosts were before; if nobody answers it is the host.
            config = replace(config, claims="never" if self._finds_host(old.side) else "at once")
        old.alive = False
        machine, shard = NodeMachine(config), ToyShard(self.manifest)
        self.devices[ident] = Device(machine, old.speed, shard, side=old.side)
        self._say(f"{config.name} restarts")
        self._feed(ident, Started())
        self._feed(ident, HoldingsChanged(old.machine.local.capability.holds))
        self._join(ident, config.claims)

    def _finds_host(self, side: int) -> bool:
        """Whether a device that begins on this side of a partition finds a broker there."""
        brokers = [self.devices[ident] for ident in self.buses.brokers if ident]
        up = [item for item in brokers if item.alive and item.online and item.frozen is None]
        return any(item.side == side for item in up)

    def freeze(self, ident: str) -> None:
        """Stop the process; what happens to it waits."""
        self.devices[ident].frozen = []
        self._say(f"{self._name(ident)} frozen")

    def thaw(self, ident: str) -> None:
        """The process goes on."""
        device = self.devices[ident]
        events, device.frozen = device.frozen or [], None
        self._say(f"{self._name(ident)} thawed")
        for event in events:
            self._feed(ident, event)
        if broker := self.buses.brokers.get(ident):
            waiting, broker.waiting = broker.waiting, []
            for pass_on in waiting:
                pass_on()

    def cut_off(self, ident: str) -> None:
        """The device loses the bus and its lanes."""
        self.devices[ident].online = False
        self._say(f"{self._name(ident)} cut off")
        self.buses.check()

    def reconnect(self, ident: str) -> None:
        """The device reaches the bus and its peers again."""
        self.devices[ident].online = True
        self._say(f"{self._name(ident)} back")

    def partition(self, *idents: str) -> None:
        """These devices and the others no longer reach each other. Nobody named: all do again."""
        for ident, device in self.devices.items():
            device.side = int(ident in idents)
        names = ", ".join(self._name(ident) for ident in idents)
        self._say(f"{names} apart from the others" if idents else "all together again")
        self.buses.check()

    def meets(self, one: str, other: str) -> bool:
        """Whether the network carries anything between two devices."""
        ends = (self.devices[one], self.devices[other])
        return all(end.alive and end.online for end in ends) and ends[0].side == ends[1].side

    def knock(self, name: str, effect: Knock, feed: Callable[[PortClosed], None]) -> None:
        """What comes of a knock by a device or an asker: the port is tried a few times, until it refuses."""
        refused: list[float] = []

        def attempt() -> None:
            if not refused and self._refuses(name, effect.device):
                refused.append(self.now)
                feed(PortClosed(effect.device))

        for after in deadlines.KNOCKS:
            self._later(after + self._delay(BUS_S), attempt)

    def _refuses(self, name: str, ident: str) -> bool:
        """Whether a connection of this device or asker is refused: only the process there is gone."""
        other, end = self.devices.get(ident), self.devices.get(name)
        if other is None or other.alive or other.mute or not other.online:
            return False
        side, online = (end.side, end.online) if end is not None else (0, True)  # of askers, as on the bus
        return online and side == other.side

    # --- devices -----------------------------------------------------------------------------------

    def _feed(self, ident: str, event: object, only: Device | None = None) -> None:
        """Hand an event to a device; `only` to the process that asked for it."""
        device = self.devices[ident]
        if not device.alive or (only is not None and only is not device):
            return
        if device.frozen is not None:
            device.frozen.append(event)
            return
        unheard, device.unheard = device.unheard, None
        for each in (event,) if unheard is None else (unheard, event):
            for effect in device.machine.handle(each, self.now):  # type: ignore[arg-type]
                if self.on_effect is not None:
                    self.on_effect(ident, effect)
                device.expected.note(effect)
                self.hands.do(ident, device, effect)

    # --- the bus -----------------------------------------------------------------------------------

    def _publish(self, sender: str, effect: Publish, client: str = "") -> None:
        bus = self.buses.of(client or sender)
        if bus is None:
            return
        broker = self.buses.brokers[bus]
        if self.buses._frozen(bus):
            broker.waiting.append(lambda: self._pass_on(broker, bus, sender, effect))
        else:
            self._pass_on(broker, bus, sender, effect)

    def _pass_on(self, broker: Broker, bus: str, sender: str, effect: Publish) -> None:
        topic, body = topic_of(effect.message, effect.to), encode_message(effect.message)
        if topic.kind.delivery.retain:
            broker.retained[topic] = (sender, body)
        message = decode_message(topic.kind, body)
        received = Received(sender, message)
        for ident in self._subscribers(topic):
            if self.buses.of(ident) == bus and self._carries(sender, ident, message):
                hand = self._connected(ident, partial(self._feed, ident, received))
                self._in_order(sender, ident, BUS_S, hand)
        for key in self.askers.subscribers(topic):
            if self.buses.of(key) == bus and self._carries(sender, key, message):
                hand = self._connected(key, partial(self.askers.from_bus, key, received))
                self._in_order(sender, key, BUS_S, hand)

    def _connected(self, name: str, action: Callable[[], None]) -> Callable[[], None]:
        """The action, if the client still has the connection of now by then."""
        client = self.buses.clients[name]
        number = client.number

        def act() -> None:
            if client.number == number:
                action()

        return act

    def _carries(self, sender: str, to: str, message: object) -> bool:
        return self.loses is None or not self.loses(sender, to, message)

    def _reaches(self, ident: str, peer: str) -> bool:
        return self.meets(ident, peer)

    def _subscribers(self, topic: Topic) -> Iterable[str]:
        """The devices that read a topic, in the order in which they came."""
        match topic.kind:
            case Kind.PLAN | Kind.SWARM:
                return self.devices
            case Kind.BEAT | Kind.CAP | Kind.GONE | Kind.CALL:
                return [ident for ident, device in self.devices.items() if device.leading]
            case Kind.ASK | Kind.REPAIR:
                return (topic.ident,) if topic.ident in self.devices else ()
            case _:
                return ()

    def _in_order(self, sender: str, to: str, base: float, action: Callable[[], None]) -> None:
        """Messages from one to another keep their order, as on one connection."""
        at = max(self.now + self._delay(base), self._last_delivery.get((sender, to), 0.0))
        self._last_delivery[(sender, to)] = at
        self._later(at - self.now, action)

    # --- small things ------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self.log.append(f"{self.now:7.2f}  {text}")

    def _name(self, ident: str) -> str:
        return self.devices[ident].machine.local.config.name
