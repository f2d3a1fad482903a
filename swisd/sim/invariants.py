"""What must hold in every simulated swarm, after every event."""

from typing import Any

from swisd.core import deadlines
from swisd.core.effects import LoadShards, RunStep, SendFrame
from swisd.core.types import Plan
from swisd.sim.askers import Stream
from swisd.sim.hands import Device
from swisd.sim.toy import toy_tokens
from swisd.sim.world import World

# For the host to notice that a device is gone, and to plan; some messages come late.
GRACE = deadlines.DEAD + deadlines.SUSPECT + 3.0
SWEEP_EVERY = 512  # events between two looks at what only ever changes by a bug
MAX_TIMERS = 7  # of a device, besides two for each session it drives
MAX_RUNNING = 256
MAX_STEPS = 1024  # what is run again is one step for each token that was answered, of several sessions


class Violation(AssertionError):
    """An invariant does not hold."""


def require(holds: object, what: str) -> None:
    """Raise `Violation` with the words `what` unless `holds`."""
    if not holds:
        raise Violation(what)


class Invariants:
    """Watches a world; any breach is a `Violation` in the event that caused it.

    `limits` holds what a device may use of its memory, where that is not the offer it began with.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.limits: dict[str, int] = {}
        self.longest_pause = 0.0  # seconds between two tokens of one stream
        self.progressed_at = 0.0  # when any stream last moved
        self._expected: dict[str, list[int]] = {}
        self._seen: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._token_at: dict[str, float] = {}
        self._ended: dict[str, object] = {}
        self._open: dict[str, Stream] = {}
        self._known = 0  # streams taken over into `_open`
        self._heard = 0  # news of streams that were looked at
        self._covers: Plan | None = None  # a plan whose stages were found to cover the model
        self._touched: set[str] = set()  # devices whose memory may have changed
        self._steps: dict[tuple[str, int, int, int, str], int] = {}  # a process's step of a session to come
        self._unowned_since: float | None = None
        self.most_pipelines = 0  # of an active plan
        self._events = 0
        world.check, world.on_effect = self.check, self.on_effect

    def on_effect(self, ident: str, effect: object) -> None:
        """No activation of an old epoch is acted upon, and none before its shards are loaded."""
        if isinstance(effect, (RunStep, SendFrame)):
            local = self.world.devices[ident].machine.local
            plan, activation = local.plan, effect.activation
            require(
                plan is not None and activation.epoch == plan.epoch, "rows of an old epoch are acted upon"
            )
            stages = plan.stages_of(ident) if plan else ()
            require(plan is None or plan.number_of(ident) == activation.pipeline, "rows of another pipeline")
            require(activation.stage < len(stages), "rows for a stage that the plan does not have")
            runs = isinstance(effect, RunStep)
            owner = ident if isinstance(effect, RunStep) else effect.device
            require(stages[activation.stage].device == owner, "rows of another device's stage")
            require(not runs or local.ready_epoch >= activation.epoch, "rows run before the shards are ready")
            if isinstance(effect, RunStep):
                self._once(ident, effect)
                self._touched.add(ident)
        elif isinstance(effect, LoadShards):
            self._touched.add(ident)

    def _once(self, ident: str, effect: RunStep) -> None:
        """A process runs the steps of a session one after the other, each once."""
        work = effect.work
        way = (
            ident,
            self.world.devices[ident].machine.local.config.boot,
            work.epoch,
            work.stage,
            work.session,
        )
        following = self._steps.get(way, 0)
        require(work.step >= following, f"step {work.step} of {work.session} is run after {following - 1}")
        self._steps[way] = work.step + 1  # the head skips those that want nothing of it

    def check(self) -> None:
        """Look at everything that the last event may have changed; at the rest now and then."""
        self._streams()
        self._memory()
        self._owners()
        self._events += 1
        if self._events % SWEEP_EVERY == 0:
            self.sweep()

    def sweep(self) -> None:
        """What is over stays over, and no device gathers state without end."""
        for key, ended in self._ended.items():
            stream = self.world.streams[key]
            require(stream.ended is ended, f"session {key} ended twice")
            require(len(stream.tokens) == self._seen.get(key, 0), f"session {key}: a token after the end")
            require(stream.scores == self._rows.get(key, 0), f"session {key}: a score after the end")
        for ident, device in self.world.devices.items():
            if device.alive:
                self._bounded(ident, device)

    def expected(self, key: str) -> list[int]:
        """All tokens of a stream, as one undisturbed device gives them."""
        if key not in self._expected:
            asker = self.world.streams[key].asker
            request = asker._request
            self._expected[key] = toy_tokens(
                self.world.manifest, request.prompt, request.max_tokens, asker._alone
            )
        return self._expected[key]

    def idle(self) -> None:
        """Once no session is left for a while, no device remembers one."""
        for device in self.world.devices.values():
            if device.alive and device.frozen is None:
                driver, name = device.machine.driver, device.machine.local.config.name
                require(
                    not driver.sessions and not driver.admission.waiting,
                    f"{name} still drives sessions that ended",
                )
                require(len(device.timers) <= MAX_TIMERS, f"{name} has timers of sessions that ended")
                require(not device.machine.under_way, f"{name} waits for steps of sessions that ended")

    def _streams(self) -> None:
        askers, streams = self.world.askers, self.world.streams
        if askers.news == self._heard:
            return
        self._heard = askers.news
        if len(streams) != self._known:
            for key in list(streams)[self._known :]:
                self._open[key] = streams[key]
            self._known = len(streams)
        over = []
        for key, stream in self._open.items():
            if len(stream.tokens) != self._seen.get(key, 0):
                self._on_tokens(key, stream)
            if stream.scores != self._rows.get(key, 0):
                self._rows[key], self.progressed_at = stream.scores, self.world.now
                prompt = len(stream.asker._request.prompt)
                require(stream.scores <= prompt, f"session {key}: {stream.scores} rows of {prompt}")
            if stream.ended is not None:
                self._on_end(key, stream)
                over.append(key)
        for key in over:
            del self._open[key]

    def _on_tokens(self, key: str, stream: Stream) -> None:
        seen, now = self._seen.get(key, 0), self.world.now
        expected = self.expected(key)
        require(
            stream.tokens[seen:] == expected[seen : len(stream.tokens)],
            f"session {key}: tokens from position {seen} on differ from the undisturbed ones",
        )
        if seen:
            self.longest_pause = max(self.longest_pause, now - self._token_at[key])
        self._seen[key], self._token_at[key], self.progressed_at = len(stream.tokens), now, now

    def _on_end(self, key: str, stream: Stream) -> None:
        ended, request = stream.ended, stream.asker._request
        self._ended[key], self.progressed_at = ended, self.world.now
        if ended is None or ended.finish == "cancelled":
            return
        if ended.finish == "error":
            require(ended.error, f"session {key} ended by an error without words")
        elif request.score_top:
            require(stream.scores == len(request.prompt), f"session {key} ended without all scores")
        else:
            room = ended.plan.context - len(request.prompt) if ended.plan else 0
            wanted = self.expected(key)[: max(room, 0)]
            require(stream.tokens == wanted, f"session {key} ended without all tokens")

    def _memory(self) -> None:
        if not self._touched:
            return
        units = self.world.manifest.units
        for ident in self._touched:
            device = self.world.devices[ident]
            cached = sum(
                len(rows) * units[unit].kv_bytes_per_token for (_, unit), rows in device.shard.caches.items()
            )
            loaded = sum(self.world.manifest.resident_bytes(*item) for item in device.shards)
            limit = self.limits.get(ident, device.machine.local.config.memory_bytes)
            require(
                loaded + cached <= limit,
                f"{device.machine.local.config.name} uses more memory than offered",
            )
        self._touched.clear()

    def _bounded(self, ident: str, device: Device) -> None:
        machine = device.machine
        name = machine.local.config.name
        require(len(device.timers) <= MAX_TIMERS + 2 * len(machine.driver.sessions), f"{name} gathers timers")
        sizes: dict[str, Any] = {
            "sessions": machine.driver.sessions,
            "waiting sessions": machine.driver.admission.waiting,
            "sessions as a worker": machine.worker.held.caches,
            "running steps": machine.under_way,
            "journals": machine.worker.held.journal,
            "sessions that are brought back": machine.driver.recovery,
            "reasons of drops": machine.local.drops,
        }
        for what, held in sizes.items():
            most = MAX_STEPS if held is machine.under_way else MAX_RUNNING
            require(len(held) <= most, f"{name} gathers {what}: {len(held)}")
        journal = machine.worker.held.journal.size
        require(journal <= machine.local.config.journal_bytes, f"{name} keeps too much of what it sent")
        require(len(machine.host.members.entries) <= len(self.world.devices), f"{name} gathers members")

    def _owners(self) -> None:
        """While a plan is active every unit is loaded, but for the time it takes to notice a loss."""
        plan = self.plan()
        if plan is None or not plan.active:
            self._unowned_since = None
            return
        if plan is not self._covers:
            self._covering(plan)
        devices = self.world.devices
        owned = True
        for stage in (stage for pipeline in plan.pipelines for stage in pipeline.stages):
            device = devices[stage.members[0].device]
            if not device.alive or (stage.start, stage.end) not in device.shards:
                owned = False
                break
        if owned:
            self._unowned_since = None
        elif self._unowned_since is None:
            self._unowned_since = self.world.now
        else:
            require(self.world.now - self._unowned_since <= GRACE, "a unit is unowned under an active plan")

    def _covering(self, plan: Plan) -> None:
        for pipeline in plan.pipelines:
            following = 0
            for stage in pipeline.stages:
                require(stage.start == following, "a plan with a gap or an overlap")
                following = stage.end
            require(following == self.world.manifest.n_units, "a pipeline that does not cover the model")
        parts = [device for pipeline in plan.pipelines for device in pipeline.devices]
        require(len(parts) == len(set(parts)), "a device with a part in two pipelines")
        self._covers = plan
        self.most_pipelines = max(self.most_pipelines, len(plan.pipelines))

    def plan(self) -> Plan | None:
        """The plan of the device that leads, if exactly one does and is able to act."""
        leader = None
        for device in self.world.devices.values():
            if device.leading and device.alive:
                if leader is not None:
                    return None
                leader = device
        if leader is None or leader.frozen is not None or not leader.online:
            return None
        return leader.machine.host.plan


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
    return world.run_until(lambda: not world.askers.open, within)
