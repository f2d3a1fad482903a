"""Swarms drawn from seeds: whatever joins, dies, freezes or is lost, the invariants hold all the time."""

from collections.abc import Callable
from random import Random

import pytest
from invariants import Invariants, run_to_active, run_to_end

from swisd.core.events import FrameArrived
from swisd.core.messages import Ask, Beat, Capability, Digest, Gone, Out, Plan
from swisd.sim.toy import toy_manifest
from swisd.sim.world import Speed, World

MIB = 1 << 20


class Swarm:
    """A world of 1 to 6 devices of any memory and speed, made from a seed."""

    def __init__(self, seed: int, *, least: int = 1, memory: tuple[int, int] = (25, 200)) -> None:
        self.random = Random(seed)
        self.world = World(seed, toy_manifest(self.random.randint(2, 12)), jitter=0.5)
        self.invariants = Invariants(self.world)
        self.memory = memory
        self.claims = "when silent" if self.random.random() < 0.3 else None
        self.ids: list[str] = []
        for number in range(self.random.randint(least, 6)):
            self.add(holds=number == 0 or self.random.random() < 0.5)
            self.world.run(self.random.choice((0.0, 0.0, 0.3, 3.0)))

    def add(self, *, holds: bool) -> None:
        speed = Speed(self.random.choice((1.0, 3.0, 5.0, 20.0)), self.random.choice((2.0, 10.0)))
        memory = self.random.randint(*self.memory) * MIB
        name = f"d{len(self.ids) + 1}"
        self.ids.append(
            self.world.add(name, memory_bytes=memory, speed=speed, holds=holds, claims=self.claims)
        )

    def ask(self) -> None:
        length = self.random.choice((1, 2, 5, 129, 200))
        prompt = tuple(self.random.randrange(64) for _ in range(length))
        self.world.ask(prompt, self.random.randint(1, 30))

    def others(self) -> list[str]:
        """Devices that may be lost: any, the host included."""
        return [ident for ident in self.ids if self.world.devices[ident].alive]

    def finished(self) -> list[str]:
        """How each stream ended; those that ended well hold every token."""
        ends = []
        for key, stream in self.world.streams.items():
            assert stream.ended is not None, "\n".join(self.world.log)
            ends.append(stream.ended.finish)
            if stream.ended.finish == "length":
                assert stream.tokens == self.invariants.expected(key)
            else:
                assert stream.ended.error
        return ends


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_an_active_swarm_answers_as_one_device_does(start: int):
    ran = 0
    for seed in range(start, start + 20):
        swarm = Swarm(seed)
        if not run_to_active(swarm.world, 40.0):
            plan = swarm.invariants.plan()
            assert plan is not None and plan.problem and not plan.pipelines, seed
            continue
        for _ in range(swarm.random.randint(1, 4)):
            swarm.ask()
            swarm.world.run(swarm.random.choice((0.0, 0.2, 1.0)))
        assert run_to_end(swarm.world), seed
        assert set(swarm.finished()) == {"length"}, seed
        ran += 1
    assert ran >= 8


def trouble(swarm: Swarm) -> None:
    """One thing that goes wrong, or comes right."""
    world, pick = swarm.world, swarm.random.choice
    others = swarm.others()
    match swarm.random.randrange(7):
        case 0 if len(others) > 1:
            world.kill(pick(others))
        case 1 if others:
            world.restart(pick(others))
        case 2 if others:
            ident = pick(others)
            if world.devices[ident].frozen is None:
                world.freeze(ident)
                world.run(pick((0.5, 4.0, 10.0)))
                world.thaw(ident)
        case 3 if others:
            ident = pick(others)
            if world.devices[ident].online:
                world.cut_off(ident)
                world.run(pick((0.5, 4.0, 10.0)))
                world.reconnect(ident)
        case 4 if len(others) > 1:
            world.leave(pick(others))
        case 5:
            swarm.add(holds=True)
        case _:
            swarm.ask()
    world.run(pick((0.0, 0.3, 2.0)))


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_trouble_leaves_no_gap_no_repeat_and_no_silence(start: int):
    """Every session ends, well or with its reason, and the swarm itself finds back."""
    answered = 0
    for seed in range(start, start + 20):
        swarm = Swarm(seed, least=3, memory=(60, 200))
        run_to_active(swarm.world, 40.0)
        swarm.ask()
        for _ in range(6):
            trouble(swarm)
        assert run_to_end(swarm.world, 400.0), f"seed {seed}\n" + "\n".join(swarm.world.log)
        swarm.finished()
        swarm.world.run(40.0)  # the swarm that is left still answers, or says why not
        plan = swarm.invariants.plan()
        story = f"seed {seed}\n" + "\n".join(swarm.world.log)
        assert plan is not None and (plan.active or plan.problem), story
        if plan.active:
            swarm.ask()
            assert run_to_end(swarm.world), story
            assert swarm.finished()[-1] == "length", story
            answered += 1
    assert answered >= 8


def test_a_prompt_that_takes_minutes_to_read_is_answered():
    world = World(1, toy_manifest(6), jitter=0.0)
    invariants = Invariants(world)
    world.add("old", memory_bytes=400 * MIB, holds=True, speed=Speed(400.0, 100.0))
    assert run_to_active(world)
    key = world.ask((1, 2) * 250, 3)
    assert run_to_end(world)
    assert world.now > 70.0 and world.streams[key].tokens == invariants.expected(key)


def lossy(random: Random, kinds: tuple[type, ...], part: float) -> Callable[[str, str, object], bool]:
    return lambda sender, to, what: isinstance(what, kinds) and random.random() < part


@pytest.mark.parametrize(
    ("kinds", "part"),
    [
        ((Out,), 0.3),
        ((Beat, Digest), 0.3),
        ((Ask,), 0.3),
        ((Capability, Gone), 0.3),
        ((Plan,), 0.2),
        ((FrameArrived,), 0.004),
        ((Out, Beat, Digest, Ask), 0.1),
    ],
    ids=lambda value: "+".join(kind.__name__ for kind in value) if isinstance(value, tuple) else "",
)
def test_lost_messages_cost_time_but_no_token(kinds: tuple[type, ...], part: float):
    ran = 0
    for seed in range(8):
        swarm = Swarm(seed, least=2, memory=(60, 200))
        swarm.world.loses = lossy(Random(seed), kinds, part)
        if not run_to_active(swarm.world, 90.0):
            continue
        swarm.ask(), swarm.ask()
        assert run_to_end(swarm.world, 300.0), f"seed {seed}\n" + "\n".join(swarm.world.log)
        assert set(swarm.finished()) == {"length"}, f"seed {seed}\n" + "\n".join(swarm.world.log)
        ran += 1
    assert ran >= 5
