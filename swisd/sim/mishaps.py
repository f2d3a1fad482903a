"""The kinds of mishaps that a storm draws from: what is hurt, for how long, and how it heals."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from random import Random

from swisd.core.types import Objective
from swisd.sim.faults import FaultyWorld
from swisd.sim.hands import Speed
from swisd.sim.network import NETWORK_FAULTS

MIB = 1 << 20
PARTS = {"lose": 0.03, "duplicate": 0.2, "delay": 0.05, "reorder": 0.05, "corrupt": 0.03}
JOURNALS = (0, 500, 5_000, 1 << 20, 32 << 20)  # bytes: none, a few rows, a part of a prompt, all


class Mishaps:
    """Draws one mishap of a kind and lets it happen. Each method says what it did, or None if it cannot.

    `embedded`: the broker runs on a device of the swarm, and a cut of the network leaves hosts on both sides.
    """

    def __init__(self, world: FaultyWorld, random: Random, *, embedded: bool) -> None:
        self.world, self.random, self.embedded = world, random, embedded
        self.most = len(world.devices) + 8  # devices that ever were, so that a long storm stays as large
        self.memory_mib = (25, 200)
        self.spares = True
        self.objective: Objective = "latency"
        self._busy: set[tuple[str, str]] = set()  # (fault, device) that last

    def happen(self, kind: str) -> str | None:
        """Let a mishap of this kind happen, if one can."""
        if kind in NETWORK_FAULTS:
            return self._network(kind)
        return KINDS[kind](self)

    # --- who and how long --------------------------------------------------------------------------

    def _ready(self) -> list[str]:
        """Devices that run undisturbed; the host is one like all others."""
        return [
            ident
            for ident, device in self.world.devices.items()
            if device.alive and device.frozen is None and device.online
        ]

    def _pick(self) -> str | None:
        ready = self._ready()
        # Those that have work are hit more often: it is their loss that matters.
        working = [ident for ident in ready if self.world.devices[ident].shards]
        if working and self.random.random() < 0.5:
            return self.random.choice(working)
        return self.random.choice(ready) if ready else None

    def _seconds(self, *choices: float) -> float:
        return self.random.choice(choices) * (0.5 + self.random.random())

    def _name(self, ident: str) -> str:
        return self.world.devices[ident].machine.local.config.name

    def _once(self, kind: str, ident: str, seconds: float, undo: Callable[[], object]) -> None:
        """Mark a lasting fault of a device, so that the same is not begun twice."""
        self._busy.add((kind, ident))

        def end() -> None:
            self._busy.discard((kind, ident))
            undo()

        self.world.during(seconds, end)

    # --- the mishaps -------------------------------------------------------------------------------

    def crash(self) -> str | None:
        ident = self._pick()
        return self._crash(ident, 0) if ident else None

    def clock(self) -> str | None:
        ident = self._pick()
        shift = self.random.choice((-1_000_000_000, -5_000, 3_600_000))
        return self._crash(ident, shift) if ident else None

    def host_crash(self) -> str | None:
        leading = [ident for ident, device in self.world.devices.items() if device.leading and device.alive]
        return self._crash(self.random.choice(leading), 0) if leading else None

    def _crash(self, ident: str, shift_ms: int) -> str:
        seconds = self._seconds(0.1, 1.0, 8.0, 20.0)
        self.world.kill(ident, mute=self.random.random() < 0.5)  # with the machine, or the process alone
        self.world.devices[ident].leading = False

        def back() -> None:
            if not self.world.devices[ident].alive:
                self.world.restart_with_clock(ident, shift_ms)

        self.world.during(seconds, back)
        clock = f", its clock {shift_ms / 1000:+.0f} s" if shift_ms else ""
        return f"{self._name(ident)} crashes for {seconds:.1f} s{clock}"

    def freeze(self) -> str | None:
        if (ident := self._pick()) is None:
            return None
        seconds, device = self._seconds(0.5, 4.0, 10.0, 30.0), self.world.devices[ident]
        self.world.freeze(ident)

        def thaw() -> None:
            if self.world.devices[ident] is device and device.alive and device.frozen is not None:
                self.world.thaw(ident)

        self.world.during(seconds, thaw)
        return f"{self._name(ident)} freezes for {seconds:.1f} s"

    def cut_off(self) -> str | None:
        ident = self._pick()
        return self._cut([ident], self.world.cut_off) if ident else None

    def bus(self) -> str | None:
        ident = self._pick()
        return self._cut([ident], self.world.cut_bus) if ident else None

    def partition(self) -> str | None:
        ready = self._ready()
        if len(ready) < 2:
            return None
        away = sorted(self.random.sample(ready, self.random.randint(1, max(1, len(ready) // 2))))
        if not self.embedded:
            return self._cut(away, self.world.cut_off)
        if ("partition", "") in self._busy:
            return None
        seconds = self._seconds(0.5, 4.0, 10.0, 30.0)
        self.world.partition(*away)
        self._once("partition", "", seconds, self.world.partition)
        host = "with" if any(self.world.devices[ident].leading for ident in away) else "without"
        names = ", ".join(self._name(ident) for ident in away)
        return f"{names}, {host} the host, apart from the others for {seconds:.1f} s"

    def _cut(self, away: Sequence[str], cut: Callable[[str], None]) -> str:
        seconds = self._seconds(0.5, 4.0, 10.0, 30.0)
        for ident in away:
            cut(ident)

        def back() -> None:
            for ident in away:
                device = self.world.devices[ident]
                if not device.alive:
                    device.online = True
                elif not device.online:
                    self.world.reconnect(ident)

        self.world.during(seconds, back)
        return f"{', '.join(self._name(ident) for ident in away)} out of reach for {seconds:.1f} s"

    def link(self) -> str | None:
        """The lane between two devices breaks, or swallows what is sent."""
        ready = self._ready()
        if len(ready) < 2:
            return None
        plans = [device.machine.local.plan for device in self.world.devices.values() if device.alive]
        pipelines = next((plan.pipelines for plan in plans if plan and plan.pipelines), ())
        pair = self.random.sample(ready, 2)
        if used := [(one.device, other.device) for item in pipelines for one, other in pairwise(item.stages)]:
            pair = list(used[self.random.randrange(len(used))])
        if pair[0] == pair[1]:
            return None
        seconds, mute = self._seconds(2.0, 10.0, 30.0), self.random.random() < 0.3
        down = self.world.lanes_mute if mute else self.world.lanes_down
        lane = frozenset(pair)
        if mute:
            down.add(lane)
        else:
            self.world.break_lane(*pair)
        self.world.during(seconds, lambda: down.discard(lane))
        how = "swallows frames" if mute else "breaks"
        return f"the lane {self._name(pair[0])} - {self._name(pair[1])} {how} for {seconds:.1f} s"

    def slow(self) -> str | None:
        ident = self._pick()
        if ident is None or ("slow", ident) in self._busy:
            return None
        device, factor = self.world.devices[ident], self.random.choice((2.0, 5.0, 20.0))
        usual, seconds = device.speed, self._seconds(5.0, 20.0, 60.0)
        device.speed = Speed(usual.layer_ms * factor, usual.head_ms * factor)

        def undo() -> None:
            self.world.devices[ident].speed = usual

        self._once("slow", ident, seconds, undo)
        return f"{self._name(ident)} is {factor:.0f} times slower for {seconds:.1f} s"

    def disk(self) -> str | None:
        """A full disk or a cut download: what has to be fetched or loaded meanwhile fails."""
        ident = self._pick()
        if ident is None or ("disk", ident) in self._busy:
            return None
        why = self.random.choice(("the disk is full", "a download is cut short: its checksum is wrong"))
        seconds = self._seconds(5.0, 20.0, 40.0)
        self.world.disk[ident] = why
        self._once("disk", ident, seconds, lambda: self.world.disk.pop(ident, None))
        return f"{self._name(ident)}: {why}, for {seconds:.1f} s"

    def boast_memory(self) -> str | None:
        ident = self._pick()
        if ident is None or ("boast-memory", ident) in self._busy:
            return None
        claimed = self.world.devices[ident].machine.local.config.memory_bytes
        self.world.real_memory[ident] = int(claimed * self.random.choice((0.1, 0.5, 0.9)))
        seconds = self._seconds(20.0, 60.0)
        self._once("boast-memory", ident, seconds, lambda: self.world.real_memory.pop(ident, None))
        return f"{self._name(ident)} has less memory than it claims for {seconds:.1f} s"

    def boast_speed(self) -> str | None:
        """It begins anew, and measures itself faster than it is."""
        ident = self._pick()
        if ident is None or ("boast-speed", ident) in self._busy:
            return None
        self.world.boasts[ident] = self.random.choice((2.0, 10.0, 100.0))
        seconds = self._seconds(20.0, 60.0)
        self.world.restart(ident)
        self._once("boast-speed", ident, seconds, lambda: self.world.boasts.pop(ident, None))
        return f"{self._name(ident)} begins anew and claims to be {self.world.boasts[ident]:.0f} times faster"

    def memory(self) -> str | None:
        """Another program takes memory for a while."""
        ident = self._pick()
        if ident is None or ("memory", ident) in self._busy:
            return None
        device, seconds = self.world.devices[ident], self._seconds(5.0, 20.0, 60.0)
        whole = device.machine.local.config.memory_bytes
        left = int(whole * self.random.choice((0.2, 0.5, 0.8)))
        self.world.offer(ident, left)

        def undo() -> None:
            now = self.world.devices[ident]
            if now.alive and now is device:
                self.world.offer(ident, whole)

        self._once("memory", ident, seconds, undo)
        return f"{self._name(ident)} has {left // MIB} of {whole // MIB} MiB left for {seconds:.1f} s"

    def stale_plan(self) -> str | None:
        if not self.world.plans:
            return None
        number = self.random.randrange(len(self.world.plans))
        targets = [*self._ready(), *self.world.streams]
        some = targets if self.random.random() < 0.5 else [self.random.choice(targets)]
        for target in some:
            self.world.replay_plan(number, target)
        return f"plan {self.world.plans[number][1].epoch} arrives again at {len(some)} device(s) or asker(s)"

    def leave(self) -> str | None:
        ready = self._ready()
        if len(ready) < 2:
            return None
        ident, seconds = self.random.choice(ready), self._seconds(5.0, 30.0, 90.0)
        self.world.leave(ident)
        self.world.devices[ident].leading = False

        def back() -> None:
            if not self.world.devices[ident].alive:
                self.world.restart(ident)

        self.world.during(seconds, back)
        return f"{self._name(ident)} leaves, to come back after {seconds:.1f} s"

    def join(self) -> str | None:
        number = len(self.world.devices) + 1
        if number > self.most:
            return None
        add_device(
            self.world,
            self.random,
            number,
            self.memory_mib,
            external=not self.embedded,
            spares=self.spares,
            objective=self.objective,
        )
        return f"d{number} joins"

    def _network(self, kind: str) -> str | None:
        parts = self.world.network.parts
        if kind in parts:
            return None
        seconds, part = self._seconds(3.0, 10.0, 30.0), PARTS[kind] * self.random.choice((0.1, 1.0, 1.0))
        parts[kind] = part
        self.world.during(seconds, lambda: parts.pop(kind, None))
        return f"the network: {kind} {part:.1%} for {seconds:.1f} s"


KINDS: dict[str, Callable[[Mishaps], str | None]] = {
    "crash": Mishaps.crash,
    "freeze": Mishaps.freeze,
    "cut-off": Mishaps.cut_off,
    "bus": Mishaps.bus,
    "partition": Mishaps.partition,
    "link": Mishaps.link,
    "slow": Mishaps.slow,
    "disk": Mishaps.disk,
    "boast-memory": Mishaps.boast_memory,
    "boast-speed": Mishaps.boast_speed,
    "memory": Mishaps.memory,
    "clock": Mishaps.clock,
    "stale-plan": Mishaps.stale_plan,
    "leave": Mishaps.leave,
    "join": Mishaps.join,
    **{kind: partial(Mishaps._network, kind=kind) for kind in NETWORK_FAULTS},
    "host-crash": Mishaps.host_crash,
}
ALL = frozenset(KINDS)


def add_device(
    world: FaultyWorld,
    random: Random,
    number: int,
    memory_mib: tuple[int, int],
    *,
    external: bool,
    holds: bool | None = None,
    spares: bool = True,
    objective: Objective = "latency",
) -> str:
    """A device of random speed, memory and journal. With an external broker any device may become host."""
    speed = Speed(random.choice((1.0, 3.0, 5.0, 20.0)), random.choice((2.0, 10.0)))
    return world.add(
        f"d{number}",
        memory_bytes=random.randint(*memory_mib) * MIB,
        speed=speed,
        holds=random.random() < 0.5 if holds is None else holds,
        claims="when silent" if external else None,
        journal_bytes=random.choice(JOURNALS),
        spares=spares,
        objective=objective,
    )
