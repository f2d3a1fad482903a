"""A storm: random devices, sessions and mishaps, all from one seed; and a report of what came of it.

`run_storm(seed, ...)` gives the same report, to the digest of the transcript, wherever and whenever it runs.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

from swisd.core.effects import Notice
from swisd.core.placement import Wish, place
from swisd.core.request import kept_of
from swisd.core.types import Objective, Units
from swisd.sim.faults import FaultyWorld
from swisd.sim.invariants import Invariants, Violation, require, run_to_active
from swisd.sim.mishaps import ALL, KINDS, Mishaps, add_device
from swisd.sim.network import NETWORK_FAULTS
from swisd.sim.toy import MODEL, toy_manifest

START_S = 40.0  # the first plan is waited for, before the first mishap
CALM_S = 240.0  # with nothing hurt and no stream moving, this long is a hang
END_S = 900.0  # after the last mishap healed, every session must have ended
REST_S = 60.0  # then the swarm finds back to a plan, and forgets its sessions
MOST_WAITING = 12  # sessions at once: more only show how slow the devices are
MOST_KNOWN = 600  # tokens of a conversation that somebody goes on with
TAIL = 40  # lines of the transcript that a violation shows


@dataclass(frozen=True, slots=True)
class Broken:
    """An invariant that did not hold: which, when, and what happened before."""

    at: float
    what: str
    tail: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """What happened in a storm."""

    seed: int
    devices: int
    minutes: float
    broker: str
    layers: int
    faults: dict[str, int] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)  # deliveries that the network disturbed
    refused: dict[str, int] = field(default_factory=dict)  # corrupt deliveries, by the wire code's reason
    dropped: dict[str, int] = field(default_factory=dict)  # what the devices refused, by reason
    asked: int = 0
    ended_well: int = 0
    ended_by_error: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    plans: int = 0
    pipelines: int = 0  # of the plan that had most
    spares: bool = True  # whether others' units were kept loaded
    brought_back: int = 0  # times that a session went on after a loss
    longest_pause: float = 0.0
    virtual_s: float = 0.0
    events: int = 0
    violations: list[Broken] = field(default_factory=list)
    digest: str = ""
    transcript: list[str] = field(default_factory=list, repr=False)


class Storm:
    """One storm while it blows."""

    def __init__(
        self, seed: int, devices: int, minutes: float, faults: Iterable[str], objective: Objective
    ) -> None:
        self.random = Random(seed)
        self.minutes = minutes
        self.faults = sorted(faults)
        if unknown := set(self.faults) - set(KINDS):
            raise ValueError(f"unknown faults: {', '.join(sorted(unknown))}")
        random = self.random
        layers = random.randint(2, 12) if devices < 10 else random.randint(12, 40)
        self.world = FaultyWorld(seed, toy_manifest(layers), jitter=0.5)
        self.invariants = Invariants(self.world)
        self.invariants.limits = self.world.limits
        self._hash = sha256()
        self._events = 0
        watch = self.invariants.on_effect

        def on_effect(ident: str, effect: object) -> None:
            self._events += 1
            self._hash.update(f"{self.world.now:.9f} {ident} {type(effect).__name__}\n".encode())
            if isinstance(effect, Notice) and " goes on after " in effect.text:
                self.report.brought_back += 1
            watch(ident, effect)

        self.world.on_effect = on_effect
        external = random.random() < 0.4
        memory = (60, 200) if random.random() < 0.7 else (25, 120)
        spares = random.random() < 0.7
        for number in range(1, devices + 1):
            holds = True if number == 1 else None
            add_device(
                self.world,
                random,
                number,
                memory,
                external=external,
                holds=holds,
                spares=spares,
                objective=objective,
            )
            self.world.run(random.choice((0.0, 0.0, 0.3)))
        self.mishaps = Mishaps(self.world, random, embedded=not external)
        self.mishaps.memory_mib, self.mishaps.spares, self.mishaps.objective = memory, spares, objective
        self.counts: Counter[str] = Counter()
        broker = "external" if external else "embedded"
        self.report = Report(seed, devices, minutes, broker, layers, spares=spares)
        self._end = 0.0
        # A mishap each 6 s on a few devices; on many a little more often.
        self._gap = 6.0 / (1.0 + devices / 25.0)

    def blow(self) -> Report:
        """Run the whole storm."""
        try:
            self._phases()
        except Exception as error:  # noqa: BLE001 - whatever the machines raise is a finding
            text = str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"
            tail = tuple(self.world.log[-TAIL:])
            self.report.violations.append(Broken(round(self.world.now, 3), text, tail))
        return self._told()

    def _phases(self) -> None:
        world = self.world
        run_to_active(world, START_S)
        self._end = world.now + 60.0 * self.minutes
        self._ask()
        world.after(0.5, self._mishap)
        world.after(1.0, self._next_ask)
        world.after(10.0, self._watch)
        world.run(self._end - world.now)
        # What lasts heals by itself, then every session must come to its end.
        require(world.run_until(lambda: world.active == 0, END_S), "a mishap that does not end")
        ended = world.run_until(lambda: not world.askers.open, END_S)
        require(ended, f"a session hangs: {self._open()}")
        world.run(REST_S)
        self.invariants.sweep()
        self.invariants.idle()
        self._last_word()

    def _last_word(self) -> None:
        """The swarm that is left answers, or says why it cannot."""
        world = self.world
        leading = [device for device in world.devices.values() if device.leading and device.alive]
        require(len(leading) == 1, f"{len(leading)} hosts lead after the storm")
        plan = self.invariants.plan()
        require(plan is not None and (plan.active or plan.problem), "no plan after the storm, and no reason")
        active = plan is not None and plan.active
        require(active or not self._fits(), "the model fits, but no plan is active")
        if active:
            stream = world.streams[world.ask((3, 1, 4), 8)]
            world.run_until(lambda: stream.ended is not None, END_S)
            well = stream.ended is not None and stream.ended.finish == "length"
            require(well, f"an active swarm does not answer: {stream.ended}")

    def _fits(self) -> bool:
        """Whether the devices that are left could run the model, by their own account."""
        devices = [device.machine.local for device in self.world.devices.values() if device.alive]
        if any(not local.capability.profiles for local in devices):
            return False
        host, config = devices[0].device, devices[0].config
        wish = Wish(min(self.world.manifest.context, config.context), config.min_context, config.objective)
        found = place(self.world.manifest, MODEL, [local.capability for local in devices], host, wish)
        return bool(found.pipelines)

    def _mishap(self) -> None:
        if self.world.now >= self._end or not self.faults:
            return
        kind = self.random.choice(self.faults)
        told = self.mishaps.happen(kind)
        if told is not None:
            self.counts[kind] += 1
            self.world.hurt_at = self.world.now
            self.world.say(f"-- {told}")
        self.world.after(self.random.expovariate(1.0 / self._gap), self._mishap)

    def _next_ask(self) -> None:
        if self.world.now >= self._end:
            return
        several = self.random.choice((1, 1, 1, 2, 4))
        waiting = len(self.world.askers.open)
        for _ in range(min(several, MOST_WAITING - waiting)):
            self._ask()
        self.world.after(self.random.expovariate(1.0 / 12.0), self._next_ask)

    def _ask(self) -> None:
        length = self.random.choice((1, 2, 5, 20, 129, 200))
        prompt = tuple(self.random.randrange(64) for _ in range(length))
        score = self.random.choice((1, 3)) if self.random.random() < 0.1 else 0
        count = 0 if score else self.random.choice((1, 10, 30, 60))
        before, alone = ((), ()) if score else self._before()
        prompt = before + prompt
        self.world.ask(prompt, count, seed=self.random.randrange(1 << 30), score_top=score, alone=alone)
        wish = f"scores of {length} tokens" if score else f"{count} tokens after {len(prompt)}"
        self.world.say(f"-- asker {len(self.world.streams)} wants {wish}, {len(before)} of them known")

    def _before(self) -> tuple[tuple[int, ...], tuple[Units, ...]]:
        """What an earlier asker said and heard, or the first part of that: people go on with a conversation,
        and ask twice about one text."""
        streams = list(self.world.streams.values())
        if not streams or self.random.random() < 0.5:
            return (), ()
        stream = self.random.choice(streams[-8:])
        ended = stream.ended
        if ended is None or stream.scores:
            return (), ()
        said = kept_of(stream.asker._request, ended, stream.tokens)
        if said is None or len(said.ids) > MOST_KNOWN:
            return (), ()
        if self.random.random() < 0.7:
            return said.ids, said.alone
        return said.ids[: self.random.randrange(len(said.ids) + 1)], ()

    def _watch(self) -> None:
        """Nobody waits for nothing: with all healed, some stream moves or ends."""
        world = self.world
        if world.askers.open and world.active == 0:
            still = world.now - max(world.hurt_at, self.invariants.progressed_at)
            require(still < CALM_S, f"nothing moved for {still:.0f} s: {self._open()}")
        world.after(10.0, self._watch)

    def _open(self) -> str:
        return ", ".join(self.world.askers.open)

    def _told(self) -> Report:
        world, report = self.world, self.report
        errors: Counter[str] = Counter()
        for key, stream in world.streams.items():
            self._hash.update(f"{key} {stream.tokens} {stream.scores} {stream.ended}\n".encode())
            report.tokens += len(stream.tokens)
            if stream.ended is None:
                continue
            if stream.ended.finish == "error":
                errors[_kind_of(stream.ended.error)] += 1
            else:
                report.ended_well += 1
        for line in world.log:
            self._hash.update(f"{line}\n".encode())
        dropped: Counter[str] = Counter()
        for device in world.devices.values():
            dropped.update(device.machine.local.drops)
        report.faults = {kind: self.counts[kind] for kind in self.faults if self.counts[kind]}
        report.met = {kind: world.network.met[kind] for kind in NETWORK_FAULTS if world.network.met[kind]}
        report.refused, report.dropped = (
            dict(sorted(world.network.refused.items())),
            dict(sorted(dropped.items())),
        )
        report.asked, report.ended_by_error = len(world.streams), sum(errors.values())
        report.errors = dict(errors.most_common())
        report.pipelines = self.invariants.most_pipelines
        report.plans = max(
            (
                device.machine.local.plan.epoch
                for device in world.devices.values()
                if device.machine.local.plan
            ),
            default=0,
        )
        report.longest_pause = round(self.invariants.longest_pause, 3)
        report.virtual_s, report.events = round(world.now, 3), self._events
        report.digest = self._hash.hexdigest()
        report.transcript = world.log
        return report


def run_storm(
    seed: int,
    devices: int = 5,
    minutes: float = 3.0,
    faults: Iterable[str] = ALL,
    objective: Objective = "latency",
) -> Report:
    """Let a storm of mishaps go over a swarm. It stops at the first violation."""
    return Storm(seed, devices, minutes, faults, objective).blow()


def _kind_of(error: str) -> str:
    """An error without its particulars, to be counted."""
    return "".join("#" if letter.isdigit() else letter for letter in error)[:80]
