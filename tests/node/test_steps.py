"""The line of steps: who runs next, with whom."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest

from swisd.core.effects import GiveUp, RunStep
from swisd.core.rows import Activation, Score, Work
from swisd.core.types import Slot, Units
from swisd.node.running import SLICE, slices
from swisd.node.steps import MOST_OF_ONE, MOST_TOGETHER, Steps
from swisd.runtime.mirrors import ROWS

A, B, C, D = (letter * 16 for letter in "abcd")
SHARD, OTHER = (0, 3), (3, 6)


def step(
    session: str, number: int = 0, *, rows: int = 1, units: Units = SHARD, together: int = 16, **head: Any
) -> RunStep:
    slot = Slot(session, number, number, rows, 1)
    activation = Activation(7, 0, 0, (slot,), rows, tuple(range(rows)))
    return RunStep(Work(7, 0, session, number), units, activation, together=together, **head)


def line(*steps: RunStep) -> Steps:
    made = Steps()
    for item in steps:
        made.add(item, 0)
    return made


def test_one_row_of_each_session_runs_in_one_pass() -> None:
    steps = line(step(A, 1), step(B, 5), step(A, 2), step(C, 9))
    assert steps.take(0) == [step(A, 1), step(A, 2)]  # those of one session that follow each other go first
    assert steps.take(0) == [step(B, 5), step(C, 9)]
    assert steps.take(0) == []
    steps = line(step(A, 1), step(B, 5), step(A, 3), step(C, 9))
    assert steps.take(0) == [step(A, 1), step(B, 5), step(C, 9)]
    assert steps.take(0) == [step(A, 3)]


def test_rows_of_one_session_at_positions_in_a_row_run_in_one_pass_of_their_own() -> None:
    steps = line(*(step(A, number, together=1) for number in range(MOST_OF_ONE + 3)), step(B))
    assert steps.take(0) == [step(A, number, together=1) for number in range(MOST_OF_ONE)]
    assert steps.take(0) == [step(A, number, together=1) for number in range(MOST_OF_ONE, MOST_OF_ONE + 3)]
    assert steps.take(0) == [step(B)]
    # As soon as anything else of the session is between, a pass ends.
    for other in (
        step(A, 8), step(A, 6), step(A, 5), step(A, 7, rows=2), step(A, 7, units=OTHER),
        step(A, 7, score=Score(2, (None,))),
    ):  # fmt: skip
        steps = line(step(A, 5), step(B), step(A, 6), step(C), other, step(A, 7))
        assert steps.take(0) == [step(A, 5), step(A, 6)]
    steps = line(step(B), step(A, 5), step(A, 6))
    assert steps.take(0) == [step(B), step(A, 5)]  # the first one has company: it is not alone any more
    assert steps.take(0) == [step(A, 6)]
    steps = line(step(A, 5))
    steps.add(step(A, 6), 1)
    assert steps.take(1) == [step(A, 5)]
    assert steps.take(1) == [step(A, 6)]


def test_between_slices_others_rows_run_in_one_pass_too() -> None:
    steps = line(step(A, 0, rows=40), step(A, 40), step(A, 41), step(B, 3), step(B, 4))
    assert steps.take(0) == [step(A, 0, rows=40)]
    assert steps.take_between(0, A) == [step(B, 3), step(B, 4)]
    assert steps.take_between(0, A) == []
    assert steps.take(0) == [step(A, 40), step(A, 41)]


def test_a_pass_of_a_session_is_no_longer_than_shards_run_at_once() -> None:
    assert MOST_OF_ONE == ROWS


def test_no_more_share_a_pass_than_the_first_one_says() -> None:
    steps = line(*(step(session, together=2) for session in (A, B, C)))
    assert [len(steps.take(0)) for _ in range(3)] == [2, 1, 0]
    many = [f"{number:016x}" for number in range(40)]
    steps = line(*(step(session, together=99) for session in many))
    assert [len(steps.take(0)) for _ in range(3)] == [MOST_TOGETHER, MOST_TOGETHER, 8]


def test_steps_of_other_shards_and_scores_run_apart() -> None:
    scores = step(C, score=Score(2, (None,)))
    steps = line(step(A), step(B, units=OTHER), scores, step(D))
    assert steps.take(0) == [step(A), step(D)]
    assert steps.take(0) == [step(B, units=OTHER)]
    assert steps.take(0) == [scores]


def test_a_sessions_steps_keep_their_order() -> None:
    """What comes behind its long pass waits for it; others do not."""
    long = step(A, 0, rows=40)
    steps = line(step(B), long, step(A, 40), step(C))
    assert steps.take(0) == [step(B), step(C)]
    assert steps.take(0) == [long]
    steps.add(step(B, 1), 0)
    assert steps.take_between(0, A) == [step(B, 1)]
    assert steps.take_between(0, A) == []
    assert steps.take(0) == [step(A, 40)]


def test_nothing_overtakes_what_is_done_between_two_parts() -> None:
    steps = line(step(A), step(B))
    steps.add(step(C), 1)
    assert steps.take(0) == [step(A), step(B)]
    assert steps.take(0) == [] and steps.take_between(0, A) == []
    assert steps.take(1) == [step(C)]


def test_what_is_given_up_does_not_run() -> None:
    steps = line(step(A, 0), step(A, 1), step(B, 0), step(A, 2))
    steps.give_up(GiveUp(A, 7, 2))
    assert steps.take(0) == [step(B, 0), step(A, 2)]
    steps.add(step(A, 1), 0)
    assert steps.take(0) == []
    steps.forget(A)  # its name may be used again
    steps.add(step(A, 1), 0)
    assert steps.take(0) == [step(A, 1)]


@pytest.mark.parametrize("rows", [2, 3, 31, 32, 33, 34, 64, 65, 66, 128])
@pytest.mark.parametrize("logits", [0, 1, 40])
def test_slices_are_the_whole_pass_without_a_lone_row(rows: int, logits: int) -> None:
    logits = min(logits, rows)
    parts = list(slices(Slot(A, 5, 100, rows, logits)))
    assert [start for _, start, _ in parts] == [0, *(end for _, _, end in parts)][:-1]
    assert parts[-1][2] == rows
    assert all(slot.rows == end - start and slot.position == 100 + start for slot, start, end in parts)
    assert all(2 <= slot.rows <= SLICE for slot, _, _ in parts)
    wanted = [start + slot.rows - number for slot, start, _ in parts for number in range(slot.logits, 0, -1)]
    assert wanted == list(range(rows - logits, rows))


LONG = 30.0  # seconds: a deadline that no test reaches


def test_a_row_waits_for_those_that_are_about_to_come() -> None:
    steps = line(step(A, together=3))
    steps.expect(B, SHARD, monotonic() + LONG)
    steps.expect(C, SHARD, monotonic() + LONG)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(steps.take, 0)
        steps.add(step(C, 4, together=3), 0)
        steps.add(step(B, 9, together=3), 0)
        assert taken.result(LONG) == [step(A, together=3), step(C, 4, together=3), step(B, 9, together=3)]


@pytest.mark.parametrize("why", ["late", "another shard", "enough here", "given up", "forgotten", "long"])
def test_a_row_does_not_wait_for_what_cannot_join_it(why: str) -> None:
    first = step(A, together=1 if why == "enough here" else 2, rows=40 if why == "long" else 1)
    steps = line(first)
    until = monotonic() + (-1.0 if why == "late" else LONG)
    steps.expect(B, OTHER if why == "another shard" else SHARD, until)
    if why == "given up":
        steps.give_up(GiveUp(B, 7, 2))
    if why == "forgotten":
        steps.forget(B)
    assert steps.take(0) == [first]


def test_whoever_does_not_come_in_time_is_not_waited_for_any_longer() -> None:
    steps = line(step(A, together=2))
    steps.expect(B, SHARD, monotonic() + 0.01)
    assert steps.take(0) == [step(A, together=2)]


def test_what_is_put_back_stands_first_again() -> None:
    steps = line(step(A), step(B), step(C, rows=3))
    taken = steps.take(0)
    steps.give_up(GiveUp(B, 7, 1))
    steps.put_back(taken, 0)
    assert steps.take(0) == [step(A)]
    assert steps.take(0) == [step(C, rows=3)]


def test_the_line_is_idle_when_nobody_waits_or_is_about_to_come() -> None:
    steps = line()
    steps.expect(A, SHARD, monotonic() + LONG)
    steps.expect(B, SHARD, monotonic() - 1.0)
    assert steps.idle({A}) and not steps.idle({C})
    steps.add(step(A), 0)
    assert not steps.idle({A})
