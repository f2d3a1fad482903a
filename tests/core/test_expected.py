"""Rows that may run before the machine hears of them: what is foretold is what the machine asks for."""

from dataclasses import replace

import pytest
from builders import a_plan, an_id
from test_worker import DRIVER, MINE, RING, Bench, kinds

from swisd.core.effects import (
    Activation,
    DropSession,
    ForkKv,
    GiveUp,
    KeepShards,
    KvRows,
    Notice,
    RunStep,
    SetTimer,
    Work,
    WriteKv,
)
from swisd.core.events import FrameArrived, Received, StepDone
from swisd.core.expected import Expected, is_asked
from swisd.core.messages import Repair
from swisd.core.types import Slot

A, B = "a" * 16, "b" * 16


def rows(step: int = 0, position: int = 3, *, session: str = A, guess: bool = False, **more) -> Activation:
    slot = Slot(session, step, position, 1, 1, guess)
    return replace(Activation(5, 0, 1, (slot,), 1, (7,)), **more)


def ran(activation: Activation, inward: str = DRIVER) -> RunStep:
    slot = activation.slots[0]
    work = Work(activation.epoch, activation.stage, slot.session, slot.step)
    return RunStep(work, MINE, activation, onward=DRIVER, inward=inward)


def after(*effects, step: int = 4) -> Expected:
    expected = Expected()
    expected.note(ran(rows(step, 10)))
    for effect in effects:
        expected.note(effect)
    return expected


def test_the_row_behind_the_last_one_is_expected_once():
    expected, arrived = after(), FrameArrived(DRIVER, rows(5, 11))
    step = expected.step(arrived)
    assert step == RunStep(Work(5, 1, A, 5), MINE, arrived.activation, onward=DRIVER)
    assert expected.step(arrived) is None


@pytest.mark.parametrize(
    "arrived",
    [
        FrameArrived(an_id(3), rows(5, 11)),
        FrameArrived(DRIVER, rows(6, 11)),
        FrameArrived(DRIVER, rows(4, 10)),
        FrameArrived(DRIVER, rows(5, 12)),
        FrameArrived(DRIVER, rows(5, 11, session=B)),
        FrameArrived(DRIVER, rows(5, 11, guess=True)),
        FrameArrived(DRIVER, rows(5, 11, epoch=6)),
        FrameArrived(DRIVER, rows(5, 11, stage=2)),
        FrameArrived(DRIVER, rows(5, 11, pipeline=1)),
        FrameArrived(DRIVER, rows(5, 11, until=1)),
        FrameArrived(DRIVER, rows(5, 11, rows=2)),
        FrameArrived(DRIVER, rows(5, 11, slots=(Slot(A, 5, 11, 2, 1),), rows=2)),
        FrameArrived(DRIVER, rows(5, 11, slots=(Slot(A, 5, 11, 1, 1), Slot(B, 5, 11, 1, 1)), rows=2)),
        FrameArrived(DRIVER, rows(5, 11, slots=(Slot(A, 5, 11, 1, 0),))),
    ],
)
def test_any_other_row_is_not(arrived: FrameArrived):
    expected = after()
    assert expected.step(arrived) is None
    assert expected.step(FrameArrived(DRIVER, rows(5, 11))) is not None  # it is still to come


@pytest.mark.parametrize(
    ("effect", "still"),
    [
        (Notice("info", "x"), True),
        (SetTimer("x", 1.0), True),
        (GiveUp(B, 5, 3), False),
        (DropSession(B), False),
        (ForkKv(B, A, 3, keep=True), False),
        (WriteKv(KvRows(5, B, (2, 3), 0, 1, b"")), False),
        (KeepShards(), False),
        (ran(rows(0, 0, session=B)), False),
        (ran(rows(5, 11), inward=""), False),
    ],
)
def test_it_is_expected_until_something_else_is_done(effect, still: bool):
    assert (after(effect).step(FrameArrived(DRIVER, rows(5, 11))) is not None) == still


def test_the_machine_asks_for_what_was_foretold():
    bench, expected = Bench(), Expected()
    for number in range(6):
        arrived = FrameArrived(DRIVER, rows(number, number))
        foretold = expected.step(arrived)
        effects = bench.do(arrived)
        (step,) = kinds(effects, RunStep)
        assert (foretold is not None) == (number > 0)
        if foretold is not None:
            assert is_asked(step, foretold) and foretold.onward == step.onward
            assert not is_asked(step, replace(foretold, activation=rows(number, number)))  # another frame
        for effect in effects:
            expected.note(effect)
        bench.do(StepDone(step.work, 1, (number,), 1.0))


@pytest.mark.parametrize("why", ["guess", "prompt", "context", "again", "coming"])
def test_where_the_next_row_must_be_asked_for(why: str):
    bench = Bench()
    (before,) = kinds(bench.do(FrameArrived(DRIVER, rows(0, 0))), RunStep)
    assert before.inward == DRIVER
    bench.do(StepDone(before.work, 1, (1,), 1.0))
    if why == "coming":
        wider = replace(
            RING, epoch=6, active=False, pipelines=a_plan((0, 2, 1), (2, 5, 2), (5, 6, 1)).pipelines
        )
        bench.plan(wider)
    if why == "context":
        bench = Bench(replace(RING, context=2))
        bench.do(FrameArrived(DRIVER, rows(0, 0)))
    changed = {
        "guess": rows(1, 1, guess=True),
        "prompt": rows(1, 1, slots=(Slot(A, 1, 1, 3, 1),), rows=3),
        "again": rows(1, 1, until=1),
    }
    (step,) = kinds(bench.do(FrameArrived(DRIVER, changed.get(why, rows(1, 1)))), RunStep)
    assert step.inward == ""


def test_steps_that_were_given_up_are_not_expected():
    bench, expected = Bench(), Expected()
    for effect in bench.do(FrameArrived(DRIVER, rows(0, 0))):
        expected.note(effect)
    word = Repair("resume", A, 5, 7, DRIVER)
    for effect in bench.do(Received(DRIVER, word)):
        expected.note(effect)
    assert expected.step(FrameArrived(DRIVER, rows(1, 1))) is None
