"""Storms: the protocol holds in them, whatever is hurt, and they replay exactly."""

import os
import subprocess
import sys

import pytest

from swisd.sim.mishaps import ALL, KINDS
from swisd.sim.storm import Report, run_storm


def words(report: Report) -> str:
    found = report.violations[0]
    return f"seed {report.seed} at {found.at}: {found.what}\n" + "\n".join(found.tail)


@pytest.mark.parametrize("start", range(0, 12, 4))
def test_a_storm_breaks_no_invariant(start: int):
    well = 0
    for seed in range(start, start + 4):
        report = run_storm(seed, 3 + seed % 4, 2.0)
        assert not report.violations, words(report)
        assert report.ended_well + report.ended_by_error == report.asked
        assert sum(report.faults.values()) >= 8
        well += report.ended_well
    assert well >= 40


@pytest.mark.parametrize(
    ("seed", "devices"),
    [
        (90004, 4),  # two hosts used one epoch, and a device that followed the other refused this one's plan
        (110605, 2),  # a device that was apart could not load its part of the active plan again
        (120197, 2),  # a host heard a late word of the one before, and its bus stayed without one
        (120249, 10),  # the word that rows were run again was lost while others advanced
        (93156, 10),  # the word that rows were run again was lost, and waited for four minutes
        (300784, 2),  # what a host had planned in an earlier life came again, with the epoch of its plan now
        (400045, 10),  # a row of a wrong guess was given to another device, the right one behind it was not
        (400174, 7),  # the same
        (401276, 9),  # a host that could not get the model's description kept a plan whose device began anew
        (401382, 5),  # after one long stall a lost row was waited for beyond all measure
        (500608, 11),  # two devices took turns in being late behind rows that were run again for the change
        (93391, 3),  # a plan came again after another, and a session's steps were counted from the start
    ],
)
def test_a_storm_that_once_broke_an_invariant_breaks_none(seed: int, devices: int):
    report = run_storm(seed, devices, 3.0, ALL)
    assert not report.violations, words(report)


def test_without_faults_every_session_ends_well():
    for seed in range(3):
        report = run_storm(seed, 4, 2.0, ())
        assert not report.violations, words(report)
        assert report.faults == {} and report.met == {}
        if report.plans and not report.errors:
            assert report.ended_well == report.asked
            assert report.longest_pause < 2.0  # another prompt may run between two tokens


def test_a_seed_replays_exactly():
    first = run_storm(7, 4, 1.0)
    again = run_storm(7, 4, 1.0)
    assert again == first
    assert again.digest != run_storm(8, 4, 1.0).digest
    code = "from swisd.sim.storm import run_storm; print(run_storm(7, 4, 1.0).digest)"
    for hashing in ("0", "1"):  # no order of a set may reach the transcript
        there = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert there.stdout.strip() == first.digest


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_of_mishap_happens_alone(kind: str):
    happened = 0
    for seed in range(2):
        report = run_storm(seed, 4, 1.0, (kind,))
        if kind in ALL:
            assert not report.violations, words(report)
        assert set(report.faults) <= {kind}
        happened += report.faults.get(kind, 0)
    assert happened


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown faults: rain"):
        run_storm(1, 3, 1.0, ("rain",))
