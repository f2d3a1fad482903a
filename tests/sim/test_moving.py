"""Caches move to another device while their sessions run: how long that is waited for."""

from invariants import Invariants, run_to_active, run_to_end

from swisd.core import deadlines
from swisd.sim.faults import FaultyWorld
from swisd.sim.toy import toy_manifest
from swisd.sim.world import Speed

MIB = 1 << 20


class Slowed:
    """Three devices of which two share the model; one became slow, and eight prompts wait in line."""

    def __init__(self) -> None:
        self.world = FaultyWorld(1, toy_manifest(24), jitter=0.0)
        self.invariants = Invariants(self.world)
        self.invariants.limits = self.world.limits
        first, *_ = [
            self.world.add(name, memory_bytes=200 * MIB, speed=Speed(5.0, 8.0), holds=True)
            for name in ("laptop", "pi", "phone")
        ]
        assert run_to_active(self.world)
        self.world.run(3.0)
        plan = self.world.devices[first].machine.host.plan
        assert plan is not None
        self.slow = plan.pipelines[0].stages[1].device
        self.spare = next(ident for ident in self.world.devices if ident not in (first, self.slow))
        self.world.devices[self.slow].speed = Speed(20.0, 32.0)
        prompts = [tuple(3 + (7 * n + m) % 60 for m in range(256)) for n in range(8)]
        self.keys = [self.world.ask(prompt, 40) for prompt in prompts]

    def lines(self, text: str) -> list[str]:
        return [line for line in self.world.log if text in line]

    def wait_for(self, text: str, within: float) -> float:
        """When it is first said."""
        while not self.lines(text) and within > 0:
            self.world.run(0.25)
            within -= 0.25
        assert self.lines(text), "\n".join(self.world.log)
        return self.world.now

    def end(self) -> None:
        assert run_to_end(self.world, 300.0), "\n".join(self.world.log)
        ends = [self.world.streams[key].ended for key in self.keys]
        assert all(ended is not None and ended.finish == "length" for ended in ends)


def test_caches_that_keep_coming_are_waited_for():
    """A slow device reads them between long steps; whatever did not come would be run again."""
    swarm = Slowed()
    began = swarm.wait_for("phone: plan 2: gets and loads", 120.0)
    active = swarm.wait_for("plan 2 is active", 60.0)
    assert active - began > 2 * deadlines.MOVE
    swarm.end()
    assert len(swarm.lines("nothing had to be run again")) == len(swarm.keys)
    assert not swarm.lines("replayed")


def test_caches_that_do_not_come_are_not():
    swarm = Slowed()
    began = swarm.wait_for("phone: plan 2: gets and loads", 120.0)
    swarm.world.break_lane(swarm.slow, swarm.spare)
    active = swarm.wait_for("plan 2 is active", 60.0)
    assert active - began < 2 * deadlines.MOVE
    swarm.end()
