"""A driver that brings a session back: it asks, names the silent, has rows run again, and gives up."""

from dataclasses import replace
from typing import Any

from builders import MODEL, a_config, a_manifest, a_plan, a_start, an_id, said

from swisd.core import deadlines
from swisd.core.attempt import Attempt
from swisd.core.effects import Effect, Publish, RunStep, SendFrame, SetTimer
from swisd.core.events import (
    BusChanged,
    FrameArrived,
    FrameLost,
    ManifestReady,
    Received,
    ShardsLoaded,
    StepDone,
    Timer,
)
from swisd.core.machine import NodeMachine
from swisd.core.messages import Call, Held, Out, Repair
from swisd.core.recovery import MAX_TRIES
from swisd.core.replay import STATELESS
from swisd.core.rerun import Rerun
from swisd.core.rows import TO_THE_END
from swisd.core.session import Session
from swisd.core.types import Plan

KEY = "a" * 16
RING = a_plan((0, 2, 1), (2, 3, 2), (3, 4, 3), (4, 5, 4), (5, 6, 1))
PROMPT = (5, 6, 7)


class Desk:
    """The driver of a ring of four devices, with a session that has answered two tokens."""

    def __init__(self, plan: Plan = RING) -> None:
        self.machine = NodeMachine(a_config(1, claims="never"))
        self.now, self.timers = 100.0, dict[str, float]()
        self.do(BusChanged(True))
        self.do(ManifestReady(MODEL, a_manifest(4)))
        self.do(Received(plan.host, plan))
        self.do(ShardsLoaded(plan.epoch, ((0, 2), (5, 6)), 1))
        effects = self.do(Received("f" * 16, a_start(prompt=PROMPT, max_tokens=50)))
        for token in (11, 12):
            effects = self.round(effects, token)
        self.effects = effects  # the step of the second token is under way

    def do(self, event: Any, seconds: float = 0.0) -> list[Effect]:
        self.now += seconds
        effects = self.machine.handle(event, self.now)
        self.timers.update({item.name: item.at for item in effects if isinstance(item, SetTimer)})
        return effects

    def round(self, effects: list[Effect], token: int) -> list[Effect]:
        """The rows that were fed go round the ring and come back as a token."""
        (step,) = kinds(effects, RunStep)
        (sent,) = kinds(self.do(StepDone(step.work, step.activation.rows, (0,), 1.0), 0.05), SendFrame)
        self.sent = sent.activation
        back = replace(sent.activation, stage=4, rows=sent.activation.slots[0].logits)
        (head,) = kinds(self.do(FrameArrived(an_id(4), back)), RunStep)
        return self.do(StepDone(head.work, 1, (), 1.0, token=token))

    def session(self) -> Session:
        session = self.machine.driver.sessions.get(KEY)
        assert session is not None
        return session

    def late(self) -> list[Effect]:
        """The step that is under way left this device, and its deadline passes."""
        (step,) = kinds(self.effects, RunStep)
        self.do(StepDone(step.work, 1, (0,), 1.0))
        self.now = max(self.now, self.timers["step:" + KEY])
        return self.do(Timer("step:" + KEY))

    def wait(self, name: str = "repair") -> list[Effect]:
        self.now = max(self.now, self.timers[f"{name}:{KEY}"])
        return self.do(Timer(f"{name}:{KEY}"))

    def answers(self, asked: list[Effect], lengths: dict[int, Any], *, kept_from: int = 0) -> list[Effect]:
        """Devices 2 to 4 say what they hold: a length, or (length, kept from, made), or steps besides."""
        step = next(word.step for word, _ in repairs(asked))
        effects: list[Effect] = []
        for number, held in lengths.items():
            told = held if isinstance(held, tuple) else (held, kept_from, held)
            if len(told) == 3:
                told = (*told, steps_of(told[0]), steps_of(told[2]))
            word = Repair("held", KEY, 1, step, an_id(number), (Held(number - 1, *told),))
            effects += self.do(Received(an_id(number), word))
        return effects


def steps_of(positions: int) -> int:
    """How many steps brought so many positions: three rows of the prompt at once, then one by one."""
    return max(0, positions - 2)


def kinds(effects: list[Effect], kind: type) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def repairs(effects: list[Effect]) -> list[tuple[Repair, int]]:
    """The words to other devices, and to which."""
    found = [(item.message, item.to) for item in effects if isinstance(item, Publish)]
    return [(message, int(to, 16)) for message, to in found if isinstance(message, Repair)]


def asked(effects: list[Effect]) -> list[tuple[str, int]]:
    return [(word.op, to) for word, to in repairs(effects)]


def ALL(op: str) -> list[tuple[str, int]]:  # noqa: N802 - reads as a constant
    return [(op, 2), (op, 3), (op, 4)]


def test_a_late_step_is_looked_for_without_being_forgotten():
    desk = Desk()
    looking = desk.late()
    assert asked(looking) == ALL("probe") and said(looking, Out) == []
    back = replace(desk.sent, stage=4, slots=(replace(desk.sent.slots[0], step=2, position=4),), rows=1)
    (head,) = kinds(desk.do(FrameArrived(an_id(4), back)), RunStep)  # it was only slow
    (out,) = said(desk.do(StepDone(head.work, 1, (), 1.0, token=13)), Out)
    assert out.tokens == (13,)  # type: ignore[union-attr]
    assert desk.answers(looking, {2: 5, 3: 5, 4: 5}) == []


def test_a_frame_that_was_lost_is_found_and_its_rows_are_fed_again():
    """Device 2 sent them on, device 3 never had them."""
    desk = Desk()
    found = desk.answers(desk.late(), {2: 5, 3: 4, 4: 4})
    assert asked(found) == ALL("resume")
    effects = desk.answers(found, {2: 5, 3: 4, 4: 4})
    (again,) = kinds(effects, RunStep)
    assert again.activation.slots[0].position == 4 and again.activation.until == TO_THE_END
    assert again.work.step >= repairs(found)[0][0].step


def test_a_device_that_has_the_rows_and_takes_its_time_is_given_more():
    desk = Desk()
    looking = desk.late()
    effects = desk.answers(looking, {2: 5, 3: (5, 0, 4), 4: 4})  # device 3 computes still
    assert asked(effects) == [] and desk.timers["step:" + KEY] > desk.now
    again = desk.wait("step") or desk.wait("step")
    assert asked(again) in ([], ALL("probe"))


def test_a_device_that_is_late_again_and_again_is_named():
    desk, calls = Desk(), list[Any]()
    effects = desk.late()
    for _ in range(deadlines.STRIKES):
        if not asked(effects):
            effects = desk.wait("step") or desk.wait("step")
        calls += said(effects, Call)
        assert len(calls) == 0
        effects = desk.answers(effects, {2: 5, 3: (5, 0, 4), 4: 4})
        calls += said(effects, Call)
        desk.session().slack = 1.0
        desk.session().moved = 0.0
    assert [(call.op, call.about, call.epoch) for call in calls] == [("slow", an_id(3), 1)]
    assert "late 6 times" in calls[0].note


def test_nobody_is_late_while_rows_of_others_are_run_again():
    """They are before its own in the line. A plan without the device would have all of them run once more."""
    desk = Desk()
    other = Attempt(Session.begin(a_start("b" * 16, prompt=PROMPT), 1, 50, now=desk.now), "", desk.now)
    other.rerun = Rerun(desk.now, 3, 0, {}, {})
    desk.machine.driver.recovery._attempts["b" * 16] = other
    effects = desk.late()
    for _ in range(2 * deadlines.STRIKES):
        if not asked(effects):
            effects = desk.wait("step") or desk.wait("step")
        assert said(effects, Call) == []
        effects = desk.answers(effects, {2: 5, 3: (5, 0, 4), 4: 4})
        assert said(effects, Call) == [] and asked(effects) == []
        assert desk.timers["step:" + KEY] == desk.now + desk.session().patience
    found = desk.answers(desk.wait("step"), {2: 5, 3: 4, 4: 4})  # but what is lost is lost
    assert asked(found) == ALL("resume")


def test_who_does_not_answer_twice_is_named_to_the_host_once():
    desk = Desk()
    desk.answers(desk.late(), {2: 5, 4: 4})
    once = desk.wait()
    assert asked(once) == [("probe", 3)] and said(once, Call) == []
    twice = desk.wait()
    (call,) = said(twice, Call)
    assert (call.op, call.about, call.epoch) == ("suspect", an_id(3), 1)  # type: ignore[union-attr]
    assert said(desk.wait(), Call) == []


def test_without_the_bus_nobody_is_silent():
    desk = Desk()
    desk.late()
    desk.do(BusChanged(False, "cable"))
    for _ in range(5):
        assert said(desk.wait(), Call) == []


def test_what_is_lost_is_run_again_from_the_journals_beside_it_at_once():
    """Devices 2 and 4 began anew: two stages are rebuilt side by side, and then the session goes on."""
    desk = Desk()
    fail = Repair("fail", KEY, 1, 99, an_id(3), note="rows did not reach d4")
    found = desk.do(Received(an_id(3), fail))
    assert asked(found) == ALL("resume")
    effects = desk.answers(found, {2: 0, 3: (5, 0, 5), 4: 0})
    ((word, to),) = repairs(effects)
    assert (word.op, to, word.stage, word.until, word.start, word.end) == ("replay", 3, 2, 3, 0, 4)
    frames = kinds(effects, SendFrame)  # this device has the inputs of the first one
    assert [frame.device for frame in frames] == [an_id(2)] * len(frames) and frames
    assert {frame.activation.until for frame in frames} == {1}
    positions = [(frame.activation.slots[0].position, frame.activation.rows) for frame in frames]
    assert positions == [(0, 3), (3, 1)]  # in the shapes of the first time
    assert [frame.activation.slots[0].logits for frame in frames] == [0, 1]
    assert (
        kinds(desk.do(Received(an_id(2), replace(fail, op="done", device=an_id(2), until=1, end=4))), RunStep)
        == []
    )
    last = desk.do(Received(an_id(4), replace(fail, op="done", device=an_id(4), until=3, end=4)))
    (again,) = kinds(last, RunStep)
    assert again.activation.slots[0].position == 4 and again.work.step > word.step + 1


def rebuilding() -> tuple[Desk, list[Effect]]:
    """Stages 1 and 3 began anew; what they held is run again."""
    desk = Desk()
    found = desk.do(Received(an_id(3), Repair("fail", KEY, 1, 99, an_id(3), note="rows did not reach d4")))
    return desk, desk.answers(found, {2: 0, 3: (5, 0, 5), 4: 0})


def test_whether_rows_that_are_run_again_came_round_is_asked_where_the_word_of_it_was_lost():
    desk, effects = rebuilding()
    first = repairs(effects)[0][0].step  # the two passes of each stage have this step and the next
    looking = desk.wait()
    assert asked(looking) == [("probe", 2), ("probe", 4)]
    assert (
        desk.answers(looking, {2: (4, 0, 4, first + 2, first + 2), 4: (3, 0, 3, first + 2, first + 1)}) == []
    )
    (again,) = kinds(desk.answers(looking, {4: (4, 0, 4, first + 2, first + 2)}), RunStep)
    assert again.activation.slots[0].position == 4


def test_rows_that_advance_have_all_the_time_they_take():
    desk, effects = rebuilding()
    first = repairs(effects)[0][0].step
    for ran in (first - 1, first, first + 1):
        looking = desk.wait()
        assert asked(looking) == [("probe", 2), ("probe", 4)]
        desk.now += 1.0
        assert desk.answers(looking, {4: (3, 0, 3, ran, ran)}) == []


def test_rows_that_do_not_advance_are_run_again_once_more_within_seconds():
    desk, _ = rebuilding()
    began, effects = desk.now, desk.wait()
    first = desk.session().next_step
    while asked(effects) != ALL("resume"):  # they came to device 2, which does not run them
        assert desk.answers(effects, {2: (4, 0, 0, first, 2), 4: (4, 0, 0, 2, 2)}) == []
        effects = desk.wait()
        assert desk.now - began < 10.0


def test_answers_of_an_earlier_question_do_not_count():
    desk = Desk()
    found = desk.answers(desk.late(), {2: 5, 3: 4, 4: 4})
    old = Repair("held", KEY, 1, repairs(found)[0][0].step - 1, an_id(2), (Held(1, 5, 0, 5),))
    assert desk.do(Received(an_id(2), old)) == []
    foreign = replace(old, step=old.step + 1, held=(Held(2, 5, 0, 5),))  # of another device's stage
    assert desk.do(Received(an_id(2), foreign)) == []
    again = desk.answers(found, {3: 4, 4: 4})  # so stage 1 is not known
    assert asked(again) == ALL("resume") and repairs(again)[0][0].step > old.step + 1


def test_it_gives_up_after_so_many_tries_and_says_so():
    desk, outs = Desk(), list[Any]()
    for number in range(MAX_TRIES + 1):
        lost = FrameLost(
            an_id(2), replace(desk.sent, slots=(replace(desk.sent.slots[0], step=900 + number),)), "no lane"
        )
        effects = desk.do(lost)
        outs += said(effects, Out)
        if not asked(effects) and not outs:
            effects = desk.wait()  # the first tries are made at once, the others after a pause
        if asked(effects):
            desk.answers(effects, {2: 4, 3: 4, 4: 4})
    (out,) = outs
    assert (out.finish, out.retry, out.freed) == ("error", True, True)
    assert "could not be brought back" in out.error and "no lane" in out.error
    assert len(desk.machine.driver.recovery) == 0


def test_a_token_that_comes_ends_the_count_of_tries():
    desk = Desk()
    session = desk.session()
    session.tries = MAX_TRIES
    desk.round(desk.effects, 13)
    assert session.tries == 0


def test_another_plan_of_the_same_driver_begins_with_the_question_what_is_held():
    desk = Desk()
    plan = replace(
        RING, epoch=2, pipelines=a_plan((0, 2, 1), (2, 3, 2), (3, 4, 5), (4, 5, 4), (5, 6, 1)).pipelines
    )
    found = desk.do(Received(plan.host, plan))
    assert [(op, to) for op, to in asked(found)] == [("resume", 2), ("resume", 4), ("resume", 5)]
    assert said(found, Out) == []
    assert desk.session().epoch == 2


def test_a_stage_without_layers_needs_nothing():
    desk = Desk()
    held = desk.machine.worker.held.of(KEY, 4, RING.pipelines[0].stages[4])
    assert held.length == STATELESS


def test_what_a_device_forgot_is_not_waited_for_without_end():
    """Whoever answers the same each time may be slow, or hold nothing of the step: at last it is fed anew."""
    desk = Desk()
    looking = desk.late()
    for _ in range(12):
        assert asked(looking) == ALL("probe")
        effects = desk.answers(looking, {2: 4, 3: 4, 4: 4})
        if asked(effects):
            break
        looking = desk.wait("step")
    assert asked(effects) == ALL("resume")
    assert desk.now < 160.0
    fed = desk.answers(effects, {2: 4, 3: 4, 4: 4})
    (step,) = kinds(fed, RunStep)
    assert step.activation.slots[0].position == 4
