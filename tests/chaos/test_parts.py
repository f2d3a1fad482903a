"""The parts of a pause, read from what devices say."""

import pytest

from swisd.chaos.device import Line
from swisd.chaos.parts import PauseParts, pause_parts


def said(*words: tuple[float, str, str]) -> list[Line]:
    return [Line(*each) for each in words]


def test_all_parts_of_a_pause():
    lines = said(
        (10.4, "ann", "09:00:01 session ab12..: stage 2 of bob does not answer"),
        (10.9, "ann", "09:00:01 plan 7 (bob is gone): 3 device(s), 12.7 ms/token predicted"),
        (11.2, "cyd", "09:00:01 ready: runs layers 4-9 of smollm2"),
        (11.3, "ann", "09:00:02 plan 7 is in force: 12.7 ms/token predicted"),
        (11.4, "cyd", "09:00:02 plan 7 is in force: 12.7 ms/token predicted"),
        (11.8, "ann", "09:00:02 session ab12..: replayed 200 positions in 0.41 s"),
    )
    assert pause_parts(lines, 10.0, 12.0, 6) == PauseParts(0.4, 0.9, 1.3, 0.41, 200, 2.0)


@pytest.mark.parametrize(
    "words",
    [
        "warning: bob does not answer", "bob is lost: its connection broke", "bob: suspect -> dead",
        "bob left", "not connected to the bus: timed out",
        "warning: the host is silent: looking for the next one",
    ],
)  # fmt: skip
def test_many_words_for_a_loss(words: str):
    lines = said((10.1, "ann", "rows to bob go over the bus"), (10.25, "ann", f"09:00:01 {words}"))
    assert pause_parts(lines, 10.0, 12.0, 6).noticed_s == 0.25


def test_only_what_was_found_is_told():
    assert pause_parts([], 10.0, 12.5, 6) == PauseParts(token_s=2.5)
    assert pause_parts([], 10.0, 0.0, 6) == PauseParts()


def test_a_plan_without_the_device_is_a_notice_too():
    lines = said((11.0, "ann", "plan 7 (2 devices left): 3 device(s), 1.0 ms/token predicted"))
    assert pause_parts(lines, 10.0, 12.0, 6) == PauseParts(1.0, 1.0, None, None, None, 2.0)


def test_other_times_plans_and_devices_do_not_count():
    lines = said(
        (9.0, "ann", "bob: suspect -> dead"),
        (10.5, "bob", "not connected to the bus: timed out"),
        (10.6, "ann", "plan 6 is in force: 12.7 ms/token predicted"),
        (12.5, "ann", "plan 8 is in force: 12.7 ms/token predicted"),
    )
    assert pause_parts(lines, 10.0, 12.0, 6, ["bob"]) == PauseParts(token_s=2.0)


def test_the_last_plan_before_the_token_counts():
    lines = said(
        (10.0, "cyd", "10:00:00 the host is lost: this device takes its place"),
        (10.5, "cyd", "plan 7 (first plan): 2 device(s), 9 ms/token predicted"),
        (10.7, "cyd", "plan 7 is active"),
        (11.0, "cyd", "plan 8 (dan is gone): 2 device(s), 9 ms/token predicted"),
        (11.5, "cyd", "plan 8 is active"),
    )
    found = pause_parts(lines, 10.0, 12.0, 6)
    assert (found.noticed_s, found.planned_s, found.loaded_s) == (0.0, 1.0, 1.5)
