"""What becomes of rows on this device: they come, steps run them and end, keys and values move."""

from swisd.core.driver import Driver
from swisd.core.effects import DropSession, Effect, GiveUp, RunStep, given_up
from swisd.core.events import (
    FrameArrived,
    FrameLost,
    KvArrived,
    KvFailed,
    KvRead,
    LinkLost,
    StepDone,
    StepFailed,
)
from swisd.core.local import Effects, Local
from swisd.core.rows import TO_THE_END, Activation, Work
from swisd.core.service import Service
from swisd.core.worker import Worker

RowEvent = FrameArrived | FrameLost | LinkLost | StepDone | StepFailed | KvArrived | KvRead | KvFailed


class UnderWay:
    """Steps that this device was told to run, and whose end is awaited."""

    def __init__(self) -> None:
        self._steps: dict[Work, Activation] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def note(self, effect: Effect) -> None:
        """What is to be done may begin steps, or make their ends meaningless."""
        if isinstance(effect, RunStep):
            self._steps[effect.work] = effect.activation
        elif isinstance(effect, GiveUp):
            for work in [work for work in self._steps if given_up(work, effect)]:
                del self._steps[work]
        elif isinstance(effect, DropSession):
            for work in [work for work in self._steps if work.session == effect.session]:
                del self._steps[work]

    def end(self, work: Work) -> Activation | None:
        """A step came to its end. Returns its rows, if it was awaited."""
        return self._steps.pop(work, None)

    def clear(self) -> None:
        self._steps.clear()


class Steps:
    """Takes what happens to rows to the worker, to the driver and to the caches that move."""

    def __init__(
        self, local: Local, under_way: UnderWay, worker: Worker, driver: Driver, service: Service
    ) -> None:
        self._local, self._under_way = local, under_way
        self._worker, self._driver, self._service = worker, driver, service

    def take(self, event: RowEvent, now: float, out: Effects) -> None:
        match event:
            case FrameArrived():
                self._service.confirm(event.activation.epoch, now, out)
                if at_head := self._worker.on_frame(event, now, out):
                    self._driver.head(at_head, now, out)
            case StepDone():
                self._on_done(event, now, out)
            case StepFailed():
                if self._under_way.end(event.work) is not None:
                    self._worker.on_step_failed(event, out)
            case FrameLost():
                if self._local.plan is not None and event.activation.epoch == self._local.plan.epoch:
                    self._worker.on_frame_lost(event, out)
            case KvArrived():
                self._service.moving.on_kv(event, now, out)
            case KvRead():
                self._service.moving.on_read(event, out)
            case KvFailed():
                self._service.moving.on_failed(event)
            case LinkLost():
                self._worker.on_link_lost(event, self._driver.running(), out)

    def _on_done(self, event: StepDone, now: float, out: Effects) -> None:
        work = event.work
        activation = self._under_way.end(work)
        plan = self._local.plan
        if activation is None or plan is None or work.epoch != plan.epoch:
            return
        last = len(plan.pipelines[activation.pipeline].stages) - 1
        if activation.stage == last and activation.until == TO_THE_END:
            self._worker.pace.note(event, activation, self._worker.stages)
            self._worker.note_done(activation)
            self._service.moving.on_step(work.session, out)
            self._driver.on_head_done(event, activation, now, out)
            return
        self._service.moving.on_step(work.session, out)
        at_head = self._worker.on_step_done(event, activation, now, out)
        if at_head is not None:
            self._driver.head(at_head, now, out)
        if activation.stage == 0:
            self._driver.on_fed(event, now, out)
