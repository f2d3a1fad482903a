"""A session that begins as another one did: from the driver's choice to the rows that need not run again."""

from dataclasses import replace
from typing import Any

import pytest
from builders import a_plan, a_start, an_id, said
from test_driver import ASKER, RING, WHOLE, Desk, key, kinds, outs, steps
from test_worker import Bench

from swisd.core import deadlines
from swisd.core.effects import DropSession, Effect, ForkKv, Publish, RunStep
from swisd.core.events import BusChanged, KvFailed, Received, StepDone, Timer
from swisd.core.messages import Ask, Held, Repair
from swisd.core.types import Units

PROMPT = tuple(range(20, 50))
ANSWER = (11, 12, 13)
HELD = (*PROMPT, *ANSWER[:-1])  # the last token of an answer that came to its limit is not fed
SPAN = ((len(PROMPT), len(HELD)),)


def a_desk(prompt: tuple[int, ...] = PROMPT, answer: tuple[int, ...] = ANSWER) -> Desk:
    """A driver alone, with a session that ended."""
    desk = Desk()
    effects = desk.ask(a_start(key(1), prompt, max_tokens=len(answer)))
    for token in answer:
        effects = desk.answer(steps(effects)[-1], token)
    assert outs(effects)[-1].finish == "length" and not kinds(effects, DropSession)
    return desk


def ask(
    desk: Desk, number: int, prompt: tuple[int, ...], alone: tuple[Units, ...] = (), **changes: Any
) -> list[Effect]:
    return desk.ask(a_start(key(number), prompt, alone=alone, max_tokens=3, **changes))


def fed(effects: list[Effect]) -> list[tuple[int, int]]:
    return [(item.activation.slots[0].position, item.activation.rows) for item in steps(effects)]


def test_the_next_turn_goes_on_in_the_place_of_the_last():
    desk = a_desk()
    effects = ask(desk, 2, (*HELD, 13, 60, 61), SPAN)
    assert kinds(effects, ForkKv) == [ForkKv(key(1), key(2), len(HELD), False)]
    assert fed(effects) == [(len(HELD), 3)]
    assert effects.index(kinds(effects, ForkKv)[0]) < effects.index(steps(effects)[0])
    again = ask(desk, 3, (*HELD, 13, 60, 61, 62, 63))
    assert kinds(again, ForkKv) == [] and fed(again) == [(0, len(HELD) + 5)]  # it is the second one's now


def test_another_question_about_the_same_text_leaves_it_for_the_next():
    desk = a_desk()
    for number in (2, 3):
        effects = ask(desk, number, (*PROMPT[:25], 60, 61, 62))
        assert kinds(effects, ForkKv) == [ForkKv(key(1), key(number), 25, True)]
        assert fed(effects) == [(25, 3)]


def test_an_answer_that_is_a_part_of_the_prompt_now_is_not_taken_over():
    desk = a_desk()
    effects = ask(desk, 2, (*HELD, 13, 60, 61))
    assert [item.end for item in kinds(effects, ForkKv)] == [len(PROMPT)]
    assert fed(effects) == [(len(PROMPT), 5)]


def test_an_answer_that_nobody_holds_is_read_as_a_part_of_the_prompt():
    """Run one by one it would take longer, so the asker is told to ask without."""
    desk = Desk()
    long = tuple(range(1, 41))
    effects = ask(desk, 2, (*PROMPT, *long, 60, 61), ((30, 70),))
    (out,) = outs(effects)
    assert (out.finish, out.retry) == ("error", True) and "read again" in out.error
    assert steps(effects) == []
    short = ask(desk, 3, (*PROMPT, *long[:3], 60, 61), ((30, 33),))
    assert fed(short)[0] == (0, 30)  # a few are run as they are


def test_scores_and_sessions_that_come_from_elsewhere_take_nothing_over():
    desk = a_desk()
    assert kinds(ask(desk, 2, (*PROMPT, 60, 61), score_top=1), ForkKv) == []
    assert kinds(ask(desk, 3, (*PROMPT, 60, 61), emitted=(5,), again=True), ForkKv) == []


@pytest.mark.parametrize("finish", ["cancelled", "short", "scores"])
def test_what_is_of_no_use_is_freed_at_once(finish: str):
    desk = Desk()
    prompt = PROMPT[:5] if finish == "short" else PROMPT
    changes = {"score_top": 1, "max_tokens": 0} if finish == "scores" else {"max_tokens": 1}
    effects = desk.ask(a_start(key(1), prompt, **changes))
    if finish == "cancelled":
        effects = desk.ask(Ask("cancel", key(1), ASKER, 1))
    elif finish == "short":
        effects = desk.answer(steps(effects)[0], 11)
    else:
        effects = desk.ask(Ask("cancel", key(1), ASKER, 1))
    assert DropSession(key(1)) in effects


def test_what_ended_makes_room_for_what_runs():
    """The context has room for 64 positions of all sessions."""
    desk = Desk(a_plan((0, 6, 1), context=64))
    effects = desk.ask(a_start(key(1), PROMPT, max_tokens=1))
    assert not kinds(desk.answer(steps(effects)[0], 11), DropSession)
    effects = desk.ask(a_start(key(2), tuple(range(100, 120)), max_tokens=30))
    assert DropSession(key(1)) in effects and fed(effects) == [(0, 20)]


def test_where_there_is_no_room_for_both_the_text_goes_with_the_first_that_asks():
    desk = Desk(a_plan((0, 6, 1), context=64))
    effects = desk.ask(a_start(key(1), PROMPT, max_tokens=1))
    desk.answer(steps(effects)[0], 11)
    effects = desk.ask(a_start(key(2), (*PROMPT[:25], 60, 61, 62), max_tokens=20))
    assert kinds(effects, ForkKv) == [ForkKv(key(1), key(2), 25, False)]


def test_what_is_of_no_use_for_long_is_freed():
    desk = a_desk()
    assert not kinds(desk.beat(deadlines.PARKED - 1), DropSession)
    assert DropSession(key(1)) in desk.beat(2)


def test_another_plan_frees_what_ended():
    desk = a_desk()
    plan = replace(WHOLE, epoch=2)
    assert DropSession(key(1)) in desk.take_up(plan)
    effects = desk.ask(a_start(key(2), (*PROMPT, 60, 61), epoch=2))
    assert kinds(effects, ForkKv) == [] and fed(effects) == [(0, 32)]


# --- in a ring -----------------------------------------------------------------------------------


class Ring:
    """The driver of a ring of two, with a session that ended there and one that wants its rows."""

    def __init__(self) -> None:
        self.desk = Desk(RING)
        effects = self.desk.ask(a_start(key(1), PROMPT, max_tokens=1))
        self.desk.round(steps(effects)[0], 11)
        effects = ask(self.desk, 2, (*PROMPT, 60, 61, 62))
        ((self.word, to),) = [
            (item.message, item.to)
            for item in effects
            if isinstance(item, Publish) and isinstance(item.message, Repair)
        ]
        assert (self.word.op, self.word.source, self.word.end, to) == ("fork", key(1), 30, an_id(2))
        assert kinds(effects, ForkKv) == [ForkKv(key(1), key(2), 30, False)] and steps(effects) == []

    def held(self, length: int) -> list[Effect]:
        word = Repair("held", key(2), 1, self.word.step, an_id(2), (Held(1, length, 0, length),))
        return self.desk.do(Received(an_id(2), word))


def test_rows_are_fed_once_all_devices_have_taken_theirs_over():
    effects = Ring().held(30)
    assert fed(effects) == [(30, 3)]


def test_where_one_device_let_go_all_is_run_anew():
    effects = Ring().held(0)
    assert fed(effects) == [(0, 33)]


def test_a_device_that_does_not_answer_is_asked_again():
    ring = Ring()
    ring.desk.do(BusChanged(True))  # without it nobody could hear
    ring.desk.now += deadlines.ANSWER
    (again,) = said(ring.desk.do(Timer("repair:" + key(2))), Repair)
    assert again == ring.word


class Holder(Bench):
    """The second device of the ring, with a session that ended."""

    def __init__(self) -> None:
        super().__init__()
        (step,) = kinds(self.frame(session=key(1)), RunStep)
        self.do(StepDone(step.work, 3, (1, 2, 3), 1.0))
        self.do(Received(an_id(1), Ask("park", key(1), an_id(1), 5)))

    def fork(self, end: int, step: int = 1, source: int = 1) -> tuple[list[Effect], int]:
        """What is done, and what this device says that it holds."""
        word = Repair("fork", key(2), 5, step, an_id(1), end=end, source=key(source), keep=True)
        effects = self.do(Received(an_id(1), word))
        (answer,) = said(effects, Repair)
        assert isinstance(answer, Repair) and answer.op == "held"
        return kinds(effects, ForkKv), answer.held[0].length


def test_a_worker_gives_rows_of_a_session_that_ended():
    holder = Holder()
    assert holder.fork(3) == ([ForkKv(key(1), key(2), 3, True)], 3)
    assert holder.fork(3) == ([], 3)  # the word came twice


@pytest.mark.parametrize(("end", "source"), [(4, 1), (3, 7)])
def test_a_worker_that_has_fewer_rows_gives_none(end: int, source: int):
    assert Holder().fork(end, source=source) == ([], 0)


def test_rows_that_ran_count_even_if_the_end_of_their_session_is_told_first():
    """They go on before the machine hears that they ran, and may be round the ring by then."""
    holder = Holder()
    (first,) = kinds(holder.frame(session=key(5)), RunStep)
    holder.do(StepDone(first.work, 3, (1, 2, 3), 1.0))
    (last,) = kinds(holder.frame(session=key(5), position=3, step=1), RunStep)
    holder.do(Received(an_id(1), Ask("park", key(5), an_id(1), 5)))
    assert holder.do(StepDone(last.work, 3, (4, 5, 6), 1.0, sent=True)) == []
    assert holder.fork(6, source=5) == ([ForkKv(key(5), key(2), 6, True)], 6)


def test_rows_of_a_session_that_runs_are_not_given():
    bench = Holder()
    bench.frame(session=key(3), step=0)
    assert bench.fork(3, source=3)[0] == []


def test_late_rows_of_a_session_that_is_kept_are_refused():
    holder = Holder()
    assert not kinds(holder.frame(session=key(1), position=3, step=1), RunStep)
    assert holder.drops["rows of a session that ended"] == 1


def test_rows_that_could_not_be_given_are_run_again():
    holder = Holder()
    holder.fork(3)
    holder.do(KvFailed(key(2), (0, 6), "rows that are not here"))
    probe = Repair("probe", key(2), 5, 1, an_id(1))
    (answer,) = said(holder.do(Received(an_id(1), probe)), Repair)
    assert isinstance(answer, Repair) and answer.held[0].length == 0
