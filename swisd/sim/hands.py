"""Simulated devices, and what the node does on a real one: each effect of a machine is carried out here."""

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from swisd.core.effects import (
    CancelTimer,
    Draft,
    DropSession,
    ForkKv,
    GetManifest,
    GiveUp,
    KeepShards,
    Knock,
    Lead,
    LoadShards,
    MeasureCompute,
    MeasureLinks,
    MoveBus,
    Notice,
    ProvideModel,
    Publish,
    ReadKv,
    RunStep,
    SeekHosts,
    SendFrame,
    SendKv,
    SetTimer,
    StartBroker,
    StopBroker,
    WriteKv,
)
from swisd.core.events import (
    BrokerStarted,
    DraftMade,
    FrameArrived,
    FrameLost,
    HoldingsChanged,
    HostSeen,
    KvArrived,
    LinksMeasured,
    LoadProgress,
    ManifestReady,
    Measured,
    Received,
    ShardsLoaded,
    StepDone,
)
from swisd.core.expected import Expected
from swisd.core.machine import NodeMachine
from swisd.core.types import Holding, PeerLink, Profile, Units
from swisd.sim.computing import Computing
from swisd.sim.toy import MODEL, MODEL_ID, ToyShard, toy_guess
from swisd.wire.messages import decode_message
from swisd.wire.topics import Kind

if TYPE_CHECKING:
    from swisd.sim.world import World

LANE_S = 0.001
START_S = 0.3  # a broker
STOP_S = 0.1
LOAD_S = 0.6
DRAFT_S = 0.004  # a token of a small model
HEAR_S = 0.001  # from rows that were expected to the machine


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a simulated device is: ms per layer and for the head."""

    layer_ms: float = 5.0
    head_ms: float = 8.0


@dataclass(slots=True)
class Device:
    """One simulated device around a real machine."""

    machine: NodeMachine
    speed: Speed
    shard: ToyShard
    shards: set[Units] = field(default_factory=set)  # in memory
    owned: set[int] = field(default_factory=set)  # units whose rows it may hold
    load: int = 0  # number of the load that counts
    alive: bool = True
    mute: bool = False  # once it is not alive, its machine does not even refuse connections
    queue: deque[object] = field(default_factory=deque)  # for its compute thread
    computing: bool = False
    early: tuple[RunStep, StepDone] | None = None  # what ran before it was asked for
    expected: Expected = field(default_factory=Expected)
    unheard: FrameArrived | None = None  # rows that run already, of which the machine is about to hear
    floors: dict[str, GiveUp] = field(default_factory=dict)
    leading: bool = False
    frozen: list[object] | None = None  # events that wait, while its process is stopped
    online: bool = True
    side: int = 0  # of a partition
    timers: dict[str, int] = field(default_factory=dict)

    def keep(self, ranges: set[Units]) -> None:
        """Close all other shards, and free the rows of units that are in none of these."""
        self.shards &= ranges
        self.owned = {unit for start, end in ranges for unit in range(start, end)}
        for key in [key for key in self.shard.caches if key[1] not in self.owned]:
            del self.shard.caches[key]


class Hands:
    """Carries out the effects of devices in a world."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self._computing = Computing(self)

    def do(self, ident: str, device: Device, effect: object) -> None:
        """Begin what takes time; it ends in an event."""
        world = self.world
        match effect:
            case Publish():
                world._publish(ident, effect)
            case SendFrame() | SendKv():
                self._send(ident, device, effect)
            case SetTimer():
                world._set_timer(device.timers, effect, lambda event: world._feed(ident, event))
            case CancelTimer():
                device.timers.pop(effect.name, None)
            case Draft():
                ids = toy_guess(effect.ids, effect.count, world.manifest.vocab)
                made = DraftMade(effect.session, len(effect.ids), ids)
                self.later(DRAFT_S * effect.count, ident, made, device)
            case GiveUp():
                device.floors[effect.session] = effect
            case RunStep() | ReadKv() | WriteKv() | ForkKv() | DropSession() | KeepShards() | LoadShards():
                device.queue.append(effect)
                self._computing.next(ident, device)
            case GetManifest():
                ready = ManifestReady(effect.model, world.manifest)
                self.later(0.05, ident, ready, device)
            case ProvideModel():
                holds = HoldingsChanged((Holding(MODEL, MODEL_ID, 1000, ((0, world.manifest.n_units),)),))
                self.later(1.0, ident, holds, device)
            case MeasureCompute():
                speed = device.speed
                profile = Profile(effect.model, speed.layer_ms, speed.layer_ms / 8, speed.head_ms, 0.05, 0.2)
                self.later(0.5, ident, Measured(profile), device)
            case MeasureLinks():
                links = tuple(PeerLink(peer, 2 * LANE_S * 1000, 1000.0) for peer in effect.devices)
                self.later(0.1, ident, LinksMeasured(links), device)
            case Notice():
                world._say(f"{world._name(ident)}: {effect.text}")
            case _:
                self._host(ident, device, effect)

    def later(self, seconds: float, ident: str, event: object, device: Device) -> None:
        """An event for this process, after about so long."""
        self.world._later(self.world._delay(seconds), partial(self.world._feed, ident, event, device))

    def _host(self, ident: str, device: Device, effect: object) -> None:
        world = self.world
        match effect:
            case Lead():
                device.leading = effect.leading
                bus = world.buses.of(ident)
                if effect.leading and bus is not None:
                    for topic, (sender, body) in list(world.buses.brokers[bus].retained.items()):
                        if topic.kind is Kind.CAP:
                            message = decode_message(topic.kind, body)
                            world._later(0, partial(world._feed, ident, Received(sender, message)))
            case StartBroker():
                world._later(world._delay(START_S), partial(self._start_broker, ident, device))
            case StopBroker():
                world._later(STOP_S, partial(self._stop_broker, ident, device))
            case MoveBus():
                world.buses.move(ident, effect.device)
            case Knock():
                world.knock(ident, effect, lambda closed: world._feed(ident, closed, device))
            case SeekHosts():
                for peer, other in world.devices.items():
                    if peer != ident and world.meets(ident, peer) and other.frozen is None and other.leading:
                        config, host = other.machine.local.config, other.machine.host
                        where = config.addresses[0], config.port
                        seen = HostSeen(peer, host.epoch, config.rank, host.followed, *where)
                        self.later(2 * LANE_S, ident, seen, device)

    def _start_broker(self, ident: str, device: Device) -> None:
        world = self.world
        if device.alive and world.devices[ident] is device:
            world.buses.open(ident)
            world._feed(ident, BrokerStarted(), device)

    def _stop_broker(self, ident: str, device: Device) -> None:
        if self.world.devices[ident] is device and not device.machine.leadership.own_bus:
            self.world.buses.close(ident)

    # --- lanes -------------------------------------------------------------------------------------

    def _send(self, ident: str, device: Device, effect: SendFrame | SendKv) -> None:
        world, peer = self.world, effect.device
        if not world._reaches(ident, peer):
            if isinstance(effect, SendFrame):
                lost = FrameLost(peer, effect.activation, "no lane works")
                self.later(LANE_S, ident, lost, device)
            return
        world.lanes.add(frozenset((ident, peer)))
        arrived: FrameArrived | KvArrived = (
            FrameArrived(ident, effect.activation)
            if isinstance(effect, SendFrame)
            else KvArrived(ident, effect.kv)
        )
        if world.loses is None or not world.loses(ident, peer, arrived):
            world._in_order(ident, peer, LANE_S, partial(self._arrive, peer, arrived))

    def _arrive(self, ident: str, arrived: FrameArrived | KvArrived) -> None:
        """Rows that were expected run, and the machine hears of them a moment later."""
        world, device = self.world, self.world.devices[ident]
        step = None
        if isinstance(arrived, FrameArrived) and device.alive and device.frozen is None:
            step = device.expected.step(arrived)
        if step is None or not isinstance(arrived, FrameArrived):
            world._feed(ident, arrived)
            return
        self._computing.begin(ident, device, step)
        device.unheard = arrived
        world._later(HEAR_S, partial(self._hear, ident, device, arrived))

    def _hear(self, ident: str, device: Device, arrived: FrameArrived) -> None:
        if device.unheard is arrived and device.frozen is None:  # else with the next that it hears of
            device.unheard = None
            self.world._feed(ident, arrived, device)

    def load(self, ident: str, device: Device, effect: LoadShards) -> None:
        """Load beside what is kept; a later load makes this one void."""
        world = self.world
        device.load += 1
        number = device.load
        wanted = set(effect.wanted)
        device.keep({*wanted, *effect.keep})

        def loaded() -> None:
            if device.load == number:
                device.shards |= wanted
                units = tuple(sorted(device.shards))
                held = sum(world.manifest.resident_bytes(*item) for item in units)
                world._feed(ident, ShardsLoaded(effect.epoch, units, held), device)

        missing = wanted - device.shards
        if missing:
            self.later(LOAD_S / 3, ident, LoadProgress(effect.epoch, True, 0.5), device)
        world._later(world._delay(LOAD_S if missing else 0.001), loaded)
