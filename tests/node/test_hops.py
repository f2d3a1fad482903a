"""The parts of a hop, noted where each ends."""

from collections.abc import Iterator

import pytest

from swisd.core.types import HopParts
from swisd.node import hops
from swisd.node.hops import LATELY, HopTimes


class Clock:
    """Time as the test says it, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def after(self, ms: float) -> None:
        self.now += ms / 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(hops, "clock", made)
    yield made


def way_out(times: HopTimes, clock: Clock, wait: float, machine: float, make: float) -> None:
    ended = clock()
    clock.after(wait)
    times.computed(ended)
    clock.after(machine)
    times.sending()
    clock.after(make)
    times.made()
    times.sent()


def way_in(times: HopTimes, clock: Clock, read: float, machine: float, wait: float) -> None:
    times.came()
    clock.after(read)
    times.read()
    clock.after(machine)
    times.taken()
    submitted = clock()
    clock.after(wait)
    times.started(submitted)


def test_parts_of_both_ways_are_added(clock: Clock):
    times = HopTimes()
    assert times.parts() == HopParts()
    way_out(times, clock, wait=0.5, machine=0.25, make=0.125)
    assert times.parts() == HopParts(0.5, 0.25, 0.125)
    way_in(times, clock, read=1.0, machine=2.0, wait=4.0)
    assert times.parts() == HopParts(4.5, 2.25, 1.125)


def test_medians_are_told_and_of_the_last_hops_alone(clock: Clock):
    times = HopTimes()
    for wait in (1.0, 9.0, 2.0):
        way_out(times, clock, wait, 0.0, 0.0)
    assert times.parts().wait_ms == 2.0
    for _ in range(LATELY):
        way_out(times, clock, 5.0, 0.0, 0.0)
    assert times.parts().wait_ms == 5.0


def test_what_is_sent_without_a_computation_and_read_without_bytes_counts_for_nothing(clock: Clock):
    times = HopTimes()
    clock.after(3.0)
    times.made()  # nothing was decided before
    times.sending()  # nothing was computed before
    times.sent()
    clock.after(3.0)
    times.made()  # of something else
    assert times.parts() == HopParts()
    clock.after(3.0)
    times.read()  # a lane in memory
    clock.after(1.0)
    times.taken()
    assert times.parts() == HopParts(machine_ms=1.0)
