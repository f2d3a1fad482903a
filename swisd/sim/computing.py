"""The compute thread of a simulated device: steps, rows of caches, loads, ends of sessions, in order."""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from swisd.core.effects import (
    DropSession,
    ForkKv,
    KeepShards,
    LoadShards,
    ReadKv,
    RunStep,
    SendFrame,
    WriteKv,
    given_up,
)
from swisd.core.events import KvFailed, KvRead, StepDone, StepFailed
from swisd.core.expected import is_asked
from swisd.core.model import MAX_UNITS
from swisd.core.rows import KvRows

if TYPE_CHECKING:
    from swisd.sim.hands import Device, Hands

TELL_S = 0.0003  # to the machine
FAIL_S = 0.0005


@dataclass(frozen=True, slots=True)
class Early:
    """A step that is about to be asked for."""

    step: RunStep


class Computing:
    """Works off the queues of devices, whose other work `hands` do."""

    def __init__(self, hands: "Hands") -> None:
        self._hands = hands

    def next(self, ident: str, device: "Device") -> None:
        """Go on with what waits."""
        while device.queue and not device.computing:
            self._compute(ident, device, device.queue.popleft())

    def begin(self, ident: str, device: "Device", step: RunStep) -> None:
        """Run a step that is about to be asked for."""
        device.queue.append(Early(step))
        self.next(ident, device)

    def _compute(self, ident: str, device: "Device", effect: object) -> None:
        begun, device.early = device.early, None
        match effect:
            case Early():
                if not device.queue:  # else the machine asks in its turn
                    self._run(ident, device, effect.step, early=True)
            case RunStep():
                floor = device.floors.get(effect.work.session)
                if floor is not None and given_up(effect.work, floor):
                    return
                if begun is not None and is_asked(effect, begun[0]):
                    self._tell(ident, device, begun[1])
                else:
                    self._run(ident, device, effect, early=False)
            case DropSession():
                device.floors.pop(effect.session, None)
                device.shard.drop(effect.session)
            case KeepShards():
                device.load += 1
                device.keep(set(effect.units))
            case LoadShards():
                self._hands.load(ident, device, effect)
            case ReadKv() | WriteKv() | ForkKv():
                self._move(ident, device, effect)

    def _move(self, ident: str, device: "Device", effect: ReadKv | WriteKv | ForkKv) -> None:
        shard = device.shard
        match effect:
            case ReadKv():
                payload = shard.read(effect.session, effect.units, effect.position, effect.rows)
                if payload is not None:
                    kv = KvRows(
                        effect.epoch, effect.session, effect.units, effect.position, effect.rows, payload
                    )
                    self._hands.later(FAIL_S, ident, KvRead(effect.device, kv), device)
            case ForkKv():
                if not shard.fork(effect.source, effect.session, effect.end, keep=effect.keep):
                    failed = KvFailed(effect.session, (0, MAX_UNITS), "rows that are not here")
                    self._hands.later(FAIL_S, ident, failed, device)
            case WriteKv():
                kv = effect.kv
                owned = set(range(*kv.units)) <= device.owned
                if not owned or not shard.write(kv.session, kv.units, kv.position, kv.payload):
                    failed = KvFailed(kv.session, kv.units, "rows that do not fit")
                    self._hands.later(FAIL_S, ident, failed, device)

    def _run(self, ident: str, device: "Device", effect: RunStep, *, early: bool) -> None:
        world, (start, end) = self._hands.world, effect.units
        found = self._result(device, effect)
        if isinstance(found, str):
            if not early:  # once it is asked for it fails again
                self._hands.later(0.0002, ident, StepFailed(effect.work, found), device)
            return
        n_units = world.manifest.n_units
        layers = max(min(end, n_units - 1) - max(start, 1), 0)
        rows = sum(slot.rows for slot in effect.activation.slots)
        passes = 1.0 if rows == 1 else max(rows / 8.0, 1.0)
        ms = passes * layers * device.speed.layer_ms + (device.speed.head_ms if end == n_units else 0)
        count, payload, token, scores = found
        done = StepDone(effect.work, count, payload, ms, token, scores)
        device.computing = True
        ended = partial(self._ended, ident, device, effect, done, early=early)
        world._later(world._delay(ms / 1000.0), ended)

    def _result(self, device: "Device", effect: RunStep) -> tuple[Any, ...] | str:
        """What becomes of the rows, or why nothing does."""
        if effect.units not in device.shards:
            return "no such shard is loaded"
        try:
            return device.shard.run(effect.units, effect.activation, effect.sample, effect.score)
        except ValueError as error:
            return str(error)

    def _ended(self, ident: str, device: "Device", effect: RunStep, done: StepDone, *, early: bool) -> None:
        """The rows go on before the machine hears of them, where that may be."""
        world = self._hands.world
        device.computing = False
        runs = device.alive and device.frozen is None and world.devices[ident] is device
        if effect.onward and runs and world._reaches(ident, effect.onward):
            rows = effect.activation.onward(done.rows, done.payload, done.ran_ms)
            self._hands.do(ident, device, SendFrame(effect.onward, rows))
            done = replace(done, sent=True)
        if early:
            device.early = effect, done
        else:
            self._tell(ident, device, done)
        self.next(ident, device)

    def _tell(self, ident: str, device: "Device", done: StepDone) -> None:
        world = self._hands.world
        world._later(TELL_S, partial(world._feed, ident, done, device))
