"""Guesses from what was said before: what they are, and how far they are trusted."""

from hypothesis import given
from hypothesis import strategies as st

from swisd.core.lookup import EQUAL, HOPES, Lookup


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


def test_the_more_is_equal_the_surer_a_guess_is():
    ids = list(range(20, 50))
    for equal in (1, 2, 4, 8, 16, 30):
        lookup = Lookup([*ids, 7, *ids[30 - equal :]])  # after these `equal` tokens came 7
        assert lookup.odds(1) == [HOPES[sum(equal >= least for least in EQUAL)]]
    assert Lookup([1, 2, 3, 1]).odds(3) == [HOPES[0], HOPES[1], HOPES[2]]  # if they are right it grows on
    assert Lookup([1, 2, 3]).odds(3) == []


def test_trust_grows_with_guesses_that_were_right_and_falls_with_others():
    lookup = Lookup([1, 2, 3, 4] * 2)
    for token in (1, 2, 3, 4) * 8:
        lookup.add(token)
    (high,) = lookup.odds(1)
    assert HOPES[-1] < high < 1.0
    lookup.add(99)
    for token in (1, 2, 3, 4) * 5:
        lookup.add(token)
    assert lookup.odds(1)[0] < high


def test_what_was_wrong_after_few_equal_tokens_says_nothing_of_many():
    lookup = Lookup(range(20))
    for token in (5, 99, 5, 98, 5, 97):  # behind 5 comes something else each time
        lookup.add(token)
    lookup.add(5)
    assert lookup.odds(1)[0] < HOPES[0]
    for token in range(6, 16):
        lookup.add(token)
    assert lookup.odds(1)[0] >= HOPES[3]


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(0, 8))
def test_a_guess_is_what_stood_behind_the_last_tokens_somewhere(ids: list[int], most: int):
    guess = after(ids[:5], *ids[5:]).guess(most)
    assert len(guess) in (0, most)
    if guess:
        whole = [*ids, *guess]
        starts = [at for at in range(1, len(ids)) if tuple(whole[at : at + most]) == guess]
        assert any(ids[at - 1] == ids[-1] for at in starts)
