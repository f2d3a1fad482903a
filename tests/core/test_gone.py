"""Sessions that are gone: counted on for as long as devices remember them, and no longer."""

from swisd.core import deadlines
from swisd.core.gone import MOST, Gone


def test_a_session_goes_on_counting_until_devices_forget_it():
    gone = Gone()
    gone.leave("a", 7, 10.0)
    gone.sweep(10.0 + deadlines.IDLE_SESSION)
    assert gone.next_step("a") == 7
    gone.sweep(10.1 + deadlines.IDLE_SESSION)
    assert gone.next_step("a") == 0


def test_a_session_that_left_again_counts_from_its_last_life():
    gone = Gone()
    gone.leave("a", 7, 10.0)
    gone.leave("a", 9, 100.0)
    gone.sweep(20.0 + deadlines.IDLE_SESSION)
    assert gone.next_step("a") == 9


def test_the_oldest_is_forgotten_where_there_are_too_many():
    gone = Gone()
    for number in range(MOST + 1):
        gone.leave(str(number), number + 1, 0.0)
    assert gone.next_step("0") == 0
    assert gone.next_step("1") == 2
    assert gone.next_step(str(MOST)) == MOST + 1
