"""Storms: the protocol holds in them, they replay exactly, and they find bugs that are planted."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from swisd.core.asker import Asker
from swisd.core.driver import Driver
from swisd.core.messages import Ask
from swisd.core.session import Session
from swisd.core.worker import Worker
from swisd.sim.mishaps import ALL, KINDS
from swisd.sim.storm import Report, run_storm


def words(report: Report) -> str:
    found = report.violations[0]
    return f"seed {report.seed} at {found.at}: {found.what}\n" + "\n".join(found.tail)


@pytest.mark.parametrize("start", range(0, 20, 5))
def test_a_storm_breaks_no_invariant(start: int):
    well = 0
    for seed in range(start, start + 5):
        report = run_storm(seed, 3 + seed % 4, 2.0)
        assert not report.violations, words(report)
        assert report.ended_well + report.ended_by_error == report.asked
        assert sum(report.faults.values()) >= 8
        well += report.ended_well
    assert well >= 50


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


# --- tests of the test: each of these bugs breaks a promise, and the storms must see it ------------------


def no_epoch_check(patch: pytest.MonkeyPatch) -> None:
    """A worker takes rows of any epoch."""
    right = Worker.on_frame

    def wrong(self, event, now, out):
        plan = self._local.plan
        if plan is None:
            return right(self, event, now, out)
        stale = event.activation.epoch
        kept, self._local.plan = plan, replace(plan, epoch=stale)
        ready, self._local.ready_epoch = self._local.ready_epoch, stale
        try:
            return right(self, event, now, out)
        finally:
            self._local.plan, self._local.ready_epoch = kept, ready

    patch.setattr(Worker, "on_frame", wrong)


def no_dedupe(patch: pytest.MonkeyPatch) -> None:
    """A worker runs a frame as often as it comes."""
    patch.setattr(Worker, "_in_order", lambda self, activation, now, out: True)


def forgetful_asker(patch: pytest.MonkeyPatch) -> None:
    """A session that is continued begins anew: the asker sends no tokens that were answered."""
    right = Asker._submit

    def wrong(self, now, out):
        before = len(out)
        right(self, now, out)
        for at in range(before, len(out)):
            message = getattr(out[at], "message", None)
            if isinstance(message, Ask) and message.op == "start":
                out[at] = replace(out[at], message=replace(message, emitted=()))

    patch.setattr(Asker, "_submit", wrong)


def two_drivers(patch: pytest.MonkeyPatch) -> None:
    """A driver starts a session whatever the plan, and whether it is loaded or not."""

    def wrong(self, ask, now, out):
        plan = self._local.plan
        if ask.session in self._sessions or plan is None or not plan.pipelines:
            return
        session = Session.begin(ask, plan.epoch, ask.max_tokens, now)
        self._sessions[session.key] = session
        self._arm(session, now, out)
        self._feed(session, now, out)

    patch.setattr(Driver, "_start", wrong)


def any_order(patch: pytest.MonkeyPatch) -> None:
    """An asker takes whatever comes, in whatever order."""

    def wrong(self, said, now, out):
        if said.session == self.session and self._asked is not None:
            self._take(said, now, out)

    patch.setattr(Asker, "_on_out", wrong)


def no_deadline(patch: pytest.MonkeyPatch) -> None:
    """A driver waits for a lost step for ever, and its asker for the driver."""
    patch.setattr(Driver, "on_timer", lambda self, name, now, out: None)
    patch.setattr("swisd.core.deadlines.PATIENCE", 1e9)


def no_cleaning(patch: pytest.MonkeyPatch) -> None:
    """A driver keeps every session it ever had."""
    patch.setattr(Driver, "sweep", lambda self, now, out: None)


@pytest.mark.parametrize(
    ("plant", "faults"),
    [
        (no_epoch_check, ("reorder", "crash", "boast-speed", "duplicate")),
        (no_dedupe, ("duplicate",)),
        (forgetful_asker, ("crash", "boast-speed")),
        (two_drivers, ("crash", "freeze", "duplicate", "boast-speed")),
        (any_order, ("duplicate", "reorder")),
        (no_deadline, ("lose", "link")),
        (no_cleaning, ()),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], faults: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    assert not run_storm(0, 4, 1.0, faults).violations
    plant(monkeypatch)
    for seed in range(50):
        report = run_storm(seed, 3 + seed % 3, 2.0, faults)
        if report.violations:
            print(f"seed {seed}: {report.violations[0].what}")
            return
    raise AssertionError("50 storms did not find the bug")
