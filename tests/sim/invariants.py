"""What must hold in every simulated swarm, after every event."""

from swisd.core import deadlines
from swisd.core.effects import RunStep, SendFrame
from swisd.core.types import Plan
from swisd.sim.toy import toy_tokens
from swisd.sim.world import World

GRACE = deadlines.DEAD + deadlines.SUSPECT  # for the host to notice that a device is gone, and to plan


class Invariants:
    """Watches a world; any breach is an AssertionError in the event that caused it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._expected: dict[str, list[int]] = {}
        self._seen: dict[str, int] = {}
        self._ended: dict[str, object] = {}
        self._unowned_since: float | None = None
        world.check, world.on_effect = self.check, self.on_effect

    def on_effect(self, ident: str, effect: object) -> None:
        """No activation of an old epoch is acted upon."""
        if isinstance(effect, (RunStep, SendFrame)):
            plan = self.world.devices[ident].machine.local.plan
            assert plan is not None and effect.activation.epoch == plan.epoch
            stage = plan.pipelines[0].stages[effect.activation.stage]
            assert stage.device == (ident if isinstance(effect, RunStep) else effect.device)

    def check(self) -> None:
        self._streams()
        self._memory()
        self._owners()

    def _streams(self) -> None:
        for key, stream in self.world.streams.items():
            if key in self._ended:
                assert stream.ended is self._ended[key], "a session ended twice"
                assert len(stream.tokens) == self._seen.get(key, 0), "a token after the end"
            elif stream.ended is not None:
                self._ended[key] = stream.ended
            if len(stream.tokens) != self._seen.get(key, 0):
                self._seen[key] = len(stream.tokens)
                assert stream.tokens == self.expected(key)[: len(stream.tokens)]

    def expected(self, key: str) -> list[int]:
        """All tokens of a stream, as one undisturbed device gives them."""
        if key not in self._expected:
            request = self.world.streams[key].asker._request
            self._expected[key] = toy_tokens(self.world.manifest, request.prompt, request.max_tokens)
        return self._expected[key]

    def _memory(self) -> None:
        units = self.world.manifest.units
        for device in self.world.devices.values():
            cached = sum(
                len(rows) * units[unit].kv_bytes_per_token for (_, unit), rows in device.shard.caches.items()
            )
            assert device.loaded_bytes + cached <= device.machine.local.config.memory_bytes

    def _owners(self) -> None:
        """While a plan is active every unit is loaded, but for the time it takes to notice a loss."""
        plan = self.plan()
        if plan is None or not plan.active:
            self._unowned_since = None
            return
        stages = plan.pipelines[0].stages
        assert [unit for stage in stages for unit in range(stage.start, stage.end)] == list(
            range(self.world.manifest.n_units)
        )
        owned = all(
            self.world.devices[stage.device].alive
            and self.world.devices[stage.device].stages.get(number) == stage
            for number, stage in enumerate(stages)
        )
        if owned:
            self._unowned_since = None
        elif self._unowned_since is None:
            self._unowned_since = self.world.now
        else:
            assert self.world.now - self._unowned_since <= GRACE, "a unit is unowned under an active plan"

    def plan(self) -> Plan | None:
        """The plan of the device that leads, if exactly one does (and can: it is not frozen)."""
        devices = self.world.devices.values()
        leaders = [item for item in devices if item.alive and item.leading and item.frozen is None]
        return leaders[0].machine.host.plan if len(leaders) == 1 else None


def run_to_active(world: World, within: float = 60.0) -> bool:
    """Let time pass until some leader's plan is active."""
    return world.run_until(
        lambda: any(
            device.alive
            and device.leading
            and device.machine.host.plan is not None
            and device.machine.host.plan.active
            for device in world.devices.values()
        ),
        within,
    )


def run_to_end(world: World, within: float = 200.0) -> bool:
    """Let time pass until every session has ended."""
    return world.run_until(lambda: all(item.ended for item in world.streams.values()), within)
