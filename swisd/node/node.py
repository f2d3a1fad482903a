"""A device: the machine, and the hands that do what it says."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from swisd.core.config import DeviceConfig
from swisd.core.effects import (
    CancelTimer,
    Draft,
    DropSession,
    Effect,
    ForkKv,
    GiveUp,
    Knock,
    Lead,
    MoveBus,
    Notice,
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
    BusChanged,
    Dropped,
    Event,
    FrameLost,
    HoldingsChanged,
    HopsTimed,
    LoadFailed,
    Measured,
    OfferChanged,
    Received,
    Started,
    StepDone,
    Stopping,
    Timer,
)
from swisd.core.machine import NodeMachine
from swisd.core.messages import Digest, Message
from swisd.core.rows import KvRows
from swisd.core.types import Plan
from swisd.node.company import Sent
from swisd.node.compute import Compute
from swisd.node.courier import Courier
from swisd.node.describe import counts_of
from swisd.node.drafting import Drafting
from swisd.node.early import Early
from swisd.node.errands import Errands
from swisd.node.home import Home
from swisd.node.memory import available_bytes
from swisd.node.onward import Onward
from swisd.node.outgoing import Outgoing
from swisd.node.rows import arrived
from swisd.node.supply import Supply
from swisd.transport.api import Lanes
from swisd.wire.frames import Frame
from swisd.wire.topics import Kind

log = logging.getLogger(__name__)
OFFER_EVERY = 5.0  # seconds between looks at the memory
HOPS_EVERY = 1.0  # seconds between words about hops, while there are any

Observed = Notice | Digest | Plan | BusChanged
LED = (Kind.BEAT, Kind.CAP, Kind.GONE, Kind.CALL)


class Node:
    """Owns the tasks of one device. Make it inside a running event loop.

    `observe` is told what a person may want to see: notices, digests, plans, the state of the bus. `offering`
    says how many bytes are offered, given how many its shards hold.
    """

    def __init__(
        self,
        config: DeviceConfig,
        home: Home,
        key: bytes,
        observe: Callable[[Observed], None],
        *,
        offering: Callable[[int], int],
        alone: bool = False,
    ) -> None:
        self.config = config
        self.machine = NodeMachine(config)
        self.supply = Supply(home.blobs, home.models, key, config.device)
        self.courier = Courier(key, config.device, self._on_message, self._on_drop, self.feed_shard)
        self.on_hosting: Callable[[Effect], None] = lambda effect: None  # broker and bus, if they can move
        self.on_digest: Callable[[Digest], None] = lambda digest: None
        self.shard_sink: Callable[[str, memoryview], None] | None = None
        self._observer, self._offering = observe, offering
        self._loop = asyncio.get_running_loop()
        counts = counts_of(config.threads) if config.fewer else (config.threads,)
        self._compute = Compute(home.blobs, home.path / "scratch", counts, self._computed)
        self.times = self._compute.times
        self.drafting: Drafting | None = None  # a small model, if this device has one ready
        self._inwards = False  # a frame with one row is being handled
        self._outgoing: Outgoing | None = None
        self._errands = Errands(
            self.machine.local, home, self.supply, self._compute, self.post, self._observe, alone=alone
        )
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._refusals: list[tuple[Callable[[], Mapping[str, int]], Counter[str]]] = []
        self._events: deque[Event] = deque()
        self._early = Early(self._compute, self.times, self.post, self._loop.call_later)
        self._to_publish: deque[Publish] = deque()
        self._handling = False
        self._stopped = False

    # --- life --------------------------------------------------------------------------------------

    def start(self, lanes: Lanes) -> None:
        """Begin; the bus was attached to the courier before and may connect any time."""
        self._early.lanes = self._errands.lanes = lanes
        self._outgoing = Outgoing(lanes, self.config.device, self._rows_lost)
        self._compute.send_onward(Onward(lanes, self.config.device, self._outgoing.clear, self.times))
        self.courier.subscribe(Kind.PLAN)
        self.courier.subscribe(Kind.SWARM)
        self.courier.subscribe(Kind.ASK, self.config.device)
        self.courier.subscribe(Kind.REPAIR, self.config.device)
        self.courier.subscribe(Kind.SHARD, self.config.device)
        self.post(Started())
        self.post(HoldingsChanged(self.supply.holdings()))
        self._watch_memory()

    async def stop(self) -> None:
        """Say goodbye, free everything. The bus is closed by whoever opened it, afterwards."""
        self.post(Stopping())
        self._publish_all()
        self._stopped = True
        for handle in self._timers.values():
            handle.cancel()
        await self._errands.close()
        if self._outgoing is not None:
            await self._outgoing.close()
        await self.supply.close()
        await self._compute.close()

    def post(self, *events: Event) -> None:
        """Give the machine events and do what it says. Only in the event loop.

        Steps and rows that come of them go on together.
        """
        self._events += (*self._early.unheard(), *events)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events and not self._stopped:
                for effect in self.machine.handle(self._events.popleft(), self._loop.time()):
                    self._do(effect)
        finally:
            self._handling = False
        self._compute.flush()
        if self._outgoing is not None:
            self._outgoing.flush()
            self.times.sent()

    def _computed(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Measured) and event.profile not in self.machine.local.capability.profiles:
                self._errands.keep(event.profile)
            elif isinstance(event, LoadFailed):
                self._errands.on_load_failed(event)
        gone_on = any(isinstance(event, StepDone) and event.sent for event in events)
        if gone_on:
            self._tell_of_hops()
        self.post(*events)
        if gone_on and not self._stopped:
            self._early.listen()

    # --- what comes in -----------------------------------------------------------------------------

    def on_bus_state(self, connected: bool, reason: str) -> None:
        if self._stopped:
            return
        event = BusChanged(connected, reason)
        self.post(event)
        self._observe(event)

    def on_frame(self, device: str, frame: Frame) -> None:
        """A checked frame from a proved device, on any lane."""
        events = arrived(device, frame)
        if events:
            if frame.rows == 1:
                self.times.read()
                if self._early.begin(events):
                    return
                self._inwards = True
            self.post(*events)
            self._inwards = False
        else:
            self._on_drop("frame without meaning here")

    def feed_shard(self, sender: str, body: memoryview) -> None:
        if self.shard_sink is not None:
            self.shard_sink(sender, body)

    def addresses_of(self, device: str) -> list[tuple[str, int]]:
        """Where a device listens, as the digest says."""
        digest = self.machine.local.digest
        for member in digest.members if digest else ():
            if member.device == device:
                return [(address, member.port) for address in member.addresses]
        return []

    def knows(self, device: str) -> bool:
        """Whether the digest lists this device as present."""
        digest = self.machine.local.digest
        return any(
            member.device == device and member.liveness in ("alive", "suspect")
            for member in (digest.members if digest else ())
        )

    def name_of(self, device: str) -> str:
        """A device's name, or its id."""
        return self.machine.local.name_of(device)

    def _on_message(self, sender: str, message: Message) -> None:
        if isinstance(message, Digest):
            self.supply.on_digest(message)
            self.on_digest(message)
        self.post(Received(sender, message))
        if isinstance(message, Digest | Plan):
            self._observe(message)

    def _observe(self, event: Observed) -> None:
        """Tell whoever watches; that a terminal was closed must not keep the device from its work."""
        try:
            self._observer(event)
        except Exception:
            log.exception("nobody could be told of %s", type(event).__name__)

    def _on_drop(self, reason: str) -> None:
        self.post(Dropped(reason))

    def _rows_lost(self, device: str, rows: Sent, reason: str) -> None:
        if isinstance(rows, KvRows):
            # Whoever waits for them has a deadline, and rebuilds them from the rows before.
            log.warning("keys and values for %s are lost: %s", self.name_of(device), reason)
        else:
            self.post(FrameLost(device, rows, reason))

    # --- what is to be done ------------------------------------------------------------------------

    def _do(self, effect: Effect) -> None:
        self._early.expected.note(effect)
        match effect:
            case Publish():
                if not self._to_publish:
                    self._loop.call_soon(self._publish_all)
                self._to_publish.append(effect)
            case SendFrame() if self._outgoing is not None:
                self._send(self._outgoing, effect)
            case SendKv() if self._outgoing is not None:
                self._outgoing.send(effect.device, effect.kv)
            case RunStep():
                if self._inwards:
                    self._inwards = False
                    self.times.taken()
                self._compute.run(effect)
            case ReadKv():
                self._compute.read_kv(effect)
            case WriteKv():
                self._compute.write_kv(effect.kv)
            case ForkKv():
                self._compute.fork_kv(effect)
            case SetTimer():
                self._set_timer(effect)
            case CancelTimer():
                if handle := self._timers.pop(effect.name, None):
                    handle.cancel()
            case GiveUp():
                self._compute.give_up(effect)
            case Draft():
                if self.drafting is not None:
                    self.drafting.ask(effect)
            case DropSession():
                self._compute.drop(effect.session)
            case Notice():
                self._observe(effect)
            case Lead():
                for kind in LED:
                    (self.courier.subscribe if effect.leading else self.courier.unsubscribe)(kind)
            case StartBroker() | StopBroker() | MoveBus() | SeekHosts():
                self._publish_all()  # a last word goes to the bus that is left
                self.on_hosting(effect)
            case Knock():
                self.on_hosting(effect)
            case _:
                self._errands.do(effect)

    def _send(self, outgoing: Outgoing, effect: SendFrame) -> None:
        if effect.activation.rows != 1:
            outgoing.send(effect.device, effect.activation)
            return
        self.times.sending()
        outgoing.send(effect.device, effect.activation)
        self._tell_of_hops()

    def _tell_of_hops(self) -> None:
        if "hops" not in self._timers:
            self._timers["hops"] = self._loop.call_later(HOPS_EVERY, self._tell_hops)

    def _tell_hops(self) -> None:
        del self._timers["hops"]
        self.post(HopsTimed(self.times.parts()))

    def _publish_all(self) -> None:
        """Say what the machine said, one turn of the loop later.

        Sealing and sending take longer than starting the next step, and both need Python's lock: this way the
        compute thread has it first, and telling a token overlaps with computing the next.
        """
        while self._to_publish:
            effect = self._to_publish.popleft()
            self.courier.publish(effect.message, effect.to)

    def count_refused(self, source: Callable[[], Mapping[str, int]]) -> None:
        """Add a counter of what is refused before it reaches the machine (strangers, bad frames)."""
        self._refusals.append((source, Counter()))

    def _watch_refusals(self) -> None:
        for source, before in self._refusals:
            now = source()
            for reason, count in now.items():
                if count > before[reason]:
                    self.post(Dropped(reason, count - before[reason]))
                    before[reason] = count

    def _watch_memory(self) -> None:
        self._timers["memory"] = self._loop.call_later(OFFER_EVERY, self._watch_memory)
        self._watch_refusals()
        held = self._compute.resident_bytes
        self.post(OfferChanged(self._offering(held), available_bytes(), held + self._compute.kv_bytes))

    def _set_timer(self, effect: SetTimer) -> None:
        if handle := self._timers.pop(effect.name, None):
            handle.cancel()

        def fire() -> None:
            self._timers.pop(effect.name, None)
            self.post(Timer(effect.name))

        self._timers[effect.name] = self._loop.call_at(effect.at, fire)
