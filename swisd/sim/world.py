"""Virtual time, a bus, lanes and devices. Everything random is drawn from one seeded generator."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from swisd.core.asker import Answered, Asker, Ended, Listen, Request, Waiting
from swisd.core.config import Claims, DeviceConfig
from swisd.core.effects import (
    CancelTimer,
    DropSession,
    GetManifest,
    Lead,
    LoadShards,
    MeasureCompute,
    MeasureLinks,
    MoveBus,
    Notice,
    ProvideModel,
    Publish,
    RunStep,
    SeekHosts,
    SendFrame,
    SetTimer,
    StartBroker,
    StopBroker,
    UnloadShards,
)
from swisd.core.events import (
    BrokerStarted,
    BusChanged,
    FrameArrived,
    FrameLost,
    HoldingsChanged,
    HostSeen,
    LinksMeasured,
    LoadFailed,
    LoadProgress,
    ManifestReady,
    Measured,
    Received,
    ShardsLoaded,
    Started,
    StepDone,
    StepFailed,
    Stopping,
    Timer,
)
from swisd.core.machine import NodeMachine
from swisd.core.messages import Message
from swisd.core.model import Manifest
from swisd.core.search import BusSearch
from swisd.core.types import Holding, PeerLink, Profile, SamplingParams, Stage
from swisd.sim.bus import EXTERNAL, Broker, Buses, Client
from swisd.sim.toy import MODEL, MODEL_ID, ToyShard, toy_manifest
from swisd.wire.messages import decode_message, encode_message, topic_of
from swisd.wire.topics import Kind, Topic

LANE_S = 0.001
BUS_S = 0.002
START_S = 0.3  # a broker
STOP_S = 0.1


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
    stages: dict[int, Stage] = field(default_factory=dict)
    loaded_bytes: int = 0
    alive: bool = True
    busy_until: float = 0.0
    leading: bool = False
    frozen: list[object] | None = None  # events that wait, while its process is stopped
    online: bool = True
    side: int = 0  # of a partition
    timers: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Stream:
    """What an asker saw."""

    asker: Asker
    search: BusSearch = field(default_factory=BusSearch)
    listening: set[str] = field(default_factory=set)
    tokens: list[int] = field(default_factory=list)
    scores: int = 0
    ended: Ended | None = None
    timers: dict[str, int] = field(default_factory=dict)


class World:
    """A swarm in virtual time. `log` holds the lines of a transcript.

    `check` is called after every event, `on_effect` with each effect of a device before it is carried out;
    `loses` says of a message or frame (sender, receiver, what) whether the network loses it.
    """

    def __init__(self, seed: int = 0, manifest: Manifest | None = None, *, jitter: float = 0.2) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.manifest = manifest or toy_manifest()
        self.devices: dict[str, Device] = {}
        self.streams: dict[str, Stream] = {}
        self.log: list[str] = []
        self.check: Callable[[], None] | None = None
        self.on_effect: Callable[[str, object], None] | None = None
        self.loses: Callable[[str, str, object], bool] | None = None
        self._jitter = jitter
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.buses = Buses(self)
        self._last_delivery: dict[tuple[str, str], float] = {}

    # --- building ----------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        *,
        memory_bytes: int = 1 << 30,
        speed: Speed | None = None,
        holds: bool = False,
        claims: Claims | None = None,
    ) -> str:
        """Start a device; the first one runs the broker and is host unless `claims` says otherwise.

        A device that finds no host is the host. Returns its id.
        """
        number = len(self.devices) + 1
        ident = f"{number:016x}"
        config = DeviceConfig(
            device=ident, boot=number, name=name, port=7000 + number, addresses=("10.0.0." + str(number),),
            memory_bytes=memory_bytes, rank=number,
            claims=claims or ("never" if self.buses.found("") else "at once"),
            broker=True, forge=True, model_id=MODEL_ID,
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
            for sender, message in _kept(broker):
                self._feed(ident, Received(sender, message), device)

        def lost(why: str) -> None:
            self._feed(ident, BusChanged(False, why), device)

        def lives() -> bool:
            return device.alive and self.devices[ident] is device

        self.buses.join(ident, Client(wants, lives, gained, lost), 0.05)

    def ask(self, prompt: tuple[int, ...], count: int, *, seed: int = 1, score_top: int = 0) -> str:
        """Submit a session; returns its key in `streams`."""
        number = len(self.streams) + 1
        key = f"a{number:013x}00"
        request = Request(key, f"f{number:015x}", prompt, count, SamplingParams(), seed, (), score_top)
        stream = Stream(Asker(request))
        self.streams[key] = stream
        self._to_asker(key, Started())
        self._to_search(key, Started())

        def gained(broker: Broker) -> None:
            self._from_bus(key, BusChanged(True))
            for sender, message in _kept(broker):
                self._from_bus(key, Received(sender, message))

        def lost(why: str) -> None:
            self._from_bus(key, BusChanged(False, why))

        external = any(item.machine.local.config.claims == "when silent" for item in self.devices.values())
        client = Client(EXTERNAL if external else None, lambda: stream.ended is None, gained, lost)
        self.buses.join_now(key, client)
        return key

    def leave(self, ident: str) -> None:
        """A proper farewell."""
        self._feed(ident, Stopping())
        self.devices[ident].alive = False
        self._later(STOP_S, lambda: self._end(ident))

    def _end(self, ident: str) -> None:
        if not self.devices[ident].alive:
            self.buses.close(ident)

    def kill(self, ident: str) -> None:
        """Power off, in mid-sentence."""
        self.devices[ident].alive = False
        self._say(f"{self._name(ident)} killed")
        self.buses.close(ident)

    def restart(self, ident: str) -> None:
        """The process begins anew, under the same id and with nothing in memory."""
        old = self.devices[ident]
        old.timers.clear()
        old.stages.clear()
        self.buses.close(ident)
        config = replace(old.machine.local.config, boot=old.machine.local.config.boot + 1000)
        if config.claims != "when silent":
            # A device looks for its swarm first, where hosts were before; if nobody answers it is the host.
            config = replace(config, claims="never" if self.buses.found("") else "at once")
        old.alive = False
        self.devices[ident] = Device(NodeMachine(config), old.speed, ToyShard(self.manifest))
        self._say(f"{config.name} restarts")
        self._feed(ident, Started())
        self._feed(ident, HoldingsChanged(old.machine.local.capability.holds))
        self._join(ident, config.claims)

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

    # --- time --------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self._next()
        self.now = end

    def run_until(self, condition: Callable[[], bool], within: float) -> bool:
        """Let time pass until the condition holds, at most `within` seconds."""
        end = self.now + within
        while not condition():
            if not self._queue or self._queue[0][0] > end:
                self.now = end
                return condition()
            self._next()
        return True

    def _next(self) -> None:
        self.now, _, action = heapq.heappop(self._queue)
        action()
        if self.check is not None:
            self.check()

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + delay, self._order, action))

    def _delay(self, base: float) -> float:
        return base * (1.0 + self._jitter * self.random.random())

    # --- devices -----------------------------------------------------------------------------------

    def _feed(self, ident: str, event: object, only: Device | None = None) -> None:
        """Hand an event to a device; `only` to the process that asked for it."""
        device = self.devices[ident]
        if not device.alive or (only is not None and only is not device):
            return
        if device.frozen is not None:
            device.frozen.append(event)
            return
        for effect in device.machine.handle(event, self.now):  # type: ignore[arg-type]
            if self.on_effect is not None:
                self.on_effect(ident, effect)
            self._do(ident, device, effect)

    def _do(self, ident: str, device: Device, effect: object) -> None:  # noqa: PLR0915
        match effect:
            case Publish():
                self._publish(ident, effect)
            case SendFrame() if not self._reaches(ident, effect.device):
                lost = FrameLost(effect.device, effect.activation, "no lane works")
                self._later(self._delay(LANE_S), lambda: self._feed(ident, lost, device))
            case SendFrame():
                arrived = FrameArrived(ident, effect.activation)
                if self.loses is None or not self.loses(ident, effect.device, arrived):
                    self._in_order(ident, effect.device, LANE_S, lambda: self._feed(effect.device, arrived))
            case SetTimer():
                self._set_timer(device.timers, effect, lambda event: self._feed(ident, event))
            case CancelTimer():
                device.timers.pop(effect.name, None)
            case RunStep():
                self._run_step(ident, device, effect)
            case LoadShards():
                self._load(ident, device, effect)
            case UnloadShards():
                device.stages.clear()
                device.shard.caches.clear()
                device.loaded_bytes = 0
            case DropSession():
                device.shard.drop(effect.session)
            case GetManifest():
                ready = ManifestReady(effect.model, self.manifest)
                self._later(self._delay(0.05), lambda: self._feed(ident, ready, device))
            case ProvideModel():
                holds = HoldingsChanged((Holding(MODEL, MODEL_ID, 1000, ((0, self.manifest.n_units),)),))
                self._later(self._delay(1.0), lambda: self._feed(ident, holds, device))
            case MeasureCompute():
                speed = device.speed
                profile = Profile(effect.model, speed.layer_ms, speed.layer_ms / 8, speed.head_ms, 0.05, 0.2)
                self._later(self._delay(0.5), lambda: self._feed(ident, Measured(profile), device))
            case MeasureLinks():
                links = tuple(PeerLink(peer, 2 * LANE_S * 1000, 1000.0) for peer in effect.devices)
                self._later(self._delay(0.1), lambda: self._feed(ident, LinksMeasured(links), device))
            case Notice():
                self._say(f"{self._name(ident)}: {effect.text}")
            case Lead():
                device.leading = effect.leading
                bus = self.buses.of(ident)
                if effect.leading and bus is not None:
                    for topic, (sender, body) in list(self.buses.brokers[bus].retained.items()):
                        if topic.kind is Kind.CAP:
                            message = decode_message(topic.kind, body)
                            self._later(0, partial(self._feed, ident, Received(sender, message)))
            case StartBroker():
                self._later(self._delay(START_S), partial(self._start_broker, ident, device))
            case StopBroker():
                self._later(STOP_S, partial(self._stop_broker, ident, device))
            case MoveBus():
                self.buses.move(ident, effect.device)
            case SeekHosts():
                for peer, other in self.devices.items():
                    if peer != ident and self.meets(ident, peer) and other.frozen is None and other.leading:
                        rank = other.machine.local.config.rank
                        host = other.machine.host
                        seen = HostSeen(peer, host.epoch, rank, host.followed, peer, 0)
                        self._later(self._delay(2 * LANE_S), partial(self._feed, ident, seen, device))

    def _start_broker(self, ident: str, device: Device) -> None:
        if device.alive and self.devices[ident] is device:
            self.buses.open(ident)
            self._feed(ident, BrokerStarted(), device)

    def _stop_broker(self, ident: str, device: Device) -> None:
        if self.devices[ident] is device and not device.machine.leadership.own_bus:
            self.buses.close(ident)

    def _run_step(self, ident: str, device: Device, effect: RunStep) -> None:
        stage = device.stages.get(effect.work.stage)
        if stage is None:
            self._feed(ident, StepFailed(effect.work, "no such stage is loaded"))
            return
        layers = min(stage.end, self.manifest.n_units - 1) - max(stage.start, 1)
        ms = layers * device.speed.layer_ms + (
            device.speed.head_ms if stage.end == self.manifest.n_units else 0
        )
        start = max(self.now, device.busy_until)
        device.busy_until = start + self._delay(ms / 1000.0)

        # Steps, loading and the end of sessions are worked off in order, so the result is known now.
        try:
            rows, payload, token, scores = device.shard.run(
                stage, effect.activation, effect.sample, effect.score
            )
        except ValueError as error:
            self._feed(ident, StepFailed(effect.work, str(error)))
            return
        done = StepDone(effect.work, rows, payload, ms, token, scores)
        self._later(device.busy_until - self.now, lambda: self._feed(ident, done, device))

    def _load(self, ident: str, device: Device, effect: LoadShards) -> None:
        device.stages.clear()
        device.shard.caches.clear()
        need = sum(self.manifest.resident_bytes(stage.start, stage.end) for _, stage in effect.stages)
        if need > device.machine.local.config.memory_bytes:
            self._feed(ident, LoadFailed(effect.epoch, "the offer is smaller than the shard"))
            return

        def loaded() -> None:
            plan = device.machine.local.plan
            if plan is not None and plan.epoch == effect.epoch:
                device.stages = dict(effect.stages)
                device.loaded_bytes = need
                self._feed(ident, ShardsLoaded(effect.epoch, need), device)

        self._later(
            self._delay(0.2), lambda: self._feed(ident, LoadProgress(effect.epoch, True, 0.5), device)
        )
        self._later(self._delay(0.6), loaded)

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
        for ident, device in self.devices.items():
            here = self.buses.of(ident) == bus and self._subscribed(ident, device, topic)
            if here and self._carries(sender, ident, message):
                hand = self._connected(ident, partial(self._feed, ident, Received(sender, message)))
                self._in_order(sender, ident, BUS_S, hand)
        for key, stream in self.streams.items():
            told = topic.kind in (Kind.PLAN, Kind.SWARM) and stream.ended is None
            listens = told or topic.ident in stream.listening
            if self.buses.of(key) == bus and listens and self._carries(sender, key, message):
                hand = self._connected(key, partial(self._from_bus, key, Received(sender, message)))
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

    def _subscribed(self, ident: str, device: Device, topic: Topic) -> bool:
        match topic.kind:
            case Kind.PLAN | Kind.SWARM:
                return True
            case Kind.BEAT | Kind.CAP | Kind.GONE | Kind.CALL:
                return device.leading
            case Kind.ASK:
                return topic.ident == ident
            case _:
                return False

    def _in_order(self, sender: str, to: str, base: float, action: Callable[[], None]) -> None:
        """Messages from one to another keep their order, as on one connection."""
        at = max(self.now + self._delay(base), self._last_delivery.get((sender, to), 0.0))
        self._last_delivery[(sender, to)] = at
        self._later(at - self.now, action)

    # --- askers ------------------------------------------------------------------------------------

    def _from_bus(self, key: str, event: object) -> None:
        self._to_asker(key, event)
        self._to_search(key, event)

    def _to_search(self, key: str, event: object) -> None:
        stream = self.streams[key]
        if stream.ended is not None or self.buses.of(key) == EXTERNAL:
            return
        for effect in stream.search.handle(event, self.now):
            match effect:
                case SetTimer():
                    self._set_timer(stream.timers, effect, lambda item: self._to_search(key, item))
                case MoveBus():
                    self.buses.move(key, effect.device)

    def _to_asker(self, key: str, event: object) -> None:
        stream = self.streams[key]
        for effect in stream.asker.handle(event, self.now):
            match effect:
                case Publish():
                    self._publish(f"f{key[1:]}", effect, client=key)
                case SetTimer():
                    self._set_timer(stream.timers, effect, lambda item: self._to_asker(key, item))
                case CancelTimer():
                    stream.timers.pop(effect.name, None)
                case Listen():
                    stream.listening.add(effect.session)
                case Answered():
                    stream.tokens.extend(effect.out.tokens)
                    stream.scores += len(effect.out.top_ids)
                case Waiting():
                    self._say(f"asker {key[:14].lstrip('a0') or '0'} waits: {effect.text}")
                case Ended():
                    stream.ended = effect
                    self._say(
                        f"asker {key[:14].lstrip('a0') or '0'} ended: {effect.finish} {effect.error}".rstrip()
                    )

    def _set_timer(self, timers: dict[str, int], effect: SetTimer, feed: Callable[[Timer], None]) -> None:
        self._order += 1
        token = self._order
        timers[effect.name] = token

        def fire() -> None:
            if timers.get(effect.name) == token:
                del timers[effect.name]
                feed(Timer(effect.name))

        self._later(max(0.0, effect.at - self.now), fire)

    def _say(self, text: str) -> None:
        self.log.append(f"{self.now:7.2f}  {text}")

    def _name(self, ident: str) -> str:
        return self.devices[ident].machine.local.config.name


def _kept(broker: Broker) -> list[tuple[str, Message]]:
    """What a newcomer hears at once."""
    kept = sorted(broker.retained.items(), key=lambda item: item[0].kind.value)
    return [
        (sender, decode_message(topic.kind, body))
        for topic, (sender, body) in kept
        if topic.kind in (Kind.PLAN, Kind.SWARM)
    ]
