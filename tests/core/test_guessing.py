"""Rows of tokens that may come next: fed with the last one, kept or given up, unknown to the asker."""

from builders import a_start
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.lookup import REACH
from swisd.core.passes import Pass
from swisd.core.rows import Sample
from swisd.core.session import Session
from swisd.core.types import SamplingParams, Slot

AGAIN = (1, 2, 3, 4, 5, 6, 1, 2)  # 3, 4, 5, 6, .. may come next


def begun(*tokens: int, limit: int = 20, **ask: object) -> Session:
    """A session whose prompt was read and which said these tokens; the row of the last one is under way."""
    session = Session.begin(a_start(prompt=AGAIN, **ask), 3, limit, now=1.0)
    for token in tokens:
        ((slot, _),) = run(session)
        answer(session, slot.step, token)
    run(session)
    return session


def run(session: Session) -> list[tuple[Slot, Pass]]:
    taken = []
    while (item := session.take()) is not None:
        taken.append(item)
    return taken


def answer(session: Session, step: int, token: int) -> None:
    """The head answers a step: as the driver takes it."""
    session.on_token(token, 2.0)
    session.acknowledge(step)


def rows(session: Session) -> list[tuple[int, tuple[int, ...]]]:
    return [(item.position, item.ids) for item in session.running.values()]


def test_guesses_go_behind_the_row_of_the_last_token_one_by_one():
    session = begun(3)
    guessed = session.guess(4)
    assert [(slot.position, slot.rows, slot.logits, item.ids) for slot, item in guessed] == [
        (9, 1, 1, (4,)), (10, 1, 1, (5,)), (11, 1, 1, (6,)),
    ]  # fmt: skip
    assert [slot.step for slot, _ in guessed] == [2, 3, 4]
    assert session.together == (1, 4)
    assert session.guess(4) == []  # not twice


def test_a_guess_that_was_right_needs_no_other_row():
    session = begun(3)
    session.guess(4)
    answer(session, 1, 4)
    assert session.take() is None and rows(session) == [(9, (4,)), (10, (5,)), (11, (6,))]
    answer(session, 2, 5)
    answer(session, 3, 6)
    answer(session, 4, 1)
    ((slot, item),) = run(session)
    assert (slot.position, item.ids, session.emitted) == (12, (1,), [3, 4, 5, 6, 1])


def test_behind_a_wrong_guess_nothing_is_awaited():
    session = begun(3)
    session.guess(4)
    answer(session, 1, 4)
    answer(session, 2, 77)
    assert rows(session) == []
    ((slot, item),) = run(session)
    assert (slot.step, slot.position, item.ids) == (5, 10, (77,))
    assert session.oldest == 5


def test_each_guess_is_sampled_as_its_token_would_be():
    params = SamplingParams(temperature=0.9, repetition_window=5)
    session = begun(3, sampling=params, seed=4)
    steps = [1, *(slot.step for slot, _ in session.guess(4))]
    asked = [session.head_request(step) for step in steps]
    alone = begun(3, sampling=params, seed=4)
    for step, token, request in zip(steps, (4, 5, 6, 1), asked, strict=True):
        ((number, _),) = alone.running.items()
        assert isinstance(request, Sample) and alone.head_request(number) == request, step
        answer(alone, number, token)
        run(alone)


def test_of_a_long_prompt_the_end_is_looked_at():
    head, tail = (901, 902, 903, 904), (1, 2, 3, 4)
    far = (*head, *range(1000, 1000 + REACH), *head[:3])
    near = (*tail, *range(1000, 1100), *tail[:3])
    for prompt, last, guessed in ((far, 904, []), (near, 4, [1000])):
        session = Session.begin(a_start(prompt=prompt), 3, 20, now=1.0)
        for slot, _ in run(session):
            if slot.logits:
                answer(session, slot.step, last)
        run(session)
        assert [item.ids[0] for _, item in session.guess(2)] == guessed


def test_an_answer_before_its_turn_is_known_by_its_place():
    session = begun(3)
    session.guess(3)
    first, second, _ = session.running.values()
    assert session.awaits(first) and not session.awaits(second)


def test_nothing_is_guessed_beyond_the_limit_nor_where_a_prompt_is_read_or_scored():
    assert len(begun(3, limit=3).guess(8)) == 1  # the second token; the third ends it
    assert begun(3, limit=2).guess(8) == []
    prompt = Session.begin(a_start(prompt=AGAIN), 3, 20, now=1.0)
    run(prompt)
    assert prompt.guess(8) == []
    scoring = Session.begin(a_start(prompt=AGAIN, score_top=2), 3, 0, now=1.0)
    run(scoring)
    assert scoring.guess(8) == []
    assert begun(3).guess(1) == []


def test_a_session_that_is_brought_back_begins_without_guesses():
    session = begun(3)
    session.guess(4)
    session.halt()
    assert session.line_up(session.first_wanted) == 8
    ((slot, item),) = run(session)
    assert (slot.position, item.ids, slot.logits) == (8, (3,), 1)
    assert session.guess(2)


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=40),
    st.lists(st.integers(1, 8), min_size=40, max_size=40),
)
def test_what_is_said_and_run_does_not_depend_on_guesses(truth: list[int], sizes: list[int]):
    """Whatever is guessed, the rows that count are those of a session that never guesses."""
    session = begun(truth[0], limit=len(truth))
    kept: dict[int, int] = {}  # position -> token of its last row
    for size in sizes:
        session.guess(size)
        for step, item in list(session.running.items()):
            if step not in session.running:
                break
            kept[item.position] = item.ids[0]
            if session.finish is None:
                answer(session, step, truth[len(session.emitted)])
        run(session)
        if session.finish:
            break
    said = len(session.emitted)
    assert session.emitted == truth[:said] and said > min(len(truth), 2) - 1
    assert [kept[len(AGAIN) + at] for at in range(said - 1)] == truth[: said - 1]
