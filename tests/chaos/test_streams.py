"""A stream beside the undisturbed one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.chaos.streams import Difference, first_difference, longest_pause, median_time

ANSWER = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]


def test_the_same_tokens_are_no_difference():
    assert first_difference(ANSWER, list(ANSWER)) is None
    assert first_difference([], []) is None


@pytest.mark.parametrize(
    ("got", "difference"),
    [
        ([*ANSWER[:4], *ANSWER[6:]], Difference(4, "gap", 2)),
        ([*ANSWER[:4], *ANSWER[2:]], Difference(4, "repeat", 2)),
        (ANSWER[:7], Difference(7, "short", 3)),
        ([*ANSWER, 19], Difference(10, "long", 1)),
        ([*ANSWER[:4], 99, *ANSWER[5:]], Difference(4, "other")),
        ([], Difference(0, "short", 10)),
    ],
)
def test_what_went_wrong_is_named(got: list[int], difference: Difference):
    assert first_difference(ANSWER, got) == difference
    assert str(difference).startswith(f"token {difference.at}: ")


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_no_difference_is_overlooked(expected: list[int], got: list[int]):
    difference = first_difference(expected, got)
    assert (difference is None) == (expected == got)
    if difference is not None:
        assert expected[: difference.at] == got[: difference.at]


def test_the_longest_pause_counts_from_the_blow_on():
    times = [0.0, 5.0, 5.1, 7.1, 7.2]
    assert longest_pause(times, 5.05) == (2.0, 7.1)
    assert longest_pause(times, 7.15)[0] == pytest.approx(0.1)
    assert longest_pause(times, 9.0) == (0.0, 0.0)
    assert longest_pause([], 0.0) == (0.0, 0.0)


def test_the_blow_may_fall_into_the_pause():
    assert longest_pause([0.0, 1.0, 4.0], 1.5) == (3.0, 4.0)


def test_the_median_time_of_a_token():
    assert median_time([0.0, 1.0, 2.0, 9.0]) == 1.0
    assert median_time([3.0]) == 0.0
