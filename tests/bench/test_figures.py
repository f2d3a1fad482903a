"""Percentiles, medians and ratios."""

import pytest

from swisd.bench.figures import Several, middle, paired_ratio, percentile, prefill_ms, several, single
from tests.bench.reports import a_stream, a_turn


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([7.0], 99) == 7.0 and percentile([], 50) == 0.0


def test_a_turn_is_a_long_prompt_and_a_long_answer() -> None:
    turn = single(a_stream(), a_stream(10.0, 20.0, 30.0, first_ms=40.0))
    assert (turn.prefill_ms, turn.first_ms, turn.p50_ms, turn.p99_ms) == (100.0, 40.0, 20.0, 30.0)
    assert turn.tokens_per_s == pytest.approx(50.0)


def test_one_token_has_no_speed() -> None:
    assert a_stream().tokens_per_s == 0.0
    assert prefill_ms(a_stream()) == 100.0


def test_questions_at_once_are_counted_until_the_last_token_of_all() -> None:
    found = several([a_stream(100.0, 100.0), a_stream(300.0, 300.0, 300.0, began=1.2)])
    assert found == Several(pytest.approx(7 / 1.2), pytest.approx((10 + 1000 / 300) / 2), 100.0, 300.0, 300.0)


def test_the_middle_is_of_each_figure() -> None:
    found = middle([a_turn(10, 900), a_turn(30, 100), a_turn(20, 500)])
    assert (found.tokens_per_s, found.prefill_ms) == (20, 500)


def test_ratios_are_of_the_rounds_that_both_took_part_in() -> None:
    assert paired_ratio([10, 40, 90], [10, 20, 30]) == 2.0
    assert paired_ratio([10, 40], [5]) == 2.0
    assert paired_ratio([10.0], [0.0]) is None and paired_ratio([], [1.0]) is None
