"""Whatever is done to a small swarm, in any order: the invariants hold, and in the end all is answered.

A Hypothesis state machine, which shrinks what breaks them to a few steps.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from invariants import Invariants, run_to_active, run_to_end

from swisd.sim.faults import FaultyWorld
from swisd.sim.toy import toy_manifest
from swisd.sim.world import Speed

MIB = 1 << 20
MOST_DEVICES, MOST_STREAMS = 4, 2
which = st.integers(0, MOST_DEVICES - 1)


class Fates(RuleBasedStateMachine):
    """3 devices, of which two can run the model, and up to 2 sessions at once."""

    @initialize(
        seed=st.integers(0, 3), external=st.booleans(), journal=st.sampled_from((0, 500, 1 << 20)),
        memory=st.sampled_from((70, 110, 200)),
    )  # fmt: skip
    def begin(self, seed: int, external: bool, journal: int, memory: int) -> None:
        self.world = FaultyWorld(seed, toy_manifest(8), jitter=0.5)
        self.watch = Invariants(self.world)
        self.watch.limits = self.world.limits
        self.memory, self.journal = memory, journal
        self.claims = "when silent" if external else None
        for _ in range(3):
            self._add()
        run_to_active(self.world, 30.0)
        self.world.run(1.0)

    def _add(self) -> None:
        self.world.add(
            f"d{len(self.world.devices) + 1}", memory_bytes=self.memory * MIB, speed=Speed(2.0, 4.0),
            holds=True, claims=self.claims, journal_bytes=self.journal,  # type: ignore[arg-type]
        )  # fmt: skip

    def _ident(self, number: int) -> str:
        return sorted(self.world.devices)[number % len(self.world.devices)]

    def _up(self, number: int) -> str | None:
        """The device if it runs undisturbed."""
        ident = self._ident(number)
        device = self.world.devices[ident]
        return ident if device.alive and device.frozen is None and device.online else None

    def _running(self) -> int:
        return sum(stream.ended is None for stream in self.world.streams.values())

    @precondition(lambda self: self._running() < MOST_STREAMS)
    @rule(prompt=st.sampled_from((1, 3, 130)), count=st.integers(1, 40))
    def ask(self, prompt: int, count: int) -> None:
        self.world.ask((5,) * prompt, count)

    @precondition(lambda self: self._running() < MOST_STREAMS)
    @rule(prompt=st.sampled_from((3, 130)))
    def score(self, prompt: int) -> None:
        self.world.ask((5,) * prompt, 0, score_top=1)

    @rule(seconds=st.sampled_from((0.01, 0.1, 0.5, 2.0, 8.0)))
    def let_time_pass(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(number=which)
    def kill(self, number: int) -> None:
        if (ident := self._up(number)) is not None:
            self.world.kill(ident)
            self.world.devices[ident].leading = False

    @rule(number=which)
    def restart(self, number: int) -> None:
        if self.world.devices[self._ident(number)].frozen is None:
            self.world.restart(self._ident(number))

    @rule(number=which)
    def freeze(self, number: int) -> None:
        if (ident := self._up(number)) is not None:
            self.world.freeze(ident)

    @rule(number=which)
    def thaw(self, number: int) -> None:
        if self.world.devices[self._ident(number)].frozen is not None:
            self.world.thaw(self._ident(number))

    @rule(number=which)
    def cut_off(self, number: int) -> None:
        if (ident := self._up(number)) is not None:
            self.world.cut_off(ident)

    @rule(number=which)
    def reconnect(self, number: int) -> None:
        device = self.world.devices[self._ident(number)]
        if device.alive and not device.online:
            self.world.reconnect(self._ident(number))

    @rule(number=which, mute=st.booleans())
    def break_a_lane(self, number: int, mute: bool) -> None:
        one, other = self._ident(number), self._ident(number + 1)
        if mute:
            self.world.lanes_mute.add(frozenset((one, other)))
        else:
            self.world.break_lane(one, other)

    @rule()
    def heal_the_lanes(self) -> None:
        self.world.lanes_down.clear()
        self.world.lanes_mute.clear()

    @rule(number=which)
    def partition(self, number: int) -> None:
        if self.claims is None:
            self.world.partition(self._ident(number))

    @rule()
    def heal(self) -> None:
        self.world.partition()

    @rule(number=which)
    def leave(self, number: int) -> None:
        if (ident := self._up(number)) is not None:
            self.world.leave(ident)
            self.world.devices[ident].leading = False

    @precondition(lambda self: len(self.world.devices) < MOST_DEVICES)
    @rule()
    def join(self) -> None:
        self._add()

    def teardown(self) -> None:
        """All heals, and then every session comes to its end and the swarm answers again."""
        if not hasattr(self, "world"):
            return
        world = self.world
        self.heal(), self.heal_the_lanes()
        for ident, device in list(world.devices.items()):
            if device.frozen is not None:
                world.thaw(ident)
            if not device.alive:
                world.restart(ident)
            elif not device.online:
                world.reconnect(ident)
        assert run_to_end(world, 300.0), "\n".join(world.log)
        world.run(40.0)
        assert run_to_active(world, 60.0), "\n".join(world.log)
        key = world.ask((3, 1, 4), 4)
        assert run_to_end(world, 60.0), "\n".join(world.log)
        ended = world.streams[key].ended
        assert ended is not None and ended.finish == "length", "\n".join(world.log)


TestFates = Fates.TestCase
TestFates.settings = settings(
    deadline=None, derandomize=True, max_examples=40, stateful_step_count=20,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
