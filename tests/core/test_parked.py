"""What a session may take over from one that ended: the same tokens, run in the same way."""

import pytest
from builders import a_start

from swisd.core import deadlines
from swisd.core.history import History, history, joined, same, together
from swisd.core.parked import LEAST, Parked, Prefix
from swisd.core.session import Session
from swisd.core.types import Units

IDS = tuple(range(100, 150))


def a_session(prompt: tuple[int, ...], alone: tuple[Units, ...] = (), **changes: object) -> Session:
    return Session.begin(a_start(prompt=prompt, alone=alone, **changes), 1, 10, 0.0)  # type: ignore[arg-type]


def rows(session: Session) -> list[tuple[int, int]]:
    """Position and rows of each pass."""
    return [(item.position, len(item.ids)) for item in session._all_passes()]


def test_spans_that_touch_are_one():
    assert joined([(5, 7), (0, 2), (2, 4), (9, 9)]) == ((0, 4), (5, 7))


def test_rows_of_a_prompt_run_together_but_for_answers_and_single_ones():
    assert together(10, ()) == [(0, 10)]
    assert together(10, ((3, 6),)) == [(0, 3), (6, 10)]
    assert together(10, ((1, 6), (7, 9))) == []  # the first, the seventh and the last are single
    assert together(1, ()) == []


def test_a_history_is_prompt_and_answer_and_tells_how_each_row_ran():
    assert history((1, 2, 3), (), (7, 8), whole=True) == History((1, 2, 3, 7, 8), ((3, 5),))
    assert history((1, 2, 3), (), (7, 8), whole=False) == History((1, 2, 3, 7), ((3, 4),))
    assert history((1,), (), (7,), whole=True) == History((1, 7), ((0, 2),))
    assert history((1, 2, 3, 4, 5), ((2, 3),), (), whole=True) == History((1, 2, 3, 4, 5), ((2, 3),))


@pytest.mark.parametrize(
    ("mine", "theirs", "agrees"),
    [
        (History(IDS), History(IDS), 50),
        (History(IDS), History(IDS[:20]), 20),
        (History(IDS), History((*IDS[:20], 0)), 20),
        (History(IDS), History((0, *IDS[1:])), 0),
        (History(IDS, ((30, 50),)), History(IDS), 30),  # an answer once, a part of the prompt now
        (History(IDS, ((30, 40),)), History(IDS, ((30, 45),)), 40),
        (History(IDS, ((30, 40),)), History(IDS[:35], ((30, 35),)), 35),
        (History(IDS, ((0, 2), (30, 40))), History(IDS, ((0, 2), (30, 40))), 50),
    ],
)
def test_histories_agree_where_ids_and_ways_are_the_same(mine: History, theirs: History, agrees: int):
    assert mine.agrees(theirs) == theirs.agrees(mine) == agrees


def test_the_spans_before_a_position():
    assert History(IDS, ((0, 2), (30, 40))).alone_before(35) == ((0, 2), (30, 35))
    assert History(IDS, ((0, 2), (30, 40))).alone_before(30) == ((0, 2),)
    assert same((1, 2, 3), (1, 2, 4, 5)) == 2


def ended(key: str, prompt: tuple[int, ...], emitted: tuple[int, ...] = ()) -> Session:
    session = a_session(prompt, session=key)
    session.emitted += emitted
    session.finish = "stop"
    return session


def test_the_longest_prefix_is_found_and_short_ones_are_not_worth_it():
    parked = Parked()
    assert parked.add(ended("a", IDS[:30]), 0.0)
    assert parked.add(ended("b", IDS[:35], IDS[35:40]), 0.0)
    assert not parked.add(ended("c", IDS[: LEAST - 1]), 0.0)
    assert parked.positions == 70
    assert parked.take_for(a_session(IDS), 1000) == Prefix("b", 35, True)
    assert parked.take_for(a_session((*IDS[: LEAST - 1], 1, 2)), 1000) is None
    assert list(parked) == ["a", "b"]


def test_where_there_is_no_room_for_both_the_other_is_gone():
    parked = Parked()
    parked.add(ended("a", IDS), 0.0)
    assert parked.take_for(a_session((*IDS[:30], 1, 2)), 60) == Prefix("a", 30, False)
    assert list(parked) == []


def test_those_of_no_use_for_longest_make_room():
    parked = Parked()
    for key in "abc":
        parked.add(ended(key, IDS), 0.0)
    parked.take_for(a_session((*IDS[:30], 1, 2)), 1000)  # of all three, the last is taken
    assert parked.beyond(110) == ["a"] and parked.beyond(110) == []
    assert parked.beyond(0) == ["b", "c"]


def test_what_is_of_no_use_for_long_is_stale():
    parked = Parked()
    parked.add(ended("a", IDS), 0.0)
    parked.add(ended("b", IDS), 1.0)
    assert parked.stale(deadlines.PARKED + 0.5) == ["a"]
    assert list(parked) == ["b"]


def test_a_conversation_goes_on_with_the_passes_that_it_had():
    first = a_session(IDS[:20], max_tokens=5)
    first.emitted += [1, 2, 3, 4, 5]
    first.finish = "length"
    said = first.history
    assert said == History((*IDS[:20], 1, 2, 3, 4), ((20, 24),))
    second = a_session((*said.ids, 5, 60, 61, 62), said.alone)
    assert rows(second) == [(0, 20), (20, 1), (21, 1), (22, 1), (23, 1), (24, 4)]
    assert second.usable(said.agrees(second.history)) == 24
    second.take_over(24)
    assert [(item.position, len(item.ids)) for item in second.todo] == [(24, 4)]
    second.start_over()
    assert [(item.position, len(item.ids)) for item in second.todo] == rows(second)
    assert second.answers_from(0) == 4 and second.answers_from(22) == 2


@pytest.mark.parametrize(
    ("length", "agreed", "usable"),
    [(50, 50, 48), (50, 49, 48), (50, 48, 48), (50, 30, 30), (50, 1, 0), (1, 1, 0), (2, 2, 0), (3, 2, 0)],
)
def test_no_pass_is_left_with_one_row_and_the_last_row_is_run(length: int, agreed: int, usable: int):
    session = a_session(IDS[:length])
    assert session.usable(agreed) == usable
    session.take_over(usable)
    assert sum(len(item.ids) for item in session.todo) == length - usable
    assert length == 1 or all(len(item.ids) > 1 for item in session.todo)
    assert [len(item.ids) for item in session.passes(0, length)].count(1) == (length == 1)


def test_a_single_last_row_is_run_alone_again():
    session = a_session(IDS[:21], ((10, 20),))
    assert rows(session)[-2:] == [(19, 1), (20, 1)]
    assert session.usable(21) == 20
