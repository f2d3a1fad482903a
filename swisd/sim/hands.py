"""Simulated devices, and what the node does on a real one: each effect of a machine is carried out here."""

from collections import deque
from dataclasses import dataclass, field, replace
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
    KvRows,
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
    given_up,
)
from swisd.core.events import (
    BrokerStarted,
    DraftMade,
    FrameArrived,
    FrameLost,
    HoldingsChanged,
    HostSeen,
    KvArrived,
    KvFailed,
    KvRead,
    LinksMeasured,
    LoadProgress,
    ManifestReady,
    Measured,
    Received,
    ShardsLoaded,
    StepDone,
    StepFailed,
)
from swisd.core.machine import NodeMachine
from swisd.core.model import MAX_UNITS
from swisd.core.types import Holding, PeerLink, Profile, Units
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
TELL_S = 0.0003  # from the compute thread to the machine


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
                self._next(ident, device)
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
            world._in_order(ident, peer, LANE_S, partial(world._feed, peer, arrived))

    # --- the compute thread ------------------------------------------------------------------------

    def _next(self, ident: str, device: Device) -> None:
        """Steps, rows of caches, loads and the end of sessions are worked off in order."""
        while device.queue and not device.computing:
            self._compute(ident, device, device.queue.popleft())

    def _compute(self, ident: str, device: Device, effect: object) -> None:
        match effect:
            case RunStep():
                floor = device.floors.get(effect.work.session)
                if floor is None or not given_up(effect.work, floor):
                    self._run_step(ident, device, effect)
            case DropSession():
                device.floors.pop(effect.session, None)
                device.shard.drop(effect.session)
            case KeepShards():
                device.load += 1
                device.keep(set(effect.units))
            case LoadShards():
                self.load(ident, device, effect)
            case ReadKv():
                payload = device.shard.read(effect.session, effect.units, effect.position, effect.rows)
                if payload is not None:
                    kv = KvRows(
                        effect.epoch, effect.session, effect.units, effect.position, effect.rows, payload
                    )
                    self.later(0.0005, ident, KvRead(effect.device, kv), device)
            case ForkKv():
                if not device.shard.fork(effect.source, effect.session, effect.end, keep=effect.keep):
                    failed = KvFailed(effect.session, (0, MAX_UNITS), "rows that are not here")
                    self.later(0.0005, ident, failed, device)
            case WriteKv():
                kv = effect.kv
                owned = set(range(*kv.units)) <= device.owned
                if not owned or not device.shard.write(kv.session, kv.units, kv.position, kv.payload):
                    failed = KvFailed(kv.session, kv.units, "rows that do not fit")
                    self.later(0.0005, ident, failed, device)

    def _run_step(self, ident: str, device: Device, effect: RunStep) -> None:
        world, (start, end) = self.world, effect.units
        if effect.units not in device.shards:
            self.later(0.0002, ident, StepFailed(effect.work, "no such shard is loaded"), device)
            return
        n_units = world.manifest.n_units
        layers = max(min(end, n_units - 1) - max(start, 1), 0)
        rows = sum(slot.rows for slot in effect.activation.slots)
        passes = 1.0 if rows == 1 else max(rows / 8.0, 1.0)
        ms = passes * layers * device.speed.layer_ms + (device.speed.head_ms if end == n_units else 0)
        try:
            count, payload, token, scores = device.shard.run(
                effect.units, effect.activation, effect.sample, effect.score
            )
        except ValueError as error:
            self.later(0.0002, ident, StepFailed(effect.work, str(error)), device)
            return
        done = StepDone(effect.work, count, payload, ms, token, scores)
        device.computing = True
        world._later(world._delay(ms / 1000.0), partial(self._computed, ident, device, effect, done))

    def _computed(self, ident: str, device: Device, effect: RunStep, done: StepDone) -> None:
        """The rows go on before the machine hears of them, where that may be."""
        world = self.world
        device.computing = False
        runs = device.alive and device.frozen is None and world.devices[ident] is device
        if effect.onward and runs and world._reaches(ident, effect.onward):
            rows = effect.activation.onward(done.rows, done.payload, done.ran_ms)
            self.do(ident, device, SendFrame(effect.onward, rows))
            done = replace(done, sent=True)
        world._later(TELL_S, partial(world._feed, ident, done, device))
        self._next(ident, device)

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
