"""A device helps a driver that brings a session back: it says what it holds of it, and sends rows again."""

from swisd.core.effects import GiveUp, Publish
from swisd.core.local import Effects, Local
from swisd.core.messages import Repair
from swisd.core.rows import Activation
from swisd.core.types import Plan, Slot
from swisd.core.worker import Worker


class Repairs:
    """Answers to what `Recovery` asks, under the plan in service and from its driver alone."""

    def __init__(self, local: Local, worker: Worker) -> None:
        self._local, self._worker, self._held = local, worker, worker.held

    def on_repair(self, repair: Repair, sender: str, now: float, out: Effects) -> None:
        """Answer the driver: say what is held of a session, or send rows again."""
        plan = self._local.plan
        if plan is None or not repair.epoch == plan.epoch <= self._local.ready_epoch:
            return
        if plan.driver_of(self._local.device) != sender:
            return
        if repair.op == "fork" and repair.source is not None:
            self._held.fork(repair.source, repair.session, repair.end, now, out, keep=repair.keep)
        if repair.op in ("resume", "fork"):
            if not self._held.caches.give_up(repair.session, repair.step, now):
                self._local.drop("repair of a session that ended")
                return
            out.append(GiveUp(repair.session, plan.epoch, repair.step))
        if repair.op in ("probe", "resume", "fork"):
            held = tuple(
                self._held.of(repair.session, number, stage) for number, stage in self._worker.stages
            )
            answer = Repair("held", repair.session, plan.epoch, repair.step, self._local.device, held)
            out.append(Publish(answer, to=sender))
        elif repair.op == "replay":
            self._replay(repair, plan, now, out)

    def _replay(self, repair: Repair, plan: Plan, now: float, out: Effects) -> None:
        """Send what the journal has; the last pass asks for a word when it is done."""
        stages = plan.stages_of(self._local.device)
        if repair.stage not in dict(self._worker.stages) or not repair.stage < repair.until < len(stages):
            self._local.drop("replay of a stage of another device")
            return
        boundary, pipeline = stages[repair.stage].end, plan.number_of(self._local.device) or 0
        entries = self._held.journal.passes(repair.session, boundary, repair.start, repair.end)
        for number, entry in enumerate(entries):
            last = number == len(entries) - 1
            slot = Slot(repair.session, repair.step + number, entry.position, entry.rows, int(last))
            rows = Activation(
                plan.epoch, pipeline, repair.stage + 1, (slot,), entry.rows, entry.payload, repair.until
            )
            self._worker.hand_on(rows, plan, now, out)
