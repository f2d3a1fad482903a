"""A driver with its plan loaded, whose hands are a test: it is given events, and says what is to be done."""

from builders import MODEL, a_config, a_manifest, an_id

from swisd.core.effects import Effect, RunStep
from swisd.core.events import ManifestReady, Received, ShardsLoaded, StepDone
from swisd.core.machine import NodeMachine
from swisd.core.shards import own_stages
from swisd.core.types import Plan


class Desk:
    """Device 1 under a plan, with a clock that goes on by 10 ms an event."""

    def __init__(self, plan: Plan, **config: object) -> None:
        self.machine = NodeMachine(a_config(1, claims="never", **config))
        self.now = 100.0
        self.do(ManifestReady(MODEL, a_manifest(4)))
        self.do(Received(plan.host, plan))
        mine = tuple(stage.units for _, stage in own_stages(plan, an_id(1)))
        self.do(ShardsLoaded(plan.epoch, mine, 1))

    def do(self, event: object) -> list[Effect]:
        self.now += 0.01
        return self.machine.handle(event, self.now)  # type: ignore[arg-type]

    def answer(self, step: RunStep, token: int) -> list[Effect]:
        """The head says this token."""
        return self.do(StepDone(step.work, 1, (), 1.0, token=token))
