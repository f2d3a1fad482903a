"""Tests of the test: each of these bugs breaks a promise, and the storms must see it soon."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from swisd.core import failover
from swisd.core.asker import Asker
from swisd.core.driver import Driver
from swisd.core.journal import Journal
from swisd.core.messages import Ask
from swisd.core.recovery import Recovery
from swisd.core.session import Session
from swisd.core.shards import Shards, spares_of
from swisd.core.worker import Worker
from swisd.sim.storm import run_storm

Patch = pytest.MonkeyPatch
LOSSES = ("crash", "link", "boast-speed")


def no_epoch_check(patch: Patch) -> None:
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


def no_dedupe(patch: Patch) -> None:
    """A worker runs a frame as often as it comes: steps are not compared."""
    right = Worker._in_order

    def wrong(self, activation, stage, now, out):
        for slot in activation.slots:
            if (kept := self.held.caches._sessions.get(slot.session)) is not None:
                kept.steps, kept.least = {}, 0
        return right(self, activation, stage, now, out)

    patch.setattr(Worker, "_in_order", wrong)


def replay_into_the_wrong_position(patch: Patch) -> None:
    """Each pass that is run again has the rows of the one before it."""
    right = Journal.passes

    def wrong(self, session, boundary, start, end):
        found = right(self, session, boundary, start, end)
        return [
            replace(item, payload=other.payload) if item.rows == other.rows else item
            for item, other in zip(found, [*found[:1], *found], strict=False)
        ]

    patch.setattr(Journal, "passes", wrong)


def replay_of_the_wrong_tokens(patch: Patch) -> None:
    """The prompt is run again with the shapes of another cut, and its rows in another order."""
    right = Session.passes

    def wrong(self, start, end):
        found = right(self, start, end)
        return [replace(item, ids=item.ids[::-1]) for item in found]

    patch.setattr(Session, "passes", wrong)


def journal_off_by_one_pass(patch: Patch) -> None:
    """What is kept under a position is what came after it."""
    right = Journal.add

    def wrong(self, session, boundary, position, rows, payload, size):
        line = self._lines.get((session, boundary))
        right(self, session, boundary, position, rows, payload, size)
        entries = self._lines[session, boundary].entries
        if line is not None and len(entries) > 1 and entries[-2].rows == rows:
            entries[-2] = replace(entries[-2], payload=payload)

    patch.setattr(Journal, "add", wrong)


def an_asker_that_listens_to_anybody(patch: Patch) -> None:
    """Words of an earlier driver count as those of the one that was asked last."""

    def wrong(self, sender, said, now, out):
        if self._asked is None or said.session != self.session or said.alive or said.waiting:
            return
        self._moved = now
        for item in self._answer.in_turn(said):
            self._take(item, now, out)
            if self.ended:
                return

    patch.setattr(Asker, "_on_out", wrong)


def an_asker_that_takes_any_order(patch: Patch) -> None:
    """Whatever comes is the next token."""

    def wrong(self, sender, said, now, out):
        if said.session == self.session and self._asked is not None and not said.alive and not said.waiting:
            self._take(said, now, out)

    patch.setattr(Asker, "_on_out", wrong)


def a_driver_that_goes_on_under_an_old_plan(patch: Patch) -> None:
    """It starts a session whatever the plan, and whether it is loaded or not."""

    def wrong(self, ask, now, out):
        plan = self._local.plan
        if self.sessions.get(ask.session) is not None or plan is None or not plan.pipelines:
            return
        session = Session.begin(ask, plan.epoch, ask.max_tokens, now)
        self.sessions.add(session)
        self._feeding.go_on(session, now, out)

    patch.setattr(Driver, "_start", wrong)


def a_forgetful_asker(patch: Patch) -> None:
    """A session that is continued begins anew: the asker sends no tokens that were answered."""
    right = Asker._submit

    def wrong(self, now, out):
        before = len(out)
        right(self, now, out)
        for at in range(before, len(out)):
            message = getattr(out[at], "message", None)
            if isinstance(message, Ask) and message.op == "start":
                out[at] = replace(out[at], message=replace(message, emitted=()))
                self._answer.base = 0

    patch.setattr(Asker, "_submit", wrong)


def a_spare_that_is_warm_in_words_only(patch: Patch) -> None:
    """A device says that it has loaded what the plan wants to spare, and does not load it."""

    def wrong(self, plan, out):
        spare = spares_of(plan, self._local.device)
        self._local.loaded = tuple(dict.fromkeys((*self._local.loaded, *spare)))

    patch.setattr(Shards, "load_spares", wrong)


def spares_without_room(patch: Patch) -> None:
    """Units are kept to spare wherever they are wanted, whatever the memory; and loaded all the same."""
    patch.setattr(failover, "memory_of", lambda manifest, ranges, context: 0)
    patch.setattr("swisd.sim.faults.memory_of", lambda manifest, ranges, context: 0)


def no_deadline(patch: Patch) -> None:
    """A driver waits for a lost step for ever, and its asker for the driver."""
    patch.setattr(Driver, "on_timer", lambda self, name, now, out: None)
    patch.setattr("swisd.core.deadlines.PATIENCE", 1e9)


def no_answer(patch: Patch) -> None:
    """A driver that brings a session back feeds nothing when all is there."""
    patch.setattr(Recovery, "_go_on", lambda self, attempt, now, out: self.forget(attempt.session.key, out))
    patch.setattr("swisd.core.deadlines.PATIENCE", 1e9)


def no_cleaning(patch: Patch) -> None:
    """A driver keeps every session it ever had."""
    patch.setattr(Driver, "sweep", lambda self, now, out: None)


@pytest.mark.parametrize(
    ("plant", "faults"),
    [
        (no_epoch_check, ("reorder", "crash", "boast-speed", "duplicate")),
        (no_dedupe, ("duplicate",)),
        (replay_into_the_wrong_position, LOSSES),
        (replay_of_the_wrong_tokens, LOSSES),
        (journal_off_by_one_pass, LOSSES),
        (an_asker_that_listens_to_anybody, ("crash", "freeze", "duplicate", "boast-speed")),
        (an_asker_that_takes_any_order, ("duplicate", "reorder")),
        (a_driver_that_goes_on_under_an_old_plan, ("crash", "freeze", "duplicate", "boast-speed")),
        (a_forgetful_asker, ("crash", "boast-speed")),
        (a_spare_that_is_warm_in_words_only, ("crash",)),
        (spares_without_room, ()),
        (no_deadline, ("lose", "link")),
        (no_answer, LOSSES),
        (no_cleaning, ()),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_planted_bug_is_found(plant: Callable[[Patch], None], faults: tuple[str, ...], monkeypatch: Patch):
    plant(monkeypatch)
    for seed in range(50):
        report = run_storm(seed, 3 + seed % 3, 1.5, faults)
        if report.violations:
            print(f"seed {seed}: {report.violations[0].what}")
            return
    raise AssertionError("50 storms did not find the bug")
