"""Log-probabilities against their definition, and the figures made from them."""

from math import exp, inf, log, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swisd.core.errors import SessionFailed
from swisd.core.types import Scores
from swisd.runtime.scoring import logprobs_at, mean_kl, perplexity, score

repeatable = settings(deadline=None, derandomize=True)

tables = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 30)),
    elements=st.floats(-50, 50, width=32).map(lambda x: np.float32(round(x, 1))),
)


def plain_logprobs(row: np.ndarray) -> list[float]:
    total = sum(exp(float(x)) for x in row)
    return [float(x) - log(total) for x in row]


@repeatable
@given(tables, st.integers(0, 35), st.data())
def test_scores_match_their_definition(logits, top, data):
    rows, vocab = logits.shape
    next_ids = data.draw(st.lists(st.none() | st.integers(0, vocab - 1), min_size=rows, max_size=rows))
    scores = score(logits, next_ids, top)
    for number, row in enumerate(logits):
        plain = plain_logprobs(row)
        order = sorted(range(vocab), key=lambda i: (-row[i], i))[:top]
        assert scores.top_ids[number] == tuple(order)
        assert scores.top_logprobs[number] == pytest.approx([plain[i] for i in order], abs=1e-9)
        expected = None if next_ids[number] is None else plain[next_ids[number]]
        assert scores.next_logprobs[number] == pytest.approx(expected, abs=1e-9)


@repeatable
@given(tables)
def test_a_row_scores_the_same_alone(logits):
    ids = [0] * len(logits)
    whole = score(logits, ids, 5)
    for number in range(len(logits)):
        alone = score(logits[number : number + 1], [0], 5)
        assert alone.top_logprobs[0] == whole.top_logprobs[number]
        assert alone.next_logprobs[0] == whole.next_logprobs[number]


def test_probabilities_far_below_one_keep_their_digits():
    scores = score(np.array([[0.0, -800.0, 1000.0]], np.float32), [1], 3)
    assert scores == Scores(((2, 0, 1),), ((0.0, -1000.0, -1800.0),), (-1800.0,))


def test_excluded_tokens_have_no_probability():
    assert score(np.array([[0.0, -inf]], np.float32), [1], 2).next_logprobs == (-inf,)


@pytest.mark.parametrize("row", [[0.0, nan], [inf, 0.0], [-inf, -inf]])
def test_a_broken_row_is_an_error(row):
    with pytest.raises(SessionFailed, match="row 1"):
        score(np.array([[0.0, 0.0], row], np.float32), [None, None], 1)


def test_misuse_is_an_error():
    logits = np.zeros((2, 3), np.float32)
    for call in (
        lambda: score(logits, [1], 1),
        lambda: score(logits[0], [1], 1),
        lambda: score(logits, [1, 3], 1),
        lambda: score(logits, [1, -1], 1),
        lambda: logprobs_at(logits, [[1]]),
        lambda: perplexity([None]),
        lambda: mean_kl([], []),
        lambda: mean_kl([[0.0]], []),
    ):
        with pytest.raises(ValueError):
            call()


def test_perplexity_of_a_uniform_guess_is_the_number_of_choices():
    assert perplexity([log(1 / 50), None, log(1 / 50)]) == pytest.approx(50)
    assert perplexity([0.0]) == 1.0


@repeatable
@given(tables, tables)
def test_divergence_is_a_lower_bound_of_the_full_one(first, second):
    rows, vocab = min(len(first), len(second)), min(first.shape[1], second.shape[1])
    p, q = first[:rows, :vocab], second[:rows, :vocab]
    ids = score(p, [None] * rows, 5).top_ids
    value = mean_kl(logprobs_at(p, ids), logprobs_at(q, ids))
    pairs = [(plain_logprobs(a), plain_logprobs(b)) for a, b in zip(p, q, strict=True)]
    full = sum(sum(exp(x) * (x - y) for x, y in zip(a, b, strict=True)) for a, b in pairs) / rows
    assert 0 <= value <= full + 1e-8
    if vocab <= 5:
        assert value == pytest.approx(full, abs=1e-8)


def test_equal_distributions_do_not_diverge():
    logits = np.array([[1.0, 2.0, 3.0]], np.float32)
    assert mean_kl(logprobs_at(logits, [[2, 1]]), logprobs_at(logits, [[2, 1]])) == 0
