"""What rounds take at a driver: by how many rows they had, and beyond computing."""

import pytest

from swisd.core import deadlines
from swisd.core.rounds import MEASURED, Rounds
from swisd.core.sizes import ENOUGH, SAMPLES, SIZES, STALE, Sizes
from swisd.core.types import Beyond


def test_rounds_are_estimated_until_they_are_measured():
    rounds = Sizes()
    assert rounds.times() == {1: 1.0}
    for _ in range(ENOUGH):
        assert rounds.times() == {1: 1.0}
        rounds.note(1, 0.1)
    times = rounds.times()
    assert list(times) == list(SIZES)
    assert times[1] < times[2] < times[4] < times[8] < 0.8
    for _ in range(ENOUGH):
        rounds.note(4, 0.7)
    assert rounds.times()[4] == pytest.approx(0.7)
    assert rounds.times()[8] > 1.2  # with what was measured of four
    rounds.clear()
    assert rounds.times() == {1: 1.0}


def test_a_hiccup_keeps_no_size_from_being_tried_again():
    rounds = Sizes()
    for _ in range(ENOUGH):
        rounds.note(1, 0.1)
    before = rounds.times()
    rounds.note(2, 9.0)
    assert rounds.times() == before
    for _ in range(ENOUGH):
        rounds.note(2, 0.9)
    assert rounds.times()[2] == pytest.approx(0.9)
    for _ in range(STALE + 1):
        rounds.note(1, 0.1)
    assert rounds.times() == pytest.approx(before)


def test_a_slow_spell_makes_guesses_seem_no_cheaper():
    rounds = Sizes()
    for seconds in (0.1, 0.2):
        for _ in range(SAMPLES):
            rounds.note(1, seconds)
        if seconds == 0.1:
            for _ in range(ENOUGH):
                rounds.note(2, 0.15)
        assert rounds.times()[1] == pytest.approx(seconds)
        assert rounds.times()[2] == pytest.approx(1.5 * seconds)


def test_more_rows_never_take_less():
    rounds = Sizes()
    for rows, seconds in ((1, 0.1), (2, 0.09), (4, 0.12), (8, 0.11)):
        for _ in range(ENOUGH):
            rounds.note(rows, seconds)
    assert list(rounds.times().values()) == pytest.approx([0.1, 0.1, 0.12, 0.12])


def test_devices_are_busy_for_what_rounds_compute_of_all_their_time():
    rounds = Rounds()
    assert rounds.busy(2, 3) == 1.0  # nothing is known
    for _ in range(ENOUGH):
        rounds.note_computed(30.0)
        rounds.sizes(2).note(1, 0.1)
        rounds.sizes(9).note(1, 0.02)
    assert rounds.busy(2, 3) == pytest.approx(0.2)
    assert rounds.busy(9, 3) == 1.0
    rounds.clear()
    assert rounds.busy(2, 3) == 1.0


def test_what_steps_take_beyond_computing_is_told_as_median_and_99th_percentile():
    rounds = Rounds()
    assert rounds.beyond == Beyond()
    for ms in range(1, 201):
        rounds.note_beyond(float(ms))
    assert rounds.beyond == Beyond(100.5, 198.0)
    rounds.note_beyond(-3.0)  # clocks of two threads differ
    assert rounds.beyond.p50_ms == 100.0
    rounds.clear()
    assert rounds.beyond == Beyond()


def test_a_long_stall_makes_nobody_wait_without_end():
    rounds = Rounds()
    for _ in range(MEASURED - 1):
        rounds.note(1, 0.1)
    rounds.note(1, 2.0)
    assert rounds.patience(None, 1, single=True) == pytest.approx(4 * 2.0)
    rounds.note(1, 40.0)
    assert rounds.patience(None, 1, single=True) == pytest.approx(40.0 + deadlines.STEP)
    rounds.note(128, 50.0)
    assert rounds.patience(None, 128, single=False) == pytest.approx(50.0 + deadlines.STEP)
