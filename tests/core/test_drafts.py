"""How many guesses pay."""

from swisd.core.drafts import worth


def test_a_single_row_runs_where_guesses_are_not_trusted_or_cost_as_much_as_they_bring():
    times = {1: 1.0, 2: 1.25, 4: 1.8, 8: 2.6}

    def of(trust: float, times: dict[int, float] = times) -> int:
        return worth([trust] * 7, times)

    assert of(0.0) == of(0.2) == 1
    assert of(0.5) == 2
    assert of(0.95) == 8
    assert of(0.95, {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}) == 1  # a device that runs them one after the other
    assert of(0.5, {1: 30.0, 2: 31.0, 4: 33.0, 8: 37.0}) > 2  # the way round takes most of the time
    assert of(1.0, {1: 1.0}) == 1


def test_as_many_rows_run_as_there_are_good_guesses():
    times = {1: 1.0, 2: 1.1, 4: 1.3, 8: 1.7}
    assert worth([], times) == worth([0.05] * 7, times) == 1
    assert worth([0.9], times) == worth([0.9, 0.9], times) == 2
    assert worth([0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9], times) == 2
    assert worth([0.3, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], times) == 8  # the first is a hope, all else follows


def test_what_others_lose_by_waiting_counts_as_often_as_devices_are_busy():
    times = {1: 1.0, 2: 1.2}
    assert worth([0.5], times) == 2
    assert worth([0.5], times, others=2, busy=0.0) == 2
    assert worth([0.5], times, others=2, busy=1.0) == 1
    assert worth([0.9], times, others=2, busy=1.0) == 2
    assert worth([0.3], times) == 2  # a little more
    assert worth([0.3], times, others=2, busy=0.0) == 1  # not clearly
