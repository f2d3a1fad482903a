"""Guesses from what was said before: what they are, how far they are trusted, how many pay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.drafts import Lookup, worth


def after(ids: list[int], *more: int) -> Lookup:
    lookup = Lookup(ids)
    for token in more:
        lookup.add(token)
    return lookup


def test_after_the_same_tokens_comes_what_came_after_them():
    assert after([1, 2, 3, 4, 5, 9, 1, 2]).guess(3) == (3, 4, 5)
    assert after([1, 2, 3, 4, 5, 9, 1], 2).guess(9) == (3, 4, 5, 9, 1, 2, 3, 4, 5)
    assert after([1, 2, 3]).guess(3) == ()
    assert after([]).guess(3) == ()


def test_more_equal_tokens_count_more_than_a_later_place():
    #      these four             these two
    ids = [1, 2, 3, 4, 50, 8, 8, 3, 4, 60, 7, 1, 2, 3, 4]
    assert after(ids).guess(1) == (50,)
    assert after(ids[7:]).guess(1) == (60,)


def test_what_is_copied_goes_on_where_its_last_tokens_are_found_elsewhere_too():
    ids = [1, 2, 3, 4, 5, 6, 1, 2]
    assert after(ids, 3).guess(2) == (4, 5)
    assert after(ids, 3, 7).guess(2) == ()  # nothing like it was there before
    assert after(ids, 3, 7, 4, 5).guess(2) == (6, 1)


def test_trust_grows_with_guesses_that_were_right_and_falls_with_others():
    lookup = after([1, 2, 3, 4] * 2)
    assert lookup.trust == 0.0
    for token in (1, 2, 3, 4) * 3:
        lookup.add(token)
    high = lookup.trust
    assert 0.8 < high < 1.0
    lookup.add(99)
    assert lookup.trust < high
    lookup.add(98)  # nothing was guessed, so nothing was wrong
    assert lookup.trust == pytest.approx(high * 0.85)


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(0, 8))
def test_a_guess_is_what_stood_behind_the_last_tokens_somewhere(ids: list[int], most: int):
    guess = after(ids[:5], *ids[5:]).guess(most)
    assert len(guess) in (0, most)
    if guess:
        whole = [*ids, *guess]
        starts = [at for at in range(1, len(ids)) if tuple(whole[at : at + most]) == guess]
        assert any(ids[at - 1] == ids[-1] for at in starts)


def test_a_single_row_runs_where_guesses_are_not_trusted_or_cost_as_much_as_they_bring():
    times = {1: 1.0, 2: 1.25, 4: 1.8, 8: 2.6}
    assert worth(0.0, times) == 1
    assert worth(0.2, times) == 1
    assert worth(0.5, times) == 2
    assert worth(0.95, times) == 8
    assert worth(0.95, {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}) == 1  # a device that runs them one after the other
    assert worth(0.5, {1: 30.0, 2: 31.0, 4: 33.0, 8: 37.0}) > 2  # the way round takes most of the time
    assert worth(1.0, {1: 1.0}) == 1
