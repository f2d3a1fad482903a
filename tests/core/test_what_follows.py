"""What a driver says of the row behind the one that the head answers: whether it may run."""

import pytest
from builders import a_plan, a_start
from desk import Desk

from swisd.core.effects import Effect, RunStep
from swisd.core.events import Received, StepDone
from swisd.core.rows import Following
from swisd.core.types import SamplingParams
from swisd.node.foreseen import row_behind

A, B = "a" * 16, "b" * 16
PROMPT = (5, 6, 7)
STOP = (2,)


def begin(desk: Desk, session: str = A, tokens: int = 20, prompt: tuple[int, ...] = PROMPT) -> RunStep:
    ask = a_start(session, prompt=prompt, max_tokens=tokens, stop_ids=STOP)
    return step_of(desk.do(Received(ask.asker, ask)))


def step_of(effects: list[Effect]) -> RunStep:
    """The first one of these."""
    return next(effect for effect in effects if isinstance(effect, RunStep))


def test_one_device_goes_on_with_all_its_layers() -> None:
    desk = Desk(a_plan((0, 6, 1)))
    step = begin(desk, tokens=5)
    for token, ahead in ((10, 4), (11, 3), (12, 2)):
        assert step.following == Following((0, 6), STOP, ahead)
        assert step.following.behind() == Following((0, 6), STOP, ahead - 1)
        step = step_of(desk.answer(step, token))
    assert step.following is not None and step.following.behind() is None


def test_a_driver_goes_on_with_its_first_layers() -> None:
    desk = Desk(a_plan((0, 2, 1), (2, 6, 1)))
    first = begin(desk)
    assert first.following is None  # what comes of it is no token
    rows = step_of(desk.do(StepDone(first.work, 3, b"", 1.0)))
    assert (rows.units, rows.following) == ((2, 6), Following((0, 2), STOP, 19))


def test_behind_the_last_token_comes_nothing() -> None:
    desk = Desk(a_plan((0, 6, 1)))
    step = begin(desk, tokens=2)
    assert step.following is not None
    assert step_of(desk.answer(step, 10)).following is None


def test_each_of_several_sessions_goes_on() -> None:
    desk = Desk(a_plan((0, 6, 1)))
    assert begin(desk, A).following == begin(desk, B).following == Following((0, 6), STOP, 19)


def test_where_guesses_run_with_a_row_it_does_not_run_before_them() -> None:
    """A text that repeats itself: as soon as guesses are trusted, they share the pass of the last token."""
    steps = {}
    for speculation in (True, False):
        desk = Desk(a_plan((0, 6, 1)), speculation=speculation)
        step = begin(desk, prompt=(5, 6, 7, 8) * 4, tokens=100)
        for number in range(40):
            step = step_of(desk.answer(step, (5, 6, 7, 8)[number % 4]))
            if step.following is None:
                break
        steps[speculation] = step.following
    assert steps == {True: None, False: Following((0, 6), STOP, 59)}


@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(repetition_penalty=1.2, repetition_window=5)]
)
@pytest.mark.parametrize("prompt", [(5, 6, 7), tuple(range(3, 20))])
def test_what_runs_ahead_is_sampled_as_the_driver_asks(
    params: SamplingParams, prompt: tuple[int, ...]
) -> None:
    driver = Desk(a_plan((0, 6, 1)))
    ask = a_start(A, prompt=prompt, max_tokens=20, stop_ids=(), sampling=params)
    asked = step_of(driver.do(Received(ask.asker, ask)))
    for token in (10, 11, 12, 10, 13):
        row = row_behind(asked, StepDone(asked.work, 1, None, 1.0, token=token))
        asked = step_of(driver.answer(asked, token))
        assert row is not None and (row.sample, row.token) == (asked.sample, *asked.activation.payload)
        assert row.slot == asked.activation.slots[0]
