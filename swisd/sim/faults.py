"""A world that can be hurt in every way that the design's failure model names, and healed again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

from swisd.core.effects import GetManifest, LoadShards, MeasureCompute, Publish, SendFrame
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
from swisd.core.types import Plan, Profile
from swisd.sim.network import Network
from swisd.sim.world import LANE_S, Device, World

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
            self._to_asker(to, event)

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
        return all(device.alive and (device.online or name in self.bus_only) for name, device in ends)

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
        self._feed(ident, OfferChanged(memory_bytes, memory_bytes, device.loaded_bytes), device)

    def replay_plan(self, number: int, to: str) -> None:
        """A plan from the past arrives once more."""
        sender, plan = self.plans[number % len(self.plans)]
        self.hand_over(sender, to, plan)

    def _do(self, ident: str, device: Device, effect: object) -> None:
        match effect:
            case Publish(message=Plan() as plan):
                self.plans.append((ident, plan))
                del self.plans[:-KEPT_PLANS]
            case SendFrame() if frozenset((ident, effect.device)) in self.lanes_mute:
                return
            case MeasureCompute() if ident in self.disk:
                failed = MeasureFailed(effect.model, self.disk[ident])
                self._later(self._delay(0.1), partial(self._feed, ident, failed, device))
                return
            case MeasureCompute() if ident in self.boasts:
                speed, factor = device.speed, self.boasts[ident]
                layer, head = speed.layer_ms / factor, speed.head_ms / factor
                profile = Profile(effect.model, layer, layer / 8, head, 0.05, 0.2)
                self._later(self._delay(0.5), partial(self._feed, ident, Measured(profile), device))
                return
            case GetManifest() if ident in self.disk:
                missing = ManifestFailed(effect.model, self.disk[ident])
                self._later(self._delay(0.1), partial(self._feed, ident, missing, device))
                return
            case _:
                pass
        super()._do(ident, device, effect)

    def _load(self, ident: str, device: Device, effect: LoadShards) -> None:
        offer = self.offers.get(ident, device.machine.local.config.memory_bytes)
        need = sum(
            self.manifest.resident_bytes(stage.start, stage.end)
            + effect.max_tokens * self.manifest.kv_bytes_per_token(stage.start, stage.end)
            for _, stage in effect.stages
        )
        self.limits[ident] = offer
        device.loaded_bytes = 0  # what was loaded before goes first
        problem = ""
        if ident in self.disk:
            problem = self.disk[ident]
        elif need > min(offer, self.real_memory.get(ident, offer)):
            problem = "not enough memory for the shard"
        if not problem:
            super()._load(ident, device, effect)
            return
        self.loads_failed[problem] += 1
        device.stages.clear()
        device.shard.caches.clear()
        progress = LoadProgress(effect.epoch, False, 0.3)
        self._later(self._delay(LANE_S), partial(self._feed, ident, progress, device))
        failed = LoadFailed(effect.epoch, problem)
        self._later(self._delay(0.4), partial(self._feed, ident, failed, device))
