"""What `sample` promises: the filters' definitions, a reproducible draw, and no token from a broken row."""

from math import exp, inf, isclose, nan

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swisd.core.errors import SessionFailed
from swisd.core.types import SamplingParams
from swisd.runtime.sampling import largest_ids, sample, uniform

repeatable = hypothesis_settings(deadline=None, derandomize=True)

rows = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(-20, 20, width=32).map(lambda x: np.float32(round(x, 1))),
)
settings = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.1, 0.7, 1.0, 5.0]),
    top_k=st.integers(0, 70),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.1, 2.0, 0.5]),
    repetition_window=st.integers(0, 10),
)


def draws(logits: np.ndarray, params: SamplingParams, n: int, seed: int = 7) -> list[int]:
    return [sample(logits, params, seed=seed, position=i, history=()) for i in range(n)]


def plain_kept(logits: np.ndarray, params: SamplingParams, history: list[int]) -> tuple[set[int], bool]:
    """The filters' definitions, word by word, over Python lists; and whether no limit is met so closely
    that rounding decides, which proves nothing."""
    values = [float(x) for x in logits]
    if params.repetition_window:
        for i in set(history[-params.repetition_window :]):
            penalty = params.repetition_penalty
            values[i] = values[i] / penalty if values[i] > 0 else values[i] * penalty
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    if params.top_k:
        order = order[: params.top_k]
    weights = [exp(values[i] - values[order[0]]) for i in order]
    total, reached, kept, clear = sum(weights), 0.0, [], True
    for i, weight in zip(order, weights, strict=True):
        kept.append(i)
        reached += weight / total
        clear &= params.top_p == 1 or not isclose(reached, params.top_p, rel_tol=1e-9)
        if params.top_p < 1 and reached >= params.top_p:
            break
    ratios = {i: exp(values[i] - values[order[0]]) for i in kept}
    clear &= params.min_p in (0, 1) or not any(
        isclose(r, params.min_p, rel_tol=1e-9) for r in ratios.values()
    )
    return {i for i, ratio in ratios.items() if ratio >= params.min_p}, clear


@repeatable
@given(rows, settings, st.data())
def test_only_tokens_that_the_filters_leave_are_drawn(logits, params, data):
    history = data.draw(st.lists(st.integers(0, logits.size - 1), max_size=15))
    kept, clear = plain_kept(logits, params, history)
    assume(clear)
    for position in range(20):
        assert sample(logits, params, seed=3, position=position, history=history) in kept


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.6, top_k=3),
        SamplingParams(temperature=2.0, top_p=0.8),
        SamplingParams(temperature=1.3, min_p=0.2),
    ],
)
def test_frequencies_match_the_distribution(params):
    logits = np.array([1.0, 2.5, -1.0, 2.0, 0.5, -inf, 1.9], np.float32)
    kept = sorted(i for i in plain_kept(logits, params, [])[0] if logits[i] > -inf)
    weights = np.exp(logits[kept].astype(np.float64) / params.temperature)
    n = 6000
    expected = n * weights / weights.sum()
    counts = np.bincount(draws(logits, params, n), minlength=logits.size)
    assert counts.sum() == counts[kept].sum() == n
    chi_square = float(((counts[kept] - expected) ** 2 / expected).sum())
    # The 0.999 quantile of chi-square with six degrees of freedom, the most there are here.
    assert chi_square < 22.46


def test_philox_known_answer():
    # Random123's `kat_vectors`: philox4x64-10, zero counter, zero key. numpy counts up before it draws.
    assert int(np.random.Philox(key=0, counter=2**256 - 1).random_raw()) == 0x16554D9ECA36314C


def test_the_draw_is_pinned():
    # Any change here would change every stream that is continued by another version of swisd.
    assert [int(uniform(seed, at) * 1e9) for seed, at in [(0, 0), (0, 1), (1, 0), (2**64, 5)]] == [
        11546754,
        502379604,
        303568034,
        794411121,
    ]


@repeatable
@given(rows, settings, st.integers(0, 2**64), st.integers(0, 1000))
def test_a_stream_can_be_continued_anywhere(logits, params, seed, start):
    whole = [sample(logits, params, seed=seed, position=start + i, history=()) for i in range(6)]
    later = [sample(logits, params, seed=seed, position=start + i, history=()) for i in (5, 4, 3)]
    assert later == whole[:2:-1]


@repeatable
@given(rows, settings)
def test_filters_that_remove_nothing_change_nothing(logits, params):
    free = SamplingParams(temperature=params.temperature)
    wide = SamplingParams(
        temperature=params.temperature, top_k=logits.size + 5, min_p=0.0, repetition_penalty=1.0
    )
    assert draws(logits, wide, 10) == draws(logits, free, 10)


@repeatable
@given(rows, st.integers(-8, 8))
def test_adding_a_constant_changes_nothing(logits, shift):
    exact = np.round(logits * 4) / 4  # sums of quarters are exact in float32
    params = SamplingParams(temperature=0.9, top_k=9, top_p=0.9, min_p=0.01)
    assert draws(exact, params, 10) == draws(exact + np.float32(shift), params, 10)


@repeatable
@given(rows)
def test_greedy_takes_the_lowest_of_the_best(logits):
    best = min(np.flatnonzero(logits == logits.max()))
    for params in (SamplingParams(), SamplingParams(temperature=1.0, top_k=1)):
        assert sample(logits, params, seed=1, position=0, history=()) == best


@repeatable
@given(rows, st.integers(0, 70))
def test_largest_ids(logits, count):
    order = sorted(range(logits.size), key=lambda i: (-logits[i], i))
    assert largest_ids(logits, count).tolist() == sorted(order[:count])


def test_a_penalty_counts_a_token_once_and_only_inside_the_window():
    logits = np.array([3.0, 2.5, -1.0], np.float32)
    params = SamplingParams(repetition_penalty=1.25, repetition_window=3)

    def choose(history: list[int]) -> int:
        return sample(logits, params, seed=0, position=0, history=history)

    assert choose([]) == choose([0, 1, 1, 1]) == choose([2]) == 0
    assert choose([0]) == choose([0, 0, 0]) == choose([0, 2, 2]) == 1
    assert choose([0, 1, 1]) == 0, "both are pushed down alike"
    negative = np.array([-1.0, -1.1], np.float32)
    assert sample(negative, params, seed=0, position=0, history=[0]) == 1
    off = SamplingParams(repetition_penalty=9.0, repetition_window=0)
    assert sample(logits, off, seed=0, position=0, history=[0]) == 0


def test_a_tiny_temperature_is_nearly_greedy():
    logits = np.array([0.0, 1.0, 0.999, -inf], np.float32)
    assert set(draws(logits, SamplingParams(temperature=1e-300), 50)) == {1}


def test_the_row_is_left_as_it_was():
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    logits.flags.writeable = False
    params = SamplingParams(temperature=1.0, repetition_penalty=2.0, top_k=2)
    sample(logits, params, seed=0, position=0, history=[1, 2])


@pytest.mark.parametrize("row", [[1.0, nan, 2.0], [inf, 0.0, 0.0], [-inf, -inf, -inf]])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_broken_row_is_an_error(row, temperature, penalty):
    params = SamplingParams(temperature=temperature, top_k=2, top_p=0.9, repetition_penalty=penalty)
    with pytest.raises(SessionFailed, match="position 12"):
        sample(np.array(row, np.float32), params, seed=0, position=12, history=[2])


def test_history_outside_the_vocabulary_is_an_error():
    params = SamplingParams(repetition_penalty=1.1)
    for bad in (-1, 3):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            sample(np.zeros(3, np.float32), params, seed=0, position=0, history=[bad])


def test_two_rows_are_an_error():
    with pytest.raises(ValueError, match="one row"):
        sample(np.zeros((2, 3), np.float32), SamplingParams(), seed=0, position=0, history=())
