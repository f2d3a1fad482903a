"""A session at its driver: passes, what the head is asked, and how it ends."""

import pytest
from builders import a_start
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.passes import CHUNK, chunk_sizes
from swisd.core.rows import Sample, Score
from swisd.core.session import Session
from swisd.core.types import SamplingParams

quick = settings(deadline=None, derandomize=True)
EPOCH = 3


def begin(prompt: int | tuple[int, ...] = 3, limit: int = 4, **ask: object) -> Session:
    ids = tuple(range(100, 100 + prompt)) if isinstance(prompt, int) else prompt
    return Session.begin(a_start(prompt=ids, **ask), EPOCH, limit, now=1.0)


def rows_of(session: Session) -> list[tuple[int, tuple[int, ...], int]]:
    """Takes all that can run: (position, ids, rows whose answer is wanted)."""
    taken = []
    while (item := session.take()) is not None:
        slot, rows = item
        assert (slot.position, slot.rows, slot.logits) == (rows.position, len(rows.ids), rows.logits)
        taken.append((rows.position, rows.ids, rows.logits))
    return taken


@quick
@given(st.integers(1, 5000), st.integers(3, 300))
def test_chunks_cover_a_prompt_without_a_pass_of_one_row(tokens: int, chunk: int):
    sizes = chunk_sizes(tokens, chunk)
    assert sum(sizes) == tokens
    assert all(2 <= size <= chunk for size in sizes) or sizes == [1]
    assert len(sizes) == -(-tokens // chunk)


@pytest.mark.parametrize(
    ("tokens", "sizes"),
    [
        (1, [1]),
        (2, [2]),
        (CHUNK, [CHUNK]),
        (CHUNK + 1, [CHUNK - 1, 2]),
        (CHUNK + 2, [CHUNK, 2]),
        (2 * CHUNK + 1, [CHUNK, CHUNK - 1, 2]),
    ],
)
def test_chunk_sizes_are_pinned(tokens: int, sizes: list[int]):
    """Another cut would change the last bits of every answer."""
    assert chunk_sizes(tokens) == sizes


@quick
@given(st.integers(1, 400), st.lists(st.integers(0, 50), max_size=5), st.booleans())
def test_passes_are_the_history_in_order(length: int, emitted: list[int], scoring: bool):
    score = {"score_top": 2} if scoring else {"emitted": tuple(emitted)}
    session = begin(length, 0 if scoring else 50, **score)
    passes = rows_of(session)
    history = session.ask.prompt + session.ask.emitted
    assert tuple(token for _, ids, _ in passes for token in ids) == history
    positions = [position for position, _, _ in passes]
    assert positions == [sum(len(ids) for _, ids, _ in passes[:at]) for at in range(len(passes))]
    wanted = [logits for _, _, logits in passes]
    if scoring:
        assert wanted == [len(ids) for _, ids, _ in passes]
    else:
        assert wanted == [0] * (len(passes) - 1) + [1]


def test_emitted_tokens_go_one_by_one_as_they_first_did():
    first = begin(3, 4)
    assert rows_of(first) == [(0, (100, 101, 102), 1)]
    for token in (7, 8):
        first.on_token(token, 2.0)
        assert rows_of(first) == [(first.next_step + 1, (token,), 1)]
    again = begin(3, 4, emitted=(7, 8))
    assert rows_of(again) == [(0, (100, 101, 102), 0), (3, (7,), 0), (4, (8,), 1)]
    last = again.head_request(2)
    assert isinstance(last, Sample) and last == first.head_request(2)


@pytest.mark.parametrize(
    ("start", "end", "positions"),
    [
        (0, 300, [0, 128, 256]),
        (64, 128, [0]),
        (64, 129, [0, 128]),
        (128, 256, [128]),
        (255, 257, [128, 256]),
        (300, 301, [300]),
    ],
)
def test_a_pass_that_caches_hold_in_part_is_run_whole(start: int, end: int, positions: list[int]):
    session = begin(300, emitted=(7, 8))
    passes = session.passes(start, end)
    assert [item.position for item in passes] == positions
    assert all(item.ids for item in passes)


def test_the_sample_depends_on_seed_position_and_history_alone():
    params = SamplingParams(temperature=0.7, repetition_penalty=1.1, repetition_window=2)
    session = begin(3, 4, seed=9, sampling=params)
    rows_of(session)
    assert session.head_request(0) == Sample(params, 9, 3, (101, 102))
    session.on_token(5, 2.0)
    session.acknowledge(0)
    rows_of(session)
    assert session.head_request(1) == Sample(params, 9, 4, (102, 5))
    none = begin(3, 4, sampling=SamplingParams(repetition_window=0))
    rows_of(none)
    request = none.head_request(0)
    assert isinstance(request, Sample) and request.history == ()


def test_scoring_asks_for_the_token_that_came_next():
    session = begin(CHUNK + 2, 0, score_top=3)
    rows_of(session)
    first, second = session.head_request(0), session.head_request(1)
    assert isinstance(first, Score) and isinstance(second, Score)
    assert (first.top, first.next_ids) == (3, session.ask.prompt[1 : CHUNK + 1])
    assert second.next_ids == (session.ask.prompt[-1], None)


def test_rows_that_nobody_awaits_want_nothing():
    session = begin()
    assert session.head_request(0) is None
    rows_of(session)
    assert session.acknowledge(0) and not session.acknowledge(0)
    assert session.head_request(0) is None


def test_a_stop_token_ends_without_being_said():
    session = begin(3, 4, stop_ids=(2,))
    rows_of(session)
    assert session.on_token(5, 2.0).tokens == (5,)
    last = session.on_token(2, 3.0)
    assert (last.tokens, last.finish, last.index) == ((), "stop", 1)
    assert session.take() is None and session.emitted == [5]


def test_the_limit_ends_with_the_last_token():
    session = begin(3, 2)
    assert session.on_token(5, 2.0).finish is None
    last = session.on_token(6, 3.0)
    assert (last.tokens, last.finish) == ((6,), "length")
    assert session.take() is None


def test_the_limit_counts_tokens_answered_elsewhere():
    session = begin(3, 3, emitted=(5, 6))
    assert session.on_token(7, 2.0).finish == "length"


def test_what_was_said_is_kept_in_order_with_the_time_of_the_prompt():
    session = begin(3, 3)
    for at, token in enumerate((5, 6, 7)):
        session.on_token(token, 1.5 + at)
    assert [(out.index, out.tokens, out.epoch) for out in session.outs] == [
        (0, (5,), EPOCH), (1, (6,), EPOCH), (2, (7,), EPOCH),
    ]  # fmt: skip
    assert {out.prompt_ms for out in session.outs} == {500.0}
    assert session.tokens_per_s == 1.0


def test_it_reserves_room_for_all_it_may_say():
    assert begin(10, 5).reserved == 15
    assert begin(10, 0, score_top=1).reserved == 10


def test_an_error_is_cut_to_what_a_message_holds():
    out = begin().say(now=2.0, finish="error", error="x" * 1000, retry=True)
    assert len(out.error) == 500 and out.retry
