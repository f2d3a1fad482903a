"""A world that can be hurt in every way that the design's failure model names, and healed again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

from swisd.core.effects import GetManifest, LoadShards, MeasureCompute, Publish, SendFrame, SendKv
from swisd.core.events import (
    FrameArrived,
    LinkLost,
    LoadFailed,
    LoadProgress,
    ManifestFailed,
    Measured,
    MeasureFailed,
    OfferChanged,
    Received,
)
from swisd.core.model import Manifest
from swisd.core.shards import memory_of
from swisd.core.types import Plan, Profile
from swisd.sim.hands import LANE_S, Device, Hands
from swisd.sim.network import Network
from swisd.sim.world import World

KEPT_PLANS = 32


class FaultyWorld(World):
    """A world with levers. Each lever takes effect at once; `during` pulls it back after a while."""

    def __init__(self, seed: int = 0, manifest: Manifest | None = None, *, jitter: float = 0.2) -> None:
        super().__init__(seed, manifest, jitter=jitter)
        self.network = Network(self, Random(seed ^ 0x5EED))
        self.loses = self.network.meddle
        self.lanes_down: set[frozenset[str]] = set()
        self.lanes_mute: set[frozenset[str]] = set()  # frames vanish, and the sender is not told
        self.bus_only: set[str] = set()  # of the devices that are offline: whose lanes still work
        self.disk: dict[str, str] = {}  # device -> why its disk fails
        self.offers: dict[str, int] = {}  # device -> what it offers now, where that changed
        self.real_memory: dict[str, int] = {}  # device -> what it has, where it claims more
        self.boasts: dict[str, float] = {}  # device -> how many times faster it claims to be than it is
        self.limits: dict[str, int] = {}  # device -> the offer under which its shards were loaded
        self.plans: list[tuple[str, Plan]] = []  # published lately, for replays
        self.active = 0  # faults that last
        self.hurt_at = 0.0  # when a fault last began or ended
        self.loads_failed: Counter[str] = Counter()

    # --- time --------------------------------------------------------------------------------------

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._later(delay, action)

    def during(self, seconds: float, undo: Callable[[], object]) -> None:
        """A fault began that ends by itself."""
        self.active += 1
        self.hurt_at = self.now

        def end() -> None:
            self.active -= 1
            self.hurt_at = self.now
            undo()

        self._later(seconds, end)

    def say(self, text: str) -> None:
        """A line of the transcript."""
        self._say(text)

    def _hands(self) -> Hands:
        return FaultyHands(self)

    # --- ways --------------------------------------------------------------------------------------

    def hold_back(self, sender: str, to: str, seconds: float) -> None:
        """Nothing on the way from one to the other arrives sooner than this."""
        way = (sender, to)
        self._last_delivery[way] = max(self._last_delivery.get(way, 0.0), self.now + seconds)

    def hand_over(self, sender: str, to: str, what: object) -> None:
        """Deliver a message, frame or event now."""
        event = what if type(what).__module__.endswith(".events") else Received(sender, what)  # type: ignore[arg-type]
        if to in self.devices:
            if self.devices[to].online or (isinstance(event, FrameArrived) and to in self.bus_only):
                self._feed(to, event)
        elif to in self.streams:
            self.askers.feed(to, event)

    def break_lane(self, one: str, other: str) -> None:
        """The direct connection of two devices breaks, which both notice, and cannot be made again."""
        self.lanes_down.add(frozenset((one, other)))
        for ident, peer in ((one, other), (other, one)):
            self._feed(ident, LinkLost(peer, "connection reset"))

    def cut_bus(self, ident: str) -> None:
        """The device loses the bus, not its lanes."""
        self.bus_only.add(ident)
        self.cut_off(ident)

    def reconnect(self, ident: str) -> None:
        self.bus_only.discard(ident)
        super().reconnect(ident)

    def _reaches(self, ident: str, peer: str) -> bool:
        if frozenset((ident, peer)) in self.lanes_down:
            return False
        ends = ((ident, self.devices[ident]), (peer, self.devices[peer]))
        up = all(device.alive and (device.online or name in self.bus_only) for name, device in ends)
        return up and ends[0][1].side == ends[1][1].side

    def _refuses(self, name: str, ident: str) -> bool:
        return frozenset((name, ident)) not in self.lanes_down | self.lanes_mute and super()._refuses(
            name, ident
        )

    # --- devices -----------------------------------------------------------------------------------

    def restart_with_clock(self, ident: str, shift_ms: int) -> None:
        """It restarts, and its clock went forward or back meanwhile."""
        local = self.devices[ident].machine.local
        local.config = replace(local.config, boot=local.config.boot + shift_ms)
        self.restart(ident)

    def restart(self, ident: str) -> None:
        self.offers.pop(ident, None)
        self.limits.pop(ident, None)
        self.bus_only.discard(ident)
        super().restart(ident)

    def offer(self, ident: str, memory_bytes: int) -> None:
        """Another program takes memory, or gives it back."""
        device = self.devices[ident]
        self.offers[ident] = memory_bytes
        self._feed(ident, OfferChanged(memory_bytes, memory_bytes, self.resident(device)), device)

    def replay_plan(self, number: int, to: str) -> None:
        """A plan from the past arrives once more."""
        sender, plan = self.plans[number % len(self.plans)]
        self.hand_over(sender, to, plan)

    def resident(self, device: Device) -> int:
        """Bytes of the shards that a device has in memory."""
        return sum(self.manifest.resident_bytes(*units) for units in device.shards)


class FaultyHands(Hands):
    """Carries out effects on devices whose disk, memory or lanes are in trouble."""

    def __init__(self, world: "FaultyWorld") -> None:
        super().__init__(world)
        self.faulty = world

    def do(self, ident: str, device: Device, effect: object) -> None:
        """As on a sound device, but for what is broken."""
        world = self.faulty
        match effect:
            case Publish(message=Plan() as plan):
                world.plans.append((ident, plan))
                del world.plans[:-KEPT_PLANS]
            case SendFrame() | SendKv() if frozenset((ident, effect.device)) in world.lanes_mute:
                return
            case MeasureCompute() if ident in world.disk:
                self.later(0.1, ident, MeasureFailed(effect.model, world.disk[ident]), device)
                return
            case MeasureCompute() if ident in world.boasts:
                speed, factor = device.speed, world.boasts[ident]
                layer, head = speed.layer_ms / factor, speed.head_ms / factor
                profile = Profile(effect.model, layer, layer / 8, head, 0.05, 0.2)
                self.later(0.5, ident, Measured(profile), device)
                return
            case GetManifest() if ident in world.disk:
                self.later(0.1, ident, ManifestFailed(effect.model, world.disk[ident]), device)
                return
            case _:
                pass
        super().do(ident, device, effect)

    def load(self, ident: str, device: Device, effect: LoadShards) -> None:
        """Loads fail where the disk does, or where the memory is not what was said."""
        world = self.faulty
        offer = world.offers.get(ident, device.machine.local.config.memory_bytes)
        ranges = {*effect.wanted, *effect.keep}
        need = memory_of(world.manifest, ranges, effect.max_tokens)
        problem = ""
        fresh = not set(effect.wanted) <= device.shards
        if fresh:
            if ident in world.disk:
                problem = world.disk[ident]
            elif need > min(offer, world.real_memory.get(ident, offer)):
                problem = "not enough memory for the shard"
        if not problem:
            if fresh:  # what is refused stays as it was loaded under an earlier offer
                world.limits[ident] = offer
            super().load(ident, device, effect)
            return
        world.loads_failed[problem] += 1
        device.load += 1
        device.keep(ranges)
        self.later(LANE_S, ident, LoadProgress(effect.epoch, False, 0.3), device)
        self.later(0.4, ident, LoadFailed(effect.epoch, problem), device)
