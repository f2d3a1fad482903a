"""How a driver feeds the rows of its sessions into the pipeline, and what it learns of the time they take."""

from collections.abc import Iterable, Iterator

from swisd.core.drafts import worth
from swisd.core.effects import Draft, SetTimer
from swisd.core.events import DraftMade, StepDone
from swisd.core.local import Effects, Local
from swisd.core.passes import Pass
from swisd.core.rounds import Rounds
from swisd.core.rows import Activation, Following, Sample, Score
from swisd.core.session import Session
from swisd.core.sessions import Sessions
from swisd.core.sizes import SIZES
from swisd.core.types import Plan, Slot
from swisd.core.worker import Worker


class Feeding:
    """Rows on their way from the first stage to the head. `rounds` learns how long they take."""

    def __init__(self, local: Local, worker: Worker, sessions: Sessions, rounds: Rounds) -> None:
        self._local, self._worker, self._sessions, self._rounds = local, worker, sessions, rounds

    def go_on(self, session: Session, now: float, out: Effects) -> None:
        """A session begins, or rows of it came round."""
        self.arm(session, now, out)
        self.feed(session, now, out)

    def feed(self, session: Session, now: float, out: Effects) -> None:
        """Feed the next rows behind those that are under way, if it is time for them."""
        plan = self._local.plan
        if plan is None:
            return
        stages = plan.stages_of(self._local.device)
        # As many prompt chunks in flight as there are stages, and one that waits: all devices have work.
        if len(session.running) > len(stages):
            return
        if (taken := session.take()) is None:
            return
        self._end_round(session, taken[1], now)
        guesses = self._guesses()
        at_once = session.at_once = self._at_once(session) if guesses else 1
        self._feed_pass(session, taken, plan, now, out, at_once=at_once)
        guessed = session.guess(at_once) if guesses else []
        session.company = self._company(session)
        for more in guessed:
            self._feed_pass(session, more, plan, now, out)
        if guessed:
            session.round = 0.0, 0  # not one of a small model
        elif guesses and session.round[1]:
            self._ask_small_model(session, out)

    def on_draft(self, session: Session, event: DraftMade, now: float, out: Effects) -> None:
        """A small model says what comes behind the last token, whose row is under way."""
        plan = self._local.plan
        if plan is None or event.after > session.known:
            return
        since = (
            session.emitted[event.after - len(session.ask.prompt) :] if event.after < session.known else ()
        )
        ids = session.drafted.expect(event.ids, since)
        if self._guesses():
            for more in session.follow(ids[: max(self._worth_drafting(session) - 1, 0)]):
                self._feed_pass(session, more, plan, now, out)

    def _ask_small_model(self, session: Session, out: Effects) -> None:
        """Have it say what comes behind the row that was just fed, if that is worth its time."""
        if count := session.drafted.wanted(self._worth_drafting(session)):
            out.append(Draft(session.key, (*session.ask.prompt, *session.emitted), count))

    def left(self, session: Session, event: StepDone) -> None:
        """Rows leave the first stage; those that ran ahead of time, once they are asked for."""
        fed_at = session.fed_at.get(event.work.step)
        if event.ended and event.rows == event.shared == 1 and fed_at is not None:
            session.left = event.work.step, max(event.ended, fed_at), event.ran_ms

    def came(self, session: Session, event: StepDone, activation: Activation) -> None:
        """The head ran rows. From where they left the first stage to where it began lies each hop once, and
        what was computed between.
        """
        if event.shared == activation.slots[0].rows == 1:
            self._rounds.note_computed(activation.spent_ms + event.ran_ms)
        step, left, ran_ms = session.left
        if step == event.work.step and event.ended and event.shared == 1 and self._alone():
            passed_ms = (event.ended - left) * 1000.0 - event.ran_ms
            self._rounds.note_beyond(passed_ms - (activation.spent_ms - ran_ms))

    def run_head(self, session: Session, activation: Activation, now: float, out: Effects) -> None:
        """Let the head answer rows that came to the last stage."""
        request = session.head_request(activation.slots[0].step)
        if request is None:
            self._local.drop("rows that nobody awaits")
            return
        # Nothing was learnt of guesses since these rows were fed, and on their way everything counts.
        following = self._following(session, session.at_once if self._guesses() else 1)
        self._worker.run(activation, now, out, *_wanted(request), following)

    def came_round(self, session: Session, step: int, now: float) -> None:
        """All is done with the rows of a step."""
        fed_at, item = session.fed_at.pop(step, None), session.running.get(step)
        if fed_at is not None and item is not None:
            self._rounds.note(len(item.ids), now - fed_at)
        session.slack, session.tries = 1.0, 0
        session.acknowledge(step)

    def note_token(self, session: Session, step: int, now: float) -> None:
        """The head answers these rows with a token, which the session is yet to take."""
        first, rows = session.together
        if step != first or len(session.token_times) < 2:
            return
        fed_at, company = session.fed_at.get(step), session.company
        # With the first guesses of a session its caches are moved to where several rows can share them.
        tells = rows == 1 or session.shares
        session.shares |= rows > 1
        if tells and fed_at is not None and company and company == self._company(session):
            self._rounds.sizes(company).note(rows, now - fed_at)
        if rows == 1 and self._alone():
            self._rounds.note_token((now - session.token_times[-1]) * 1000.0)

    def arm(self, session: Session, now: float, out: Effects) -> None:
        """Begin to wait for its next rows."""
        session.moved = now
        out.append(SetTimer(f"step:{session.key}", now + self._patience()))

    def late(self, session: Session, now: float, out: Effects) -> bool:
        """The time for its next rows is over, once more. False if that is longer now: then it is waited on.

        A step that is only slow is looked for again and again, because it may be lost later on its way.
        """
        patience = self._patience()
        due = max(session.moved, session.looked) + patience
        if now < due:  # others' steps took longer meanwhile: its own may, too
            out.append(SetTimer(f"step:{session.key}", due))
            return False
        session.looked, session.patience = now, patience
        return True

    def _feed_pass(
        self,
        session: Session,
        taken: tuple[Slot, Pass],
        plan: Plan,
        now: float,
        out: Effects,
        at_once: int = 0,
    ) -> None:
        """`at_once` rows run at once, if this is the first of them."""
        slot, item = taken
        session.fed_at[slot.step] = now
        pipeline = plan.number_of(self._local.device) or 0
        activation = Activation(plan.epoch, pipeline, 0, (slot,), slot.rows, item.ids)
        solo = len(plan.pipelines[pipeline].stages) == 1
        sample, score = _wanted(session.head_request(slot.step) if solo and slot.logits else None)
        following = self._following(session, at_once) if sample is not None else None
        self._worker.begin(activation, now, out, sample=sample, score=score, following=following)

    def _following(self, session: Session, at_once: int) -> Following | None:
        """What comes behind the row that the head answers: this device has the first stage, too.

        Where more than one row is worth its time `at_once`, guesses run with it.
        """
        stage = dict(self._worker.stages).get(0)
        if stage is None or self._local.coming is not None or len(session.running) != 1 or session.todo:
            return None
        ahead = session.max_tokens - len(session.emitted) - 1
        if at_once != 1 or ahead < 1:
            return None
        return Following(stage.units, session.ask.stop_ids, ahead)

    def _guesses(self) -> bool:
        """Whether rows of guesses may run: where no session shares its passes with others, whose rows theirs
        would keep waiting. While caches move to another device they would be late there.
        """
        apart = len(self._sessions.running) <= self._worker.devices
        return apart and self._local.config.speculation and self._local.coming is None

    def _at_once(self, session: Session) -> int:
        """Rows to run at once, all but the first of them guesses, where those may run."""
        if not (odds := session.odds(SIZES[-1] - 1)):
            return 1
        sessions = len(self._sessions.running)
        times = self._rounds.sizes(sessions).times()
        if sessions == 1:
            return worth(odds, times)
        busy = self._rounds.busy(sessions, self._worker.devices)
        return worth(odds, times, sessions - 1, busy)

    def _worth_drafting(self, session: Session) -> int:
        """Rows of a round, of which all but the first are its guesses; 0 while rounds are not measured."""
        times = self._rounds.drafted.times()
        return worth([session.drafted.trust] * (max(times) - 1), times) if len(times) > 1 else 0

    def _end_round(self, session: Session, item: Pass, now: float) -> None:
        """The next row that is no guess is fed. Rounds count where a small model could have a part."""
        began, rows = session.round
        counts = bool(self._local.config.drafter) and self._alone()
        if rows and counts:
            self._rounds.drafted.note(rows, now - began)
        session.round = now, int(counts and bool(item.logits) and len(item.ids) == 1)

    def _alone(self) -> bool:
        """Whether one session runs: what its steps take tells of the plan, and not of others."""
        return len(self._sessions.running) == 1

    def _company(self, session: Session) -> int:
        """How many sessions run, if a round of this one tells of the devices; else 0.

        It does not where prompts are read. One of a single row does not where others have several rows under
        way either: it waits behind them, and guesses would seem to cost nothing.
        """
        running = self._sessions.running
        if any(len(item.ids) > 1 for item in _under_way(running)):
            return 0
        single = session.together[1] == 1
        waits = single and any(len(other.running) > 1 for other in running if other is not session)
        return 0 if waits else len(running)

    def _patience(self) -> float:
        plan = self._local.plan
        passes = list(_under_way(self._sessions.running))
        # Others' prompts are in line before its token, on any device.
        single = all(len(item.ids) == 1 for item in passes)
        rows = sum(len(item.ids) for item in passes)
        return self._rounds.patience(plan.prediction if plan else None, rows, single=single)


def _under_way(sessions: Iterable[Session]) -> Iterator[Pass]:
    return (item for session in sessions for item in session.running.values())


def _wanted(request: Sample | Score | None) -> tuple[Sample | None, Score | None]:
    return (
        request if isinstance(request, Sample) else None,
        request if isinstance(request, Score) else None,
    )
