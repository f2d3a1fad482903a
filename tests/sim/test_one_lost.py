"""After a device died, one word or frame is lost as well: that costs a moment."""

from collections.abc import Callable

import pytest
from invariants import Invariants, run_to_active, run_to_end

from swisd.core.events import FrameArrived
from swisd.core.messages import Plan, Repair
from swisd.core.rows import TO_THE_END
from swisd.sim.faults import FaultyWorld
from swisd.sim.toy import toy_manifest
from swisd.sim.world import Speed

MIB = 1 << 20
SESSIONS, TOKENS = 3, 160
LOST_S = 2.0  # that one lost message costs at most


class Loss:
    """Five devices and some answers; one worker is killed, and one message after that may be lost."""

    def __init__(self) -> None:
        self.world = FaultyWorld(1, toy_manifest(12), jitter=0.3)
        self.invariants = Invariants(self.world)
        self.invariants.limits = self.world.limits
        for name in ("ann", "bob", "cyd", "dan", "eve"):
            self.world.add(name, memory_bytes=100 * MIB, speed=Speed(0.4, 0.5), holds=True)
        assert run_to_active(self.world)
        self.world.run(3.0)
        self.after: list[object] = []

    @property
    def pause(self) -> float:
        """The longest time between two tokens of a stream since the blow, in seconds."""
        return self.invariants.longest_pause

    def strike(self, chosen: int = -1) -> None:
        """Kill a worker in mid-answer and lose the message of this number, of all that come after."""
        world = self.world
        for number in range(SESSIONS):
            world.ask((number, 1, 4), TOKENS, seed=number)
        world.run(0.8)
        host = next(device for device in world.devices.values() if device.leading)
        plan = host.machine.host.plan
        assert plan is not None
        (pipeline,) = plan.pipelines
        others = {pipeline.driver, host.machine.local.device}
        self.invariants.longest_pause = 0.0
        world.kill(min(set(pipeline.devices) - others))

        def loses(sender: str, to: str, what: object) -> bool:
            self.after.append(getattr(what, "message", what))
            return len(self.after) == chosen + 1

        world.loses = loses
        assert run_to_end(world, 100.0)


def runs_again(message: object) -> bool:
    return isinstance(message, FrameArrived) and message.activation.until != TO_THE_END


def goes_on(message: object) -> bool:
    return isinstance(message, FrameArrived) and message.activation.until == TO_THE_END


def a_word(op: str) -> Callable[[object], bool]:
    return lambda message: isinstance(message, Repair) and message.op == op


def a_plan(message: object) -> bool:
    return isinstance(message, Plan)


KINDS: dict[str, Callable[[object], bool]] = {
    "a plan": a_plan,
    "a question what is held": a_word("resume"),
    "an answer to that": a_word("held"),
    "the word that rows came round": a_word("done"),
    "rows that are run again": runs_again,
    "rows that run for the first time": goes_on,
}


@pytest.fixture(scope="module")
def undisturbed() -> Loss:
    loss = Loss()
    loss.strike()
    return loss


@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_costs_a_moment(kind: str, which: str, undisturbed: Loss):
    """The last rows of a session are the worst to lose: none come behind them that would show the gap."""
    found = [number for number, message in enumerate(undisturbed.after) if KINDS[kind](message)]
    chosen = found[0 if which == "first" else -1]
    loss = Loss()
    loss.strike(chosen)
    assert KINDS[kind](loss.after[chosen])
    assert loss.pause < undisturbed.pause + LOST_S
