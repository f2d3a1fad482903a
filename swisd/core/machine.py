"""The heart: `handle(event, now) -> effects`. The same machine runs on a device and in the simulator.

It joins the parts: a device is always a member, a worker when the plan gives it a stage, the driver when it
holds both ends of the model, and the host when it leads.
"""

from swisd.core import deadlines
from swisd.core.change import HostChange
from swisd.core.config import DeviceConfig
from swisd.core.driver import Driver
from swisd.core.effects import Effect, Lead, Notice, Publish, SetTimer
from swisd.core.events import (
    BrokerFailed,
    BrokerStarted,
    BusChanged,
    DraftMade,
    Dropped,
    Event,
    HoldingsChanged,
    HopsTimed,
    HostSeen,
    LinksMeasured,
    LoadFailed,
    LoadProgress,
    ManifestFailed,
    ManifestReady,
    Measured,
    MeasureFailed,
    OfferChanged,
    PortClosed,
    ProvideFailed,
    ProvideProgress,
    Received,
    ShardsLoaded,
    Started,
    Stopping,
    Timer,
)
from swisd.core.host import Host
from swisd.core.leadership import Leadership
from swisd.core.local import Effects, Local, capability_of
from swisd.core.member import Member
from swisd.core.messages import Ask, Beat, Call, Digest, Gone, Repair
from swisd.core.pulse import Pulse
from swisd.core.repairs import Repairs
from swisd.core.replan import believable
from swisd.core.service import Service
from swisd.core.steps import RowEvent, Steps, UnderWay
from swisd.core.types import Capability, Plan
from swisd.core.worker import Worker


class NodeMachine:
    """One device, pure. `now` is in seconds of any monotonic clock."""

    def __init__(self, config: DeviceConfig) -> None:
        self.local = Local(config, capability_of(config))
        self.member = Member(self.local)
        self.leadership = Leadership(config)
        self.host = Host(self.local)
        self.worker = Worker(self.local)
        self.repairs = Repairs(self.local, self.worker)
        self.driver = Driver(self.local, self.worker)
        self.pulse = Pulse(self.local, self.member, self.worker, self.driver)
        self.under_way = UnderWay()
        self.service = Service(self.local, self.worker, self.driver, self.under_way.clear)
        self.steps = Steps(self.local, self.under_way, self.worker, self.driver, self.service)
        self.change = HostChange(self.local, self.leadership, self.host)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and say what is to be done."""
        out: Effects = []
        self._take(event, now, out)
        at = 0
        while at < len(out):
            effect = out[at]
            if isinstance(effect, Publish) and effect.to == self.local.device:
                del out[at]  # what a device says to itself needs no bus
                self._on_message(Received(self.local.device, effect.message), now, out)
                continue
            self.under_way.note(effect)
            at += 1
        return out

    def _take(self, event: Event, now: float, out: Effects) -> None:
        match event:
            case Received():
                self._on_message(event, now, out)
            case _ if isinstance(event, RowEvent):
                self.steps.take(event, now, out)
            case Timer():
                self._on_timer(event.name, now, out)
            case BusChanged():
                self._on_bus(event, now, out)
            case Started():
                pass
            case Stopping():
                self.change.on_stopping(out)
                self.local.stopping = True
                self.member.farewell(out)
            case _:
                self._on_own(event, now, out)

    def _on_message(self, event: Received, now: float, out: Effects) -> None:
        message, leading = event.message, self.leadership.leading
        match message:
            case Beat() | Capability() | Gone() if message.device != event.sender:
                self.local.drop("message in another device's name")
            case Beat() if leading:
                self.host.on_beat(message, now, out)
            case Capability() if leading:
                self.host.on_capability(message, now)
            case Gone() if leading:
                self.host.on_gone(message, now, out)
            case Call() if leading:
                self.host.on_call(message, now, out)
            case Digest() if message.host == event.sender:
                self._on_digest(message, now, out)
            case Plan() if message.host == event.sender:
                self._on_plan(message, now, out)
            case Ask():
                self._on_ask(message, now, out)
            case Repair() if message.device != event.sender:
                self.local.drop("message in another device's name")
            case Repair():
                if message.op not in ("move", "moved"):
                    self.service.confirm(message.epoch, now, out)
                if message.op == "move":
                    self.service.moving.on_move(message, event.sender, out)
                elif message.op == "moved":
                    if self.service.moving.on_moved(message, event.sender) and self.service.caches_came(out):
                        self.member.beat(now, out)
                elif message.op in ("probe", "resume", "fork", "replay"):
                    self.repairs.on_repair(message, event.sender, now, out)
                else:
                    self.driver.on_repair(message, now, out)
            case Digest() | Plan():
                self.local.drop("message in another device's name")
            case _:
                pass

    def _on_digest(self, digest: Digest, now: float, out: Effects) -> None:
        led = self.leadership.leading
        if not self.leadership.on_digest(digest, now):
            if led and digest.host != self.local.device:
                self.host.on_rival(digest, now)
            return
        if led and not self.leadership.leading:
            out.append(Lead(False))
            out.append(Notice("warning", "another host came before this one: stepping down"))
        before, self.local.digest = self.local.digest, digest
        self.change.on_digest(digest, now, out)
        self.member.on_digest(digest, now, out)
        if before is not None and before.host != digest.host and not self.leadership.leading:
            self.member.beat(now, out)  # the new host waits for it

    def _on_plan(self, plan: Plan, now: float, out: Effects) -> None:
        known = self.local.newest
        if not believable(plan.epoch, known.epoch if known is not None else 0):
            self.local.drop("epoch out of all reason")
            return
        if known is not None and (plan.epoch, plan.host) < (known.epoch, known.host):
            self.local.drop("plan of an old epoch")
            if self.leadership.leading and self.host.plan is not None and plan.host != self.local.device:
                out.append(Publish(self.host.plan))  # the bus has kept the other one
            return
        if self.service.on_plan(plan, now, out):
            self.member.beat(now, out)

    def _on_ask(self, ask: Ask, now: float, out: Effects) -> None:
        if ask.op == "cancel":
            self.worker.held.end(ask.session, now, out)
        elif ask.op == "park":
            self.worker.held.park(ask.session, now)
        elif ask.op == "start":
            self.service.confirm(ask.epoch, now, out)
        self.driver.on_ask(ask, now, out)

    def _on_timer(self, name: str, now: float, out: Effects) -> None:
        if name == "beat":
            if self.local.stopping:
                return
            self.pulse.beat(now, out)
            self.change.on_tick(now, out)
            if self.local.connected and self.leadership.on_silence(now):
                self._lead(now, out)
        elif name == "host":
            if self.leadership.leading and not self.local.stopping:
                self.change.on_host_tick(now, out)
                self.host.tick(now, out)
                out.append(SetTimer("host", now + deadlines.HOST_TICK))
        elif name == "heir":
            if not self.local.stopping:
                self.change.on_timer(now, out)
        elif name == "links":
            self.member.on_links_timer(now, out)
        elif name == "moving":
            self.service.moving.give_up()
            if self.service.caches_came(out):
                self.member.beat(now, out)
        elif name == "member-retry":
            self.member.on_retry_timer(now, out)
        elif name.startswith(("step:", "repair:")):
            self.driver.on_timer(name, now, out)

    def _on_bus(self, event: BusChanged, now: float, out: Effects) -> None:
        was, self.local.connected = self.local.connected, event.connected
        if not event.connected:
            if was:
                out.append(Notice("warning", f"the bus is lost ({event.reason}); trying again"))
            if self.leadership.resign():
                out.append(Lead(False))
            self.change.on_bus_lost(now, out)
            return
        if not was:
            out.append(Notice("info", "connected to the swarm's bus"))
        self.change.on_bus_reached(now)
        if not was:
            self.driver.recovery.on_bus(now, out)
        self.member.connected(now, out)
        if not self.leadership.leading and self.leadership.begin(now):
            self._lead(now, out)

    def _lead(self, now: float, out: Effects) -> None:
        out.append(Lead(True))
        self.change.on_lead(now)
        self.host.begin(now, out)
        # The heartbeat before came when this device did not listen yet, and so may this one where the broker
        # takes its time to subscribe: a new host does not wait for itself.
        if self.local.digest is not None and (beat := self.member.beat(now, out)) is not None:
            self.host.on_capability(self.local.capability, now)
            self.host.on_beat(beat, now, out)
        out.append(SetTimer("host", now + deadlines.HOST_TICK))

    def _on_own(self, event: Event, now: float, out: Effects) -> None:
        """The ends of what this device does for itself."""
        match event:
            case LoadProgress():
                if self.service.on_progress(event):
                    self.member.beat(now, out)
            case ShardsLoaded():
                self.service.on_loaded(event, out)
                self.member.beat(now, out)
            case LoadFailed():
                if self.service.on_load_failed(event, out):
                    self.member.beat(now, out)
            case ManifestReady():
                self.local.manifests[event.model] = event.manifest
                self.host.on_manifest(now)
                self.member.on_manifest(event.model, now, out)
            case ManifestFailed():
                self.host.on_manifest_failed(now)
                self.member.on_manifest_failed(now, out)
                out.append(Notice("warning", f"cannot get the model's manifest: {event.reason}"))
            case HoldingsChanged():
                self.member.on_holdings(event.holds, out)
                self.host.on_provided(now)
            case ProvideProgress():
                self.host.on_provide_progress(event)
            case ProvideFailed():
                self.host.on_provide_failed(event, now, out)
            case Measured():
                self.member.on_measured(event, now, out)
            case MeasureFailed():
                self.member.on_measure_failed(event, now, out)
                out.append(Notice("error", f"cannot measure itself: {event.reason}"))
            case LinksMeasured():
                self.member.on_links(event, now, out)
            case OfferChanged():
                self.member.on_offer(event, out)
            case HopsTimed():
                self.member.hop = event.parts
            case DraftMade():
                self.driver.on_draft(event, now, out)
            case _:
                self._on_surroundings(event, now, out)

    def _on_surroundings(self, event: Event, now: float, out: Effects) -> None:
        """What becomes of the bus and of other devices."""
        match event:
            case BrokerStarted():
                self.change.on_broker_started(out)
            case BrokerFailed():
                self.change.on_broker_failed(event.reason, now, out)
            case HostSeen():
                alone = not self.host.followed
                if self.change.on_host_seen(event, now, out) and alone:
                    self._forget_own_plan(now, out)
            case PortClosed():
                self.change.on_port_closed(event.device, now, out)
            case Dropped():
                self.local.drop(event.reason, event.count)
            case _:
                pass

    def _forget_own_plan(self, now: float, out: Effects) -> None:
        """What this device planned while it was cut off concerns nobody else, and must not outrank others."""
        plan = self.local.newest
        if plan is not None and plan.host == self.local.device:
            self.service.forget(now, out)
            self.host.rollout.forget()
