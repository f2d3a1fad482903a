"""Rows that may run before the machine hears of them: what is foretold is what the machine asks for."""

from dataclasses import replace

import pytest
from builders import a_plan, a_start, an_id
from desk import Desk
from test_worker import DRIVER, MINE, RING, Bench, kinds

from swisd.core.effects import (
    DropSession,
    Effect,
    ForkKv,
    GiveUp,
    KeepShards,
    Notice,
    RunStep,
    SetTimer,
    WriteKv,
)
from swisd.core.events import FrameArrived, Received, StepDone
from swisd.core.expected import Expected, is_asked
from swisd.core.messages import Repair
from swisd.core.rows import TO_THE_END, Activation, Following, KvRows, Sample, Work
from swisd.core.types import SamplingParams, Slot

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


# --- the head -----------------------------------------------------------------------------------------

HEAD_RING = a_plan((0, 2, 1), (2, 4, 2), (4, 6, 1), epoch=5)
WORKER = an_id(2)


class Ring:
    """A driver whose rows come round at once, and what is foretold of its head."""

    def __init__(self, tokens: int = 8, params: SamplingParams | None = None) -> None:
        self.desk, self.expected = Desk(HEAD_RING, speculation=False), Expected()
        ask = a_start(
            A,
            epoch=5,
            prompt=(5, 6, 7),
            max_tokens=tokens,
            stop_ids=(2,),
            sampling=params or SamplingParams(),
        )
        self.fed = self.do(Received(ask.asker, ask))[-1]

    def behind_the_prompt(self) -> "Ring":
        (asked,) = self.do(self.come())
        assert asked.inward == ""
        (self.fed,) = self.do(StepDone(asked.work, 1, None, 1.0, token=10))
        return self

    def do(self, event: object) -> list[RunStep]:
        found: list[Effect] = self.desk.do(event)
        for effect in found:
            self.expected.note(effect)
        return [effect for effect in found if isinstance(effect, RunStep)]

    def come(self) -> FrameArrived:
        """The rows that were fed leave the first stage, and come to the head."""
        slot = self.fed.activation.slots[0]
        self.do(StepDone(self.fed.work, slot.rows, b"", 1.0, sent=True))
        return FrameArrived(WORKER, Activation(5, 0, 2, (slot,), slot.rows, b"x", TO_THE_END))


@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(temperature=0.7, repetition_penalty=1.2, repetition_window=2)]
)
def test_the_driver_asks_its_head_for_what_was_foretold(params: SamplingParams):
    ring, foretold = Ring(params=params), []
    for token in (10, 11, 12, 10, 13, 14, 15):
        arrived = ring.come()
        early = ring.expected.step(arrived)
        (asked,) = ring.do(arrived)
        foretold.append(early is not None)
        if early is not None:
            assert is_asked(asked, early) and (early.following, early.onward) == (asked.following, "")
            assert asked.sample is not None and early.sample == asked.sample
            assert not is_asked(replace(asked, sample=replace(asked.sample, seed=7)), early)
        (ring.fed,) = ring.do(StepDone(asked.work, 1, None, 1.0, token=token))
    assert foretold == [False, False, *[True] * 5]  # behind the prompt's it is asked for


def test_the_head_is_foretold_once_its_token_is_fed():
    ring = Ring().behind_the_prompt()
    (asked,) = ring.do(ring.come())
    behind = FrameArrived(WORKER, Activation(5, 0, 2, (Slot(A, 2, 4, 1, 1),), 1, b"x"))
    assert ring.expected.step(behind) is None
    (ring.fed,) = ring.do(StepDone(asked.work, 1, None, 1.0, token=11))
    early = ring.expected.step(behind)
    assert early is not None and early.sample == Sample(SamplingParams(), 1, 5, ())
    assert early.following == Following((0, 2), (2,), 5)


@pytest.mark.parametrize("payload", [(10, 11), b"xxxx", (10,)])
def test_only_a_token_right_behind_is_the_heads(payload):
    expected = Expected()
    slot = Slot(A, 4, 10, 1, 1)
    head = RunStep(
        Work(5, 2, A, 4), (4, 6), Activation(5, 0, 2, (slot,), 1, b"x"), Sample(SamplingParams(), 0, 11, ()),
        following=Following((0, 2), (), 5), inward=WORKER,
    )  # fmt: skip
    behind = Slot(A, 5, 11, 1, 1)
    fed = RunStep(Work(5, 0, A, 5), (0, 2), Activation(5, 0, 0, (behind,), len(payload), payload))
    expected.note(head)
    expected.note(fed)
    arrived = FrameArrived(WORKER, Activation(5, 0, 2, (behind,), 1, b"y"))
    assert (expected.step(arrived) is not None) == (payload == (10,))
    for other in (replace(fed, work=Work(6, 0, A, 5)), replace(fed, work=Work(5, 1, A, 5))):
        expected.note(head)
        expected.note(other)
        assert expected.step(arrived) is None


def test_behind_the_last_token_nothing_is_foretold():
    ring = Ring(tokens=3).behind_the_prompt()
    (asked,) = ring.do(ring.come())
    assert asked.inward == WORKER
    (ring.fed,) = ring.do(StepDone(asked.work, 1, None, 1.0, token=11))
    arrived = ring.come()
    early = ring.expected.step(arrived)
    (asked,) = ring.do(arrived)
    assert early is not None and early.following is None
    assert (asked.following, asked.inward) == (None, "")


# --- somebody else looks out --------------------------------------------------------------------------


def right() -> Expected:
    """The last row was foretold, and the next one is."""
    expected = after()
    step = expected.step(FrameArrived(DRIVER, rows(5, 11)))
    assert step is not None
    expected.note(replace(step, inward=DRIVER))
    return expected


def test_a_row_is_looked_out_for_once_the_last_one_was_foretold():
    assert after().lend() is None
    expected = right()
    coming = expected.lend()
    assert coming is not None and coming.device == DRIVER
    arrived = FrameArrived(DRIVER, rows(6, 12))
    assert coming.step(arrived) == RunStep(Work(5, 1, A, 6), MINE, arrived.activation, onward=DRIVER)
    assert expected.lend() is None and expected.step(arrived) is None  # it is theirs now
    expected.give_back(coming)
    assert expected.step(arrived) is not None


def test_a_row_of_another_session_ends_it():
    expected = right()
    assert expected.step(FrameArrived(DRIVER, rows(0, 0, session=B))) is None
    assert expected.lend() is None


@pytest.mark.parametrize("effect", [ran(rows(6, 12)), ran(rows(0, 0, session=B), inward=""), DropSession(A)])
def test_what_is_given_back_late_is_expected_no_more(effect):
    expected = right()
    coming = expected.lend()
    expected.note(effect)
    assert coming is not None
    expected.give_back(coming)
    assert expected.step(FrameArrived(DRIVER, rows(6, 12))) is None
