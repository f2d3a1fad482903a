"""Keys and values that move with their layers while sessions run: a new plan begins where the old one ends.

A device that is to run layers of another asks it for their caches as soon as it prepares the plan. The other
sends what it has of every session, in pieces between its steps, and after each further step what that added.
What is given only grows, as rows of tokens that are guesses stay until they are known to be right: at the
switch no more than the last row is on its way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from swisd.core import deadlines
from swisd.core.effects import Publish, ReadKv, SendKv, SetTimer, WriteKv
from swisd.core.events import KvArrived, KvFailed, KvRead
from swisd.core.local import Effects, Local
from swisd.core.messages import Repair
from swisd.core.model import Manifest
from swisd.core.types import Plan, Stage, Units
from swisd.core.worker import Worker

NO_SESSION = "0" * 16
PIECE_BYTES = 256 << 10  # a piece delays the rows behind it on the same lane no longer than this takes


@dataclass(slots=True)
class Gift:
    """Caches of some layers on their way to a device: how far, by session."""

    sent: dict[str, int] = field(default_factory=dict)
    goals: dict[str, int] = field(default_factory=dict)  # what was here when it was asked for
    reading: set[str] = field(default_factory=set)
    told: bool = False


class Moving:
    """What a device is given, and what it gives, under the plan that is coming."""

    def __init__(self, local: Local, worker: Worker) -> None:
        self._local, self._worker, self._caches = local, worker, worker.held.caches
        self._epoch = 0
        self._until = 0.0  # however long they keep coming
        self._wants: dict[tuple[str, Units], bool] = {}  # (from whom, layers) -> whether all came
        self._gifts: dict[tuple[str, Units], Gift] = {}

    @property
    def waiting(self) -> bool:
        """Whether caches that this device needs for the coming plan are still on their way."""
        return not all(self._wants.values())

    def prepare(self, plan: Plan, before: Plan | None, now: float, out: Effects) -> None:
        """Ask for the caches of layers that come here, where the plan before goes on until then."""
        self._epoch, self._wants, self._gifts = plan.epoch, {}, {}
        manifest = self._local.manifests.get(plan.model)
        if not plan.gentle or before is None or manifest is None:
            return
        me = self._local.device
        here, there = owners(plan.stages_of(me), manifest), owners(_heritage(me, plan, before), manifest)
        mine = [unit for unit, device in here.items() if device == me and there.get(unit, me) != me]
        for units in _runs(mine, there):
            self._wants[there[units[0]], units] = False
            word = Repair("move", NO_SESSION, plan.epoch, 0, me, start=units[0], end=units[1])
            out.append(Publish(word, to=there[units[0]]))
        if self._wants:
            self._until = now + deadlines.MOVE_MOST
            out.append(SetTimer("moving", now + deadlines.MOVE))

    def give_up(self) -> None:
        """What did not come by now is run again instead."""
        self._wants = dict.fromkeys(self._wants, True)

    # --- giving ------------------------------------------------------------------------------------

    def on_move(self, repair: Repair, sender: str, out: Effects) -> None:
        """A device asks for the caches of layers that it is to run."""
        newest = self._local.newest
        if newest is None or repair.epoch != newest.epoch or not newest.gentle:
            return
        manifest = self._local.manifests.get(newest.model)
        units = repair.start, repair.end
        if manifest is None or not 1 <= units[0] < units[1] < manifest.n_units:
            self._local.drop("caches of layers that the model does not have are asked for")
            return
        then = owners(newest.stages_of(sender), manifest)
        if any(then.get(unit) != sender for unit in range(*units)):
            self._local.drop("caches of another device's layers are asked for")
            return
        held = {session: self._caches.sure(session, range(*units)) for session in self._caches}
        self._gifts[sender, units] = Gift(goals={session: at for session, at in held.items() if at})
        for session in held:
            self._read(sender, units, session, out)
        self._tell(sender, units, out)

    def on_step(self, session: str, out: Effects) -> None:
        """A step of a session is done: what it added goes the same way."""
        for sender, units in self._gifts:
            self._read(sender, units, session, out)
            self._tell(sender, units, out)

    def on_read(self, event: KvRead, out: Effects) -> None:
        """Rows that were asked for: send them, and go on."""
        kv = event.kv
        gift = self._gifts.get((event.device, kv.units))
        if gift is None or kv.epoch != self._epoch:
            return
        out.append(SendKv(event.device, kv))
        gift.reading.discard(kv.session)
        gift.sent[kv.session] = kv.position + kv.rows
        self._read(event.device, kv.units, kv.session, out)
        self._tell(event.device, kv.units, out)

    def _read(self, to: str, units: Units, session: str, out: Effects) -> None:
        gift, manifest = self._gifts[to, units], self._local.manifest
        at, length = gift.sent.get(session, 0), self._caches.sure(session, range(*units))
        if manifest is None or session in gift.reading or length <= at:
            return
        most = max(1, PIECE_BYTES // max(manifest.kv_bytes_per_token(*units), 1))
        gift.reading.add(session)
        out.append(ReadKv(to, self._epoch, session, units, at, min(length - at, most)))

    def _tell(self, to: str, units: Units, out: Effects) -> None:
        """Say once that what was here is sent; what comes later is little, and without end."""
        gift, here = self._gifts[to, units], self._caches
        if not gift.told and all(
            gift.sent.get(key, 0) >= gift.goals[key] for key in here if key in gift.goals
        ):
            gift.told = True
            word = Repair(
                "moved", NO_SESSION, self._epoch, 0, self._local.device, start=units[0], end=units[1]
            )
            out.append(Publish(word, to=to))

    # --- being given -------------------------------------------------------------------------------

    def on_moved(self, repair: Repair, sender: str) -> bool:
        """Returns True if nothing else is waited for."""
        key = sender, (repair.start, repair.end)
        if repair.epoch != self._epoch or key not in self._wants or not self.waiting:
            return False
        self._wants[key] = True
        return not self.waiting

    def on_kv(self, event: KvArrived, now: float, out: Effects) -> None:
        """Rows for the caches of layers that this device will run."""
        kv, newest = event.kv, self._local.newest
        if newest is None or kv.epoch != newest.epoch or (event.sender, kv.units) not in self._wants:
            self._local.drop("keys and values that nobody asked for")
        elif kv.position + kv.rows > newest.context:
            self._local.drop("keys and values beyond the context")
        elif not self._worker.take_rows(kv.session, kv.units, kv.position, kv.rows, now):
            self._local.drop("keys and values out of order")
        else:
            out.append(WriteKv(kv))
            if self.waiting:
                out.append(SetTimer("moving", min(now + deadlines.MOVE, self._until)))

    def on_failed(self, event: KvFailed) -> None:
        """Rows were refused after all: what is missing is run again."""
        self._caches.lose(event.session, range(*event.units))


def _heritage(device: str, plan: Plan, before: Plan) -> tuple[Stage, ...]:
    """The stages before whose sessions go on in the pipeline of a device, if any do.

    Sessions stay with their driver. If it drives nothing any more, they go where its devices are.
    """
    driver = plan.driver_of(device)
    stages = before.stages_of(driver) if driver is not None else ()
    if not stages and len(before.pipelines) == 1:
        stages = before.pipelines[0].stages
    stayed = stages and stages[0].device != driver and stages[0].device in plan.drivers
    return () if stayed else stages


def owners(stages: Sequence[Stage], manifest: Manifest) -> dict[int, str]:
    """Which device runs each layer of a pipeline."""
    head = manifest.n_units - 1
    return {
        unit: stage.device for stage in stages for unit in range(max(stage.start, 1), min(stage.end, head))
    }


def _runs(units: list[int], there: dict[int, str]) -> list[Units]:
    """Contiguous layers of one owner."""
    runs: list[Units] = []
    for unit in sorted(units):
        if runs and runs[-1][1] == unit and there[unit] == there[unit - 1]:
            runs[-1] = runs[-1][0], unit + 1
        else:
            runs.append((unit, unit + 1))
    return runs
