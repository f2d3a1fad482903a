"""A device as driver: what becomes of its sessions as asks, rows, answers, plans and timers come."""

from dataclasses import replace

from swisd.core import deadlines
from swisd.core.admission import Admission, changed
from swisd.core.effects import CancelTimer, Publish
from swisd.core.events import DraftMade, StepDone
from swisd.core.feeding import Feeding
from swisd.core.local import Effects, Local
from swisd.core.messages import Ask, Out, Repair, SessionView
from swisd.core.parked import LEAST, Prefix
from swisd.core.recovery import Recovery
from swisd.core.rounds import Rounds
from swisd.core.rows import Activation
from swisd.core.session import READ_AGAIN, Session
from swisd.core.sessions import Sessions
from swisd.core.types import Plan, Scores
from swisd.core.worker import Worker


class Driver:
    """The sessions that this device drives, under the plan it has loaded."""

    def __init__(self, local: Local, worker: Worker) -> None:
        self._local = local
        self.sessions, self.rounds = Sessions(), Rounds()
        self.admission = Admission(local, self.sessions, self._begin)
        self._feeding = Feeding(local, worker, self.sessions, self.rounds)
        self.recovery = Recovery(local, worker.begin, self._feeding.go_on, self._fail)

    def running(self) -> list[str]:
        """Sessions that run now."""
        return [session.key for session in self.sessions.running]

    def views(self) -> tuple[SessionView, ...]:
        running = [
            SessionView(
                session.key,
                session.ask.asker,
                len(session.ask.prompt),
                len(session.emitted) or session.scored,
                round(session.tokens_per_s, 2),
            )
            for session in self.sessions.running
        ]
        return tuple((running + self.admission.waiting.views())[:32])

    def on_ask(self, ask: Ask, now: float, out: Effects) -> None:
        match ask.op:
            case "start":
                self._start(ask, now, out)
            case "renew":
                self._renew(ask, now, out)
            case "cancel":
                self._cancel(ask, now, out)

    def serve(self, plan: Plan, why: str, now: float, out: Effects) -> None:
        """Another plan is in service: its driver brings the sessions back, any other hands them back."""
        self.rounds.clear()
        self.recovery.on_plan()
        waiting, room = self.admission.on_plan(), plan.context
        here = self.admission.ready(plan)
        for session in self.sessions.running:
            if here and session.reserved <= room:
                room -= session.reserved
                session.epoch, session.tries = plan.epoch, 0
                self.recovery.forget(session.key, out)
                self.recovery.start(session, why, now, out)
            else:
                said = session.say(now=now, finish="error", error="the plan changed", retry=True)
                out.append(Publish(said))
                self._let_go(session, now, out)
        self.admission.take_back(waiting, plan, now, out)

    def head(self, activation: Activation, now: float, out: Effects) -> None:
        """Rows reached the last stage: run the head on them, or note that a prompt chunk went round."""
        slot = activation.slots[0]
        session = self.sessions.find_running(slot.session)
        if session is None:
            self._local.drop("rows of a session that ended")
            return
        if any(step < slot.step and step not in session.at_head for step in session.running):
            self.recovery.start(session, "rows were lost on their way", now, out)
            return
        session.at_head.add(slot.step)
        if activation.rows == 0:
            self._went_round(session, slot.step, now, out)
        else:
            self._feeding.run_head(session, activation, now, out)

    def on_head_done(self, event: StepDone, activation: Activation, now: float, out: Effects) -> None:
        """The head answered these rows with a token or scores (or ran a prompt chunk that wants neither)."""
        session = self.sessions.find_running(event.work.session)
        if session is None:
            return
        item = session.running.get(event.work.step)
        if item is None:
            return
        if event.token is not None:
            if not session.awaits(item):
                self.recovery.start(session, "an answer came before its turn", now, out)
                return
            self._feeding.note_token(session, event.work.step, now)
            self._feeding.came(session, event, activation)
            out.append(Publish(session.on_token(event.token, now)))
        elif event.scores is not None:
            self._scored(session, item.position, event.scores, now, out)
        self._went_round(session, event.work.step, now, out)

    def on_fed(self, event: StepDone, now: float, out: Effects) -> None:
        """Rows leave the first stage, which is free again: feed the next prompt chunk behind them."""
        if session := self.sessions.find_running(event.work.session):
            self._feeding.left(session, event)
            self._feeding.feed(session, now, out)

    def on_draft(self, event: DraftMade, now: float, out: Effects) -> None:
        """This device's small model says what may come next."""
        if session := self.sessions.find_running(event.session):
            self._feeding.on_draft(session, event, now, out)

    def on_timer(self, name: str, now: float, out: Effects) -> None:
        """A step of a session is late, or answers of devices that were asked after it."""
        kind, _, key = name.partition(":")
        session = self.sessions.find_running(key)
        if session is None:
            return
        if kind == "repair":
            self.recovery.on_timer(key, now, out)
        elif self._feeding.late(session, now, out) and session.running and not self.recovery.busy(key):
            self.recovery.look(session, now, out)

    def on_repair(self, repair: Repair, now: float, out: Effects) -> None:
        """What a device says of a session that is brought back."""
        session = self.sessions.find_running(repair.session)
        if session is None:
            return
        if repair.op == "fail":
            self.recovery.on_fail(session, repair, now, out)
        else:
            self.recovery.on_repair(repair, now, out)

    def sweep(self, now: float, out: Effects) -> None:
        """End sessions whose asker fell silent, forget those long finished."""
        self.admission.sweep(now, out)
        self.sessions.sweep(now)
        for session in self.sessions.running:
            if now - session.renewed > deadlines.LEASE:
                out.append(Publish(session.say(now=now, finish="cancelled", error="the asker fell silent")))
                self._ended(session, now, out)

    def _start(self, ask: Ask, now: float, out: Effects) -> None:
        known = self.sessions.get(ask.session)
        if known is not None:
            if len(ask.emitted) <= len(known.ask.emitted):
                return  # the same once more
            if known.finish is not None:
                out.append(Publish(replace(changed(ask.session, self._local.plan), freed=True)))
                return
            self._let_go(known, now, out)  # the asker began anew, and counts from there
        self.admission.on_start(ask, now, out)

    def _begin(self, session: Session, prefix: Prefix | None, now: float, out: Effects) -> None:
        """A session was let in."""
        if session.ask.again:  # whoever held rows of it may hold them still
            self.recovery.start(session, "it comes from another driver", now, out)
        elif prefix is not None:
            self._feeding.arm(session, now, out)
            self.recovery.fork(session, prefix, now, out)
        elif session.answers_from(0) > LEAST:  # one by one they take longer than as a part of the prompt
            self._fail(session, READ_AGAIN, now, out)
        else:
            self._feeding.go_on(session, now, out)

    def _went_round(self, session: Session, step: int, now: float, out: Effects) -> None:
        self.recovery.moved(session.key, out)
        self._feeding.came_round(session, step, now)
        if session.ask.score_top and not session.running and not session.todo and session.finish is None:
            out.append(Publish(session.say(now=now, finish="stop")))
        if session.finish is not None:
            self._ended(session, now, out)
            return
        self._feeding.go_on(session, now, out)

    def _scored(self, session: Session, position: int, scores: Scores, now: float, out: Effects) -> None:
        if position < session.scored:
            return  # run again after a loss; it was said
        session.scored = position + len(scores.top_ids)
        out.append(
            Publish(
                session.say(
                    now=now,
                    top_ids=scores.top_ids,
                    top_logprobs=scores.top_logprobs,
                    next_logprobs=scores.next_logprobs,
                )
            )
        )

    def _renew(self, ask: Ask, now: float, out: Effects) -> None:
        session = self.sessions.get(ask.session)
        if session is None:
            self.admission.on_renew(ask, now, out)
            return
        session.renewed = now
        for missed in session.outs[ask.from_index :]:
            out.append(Publish(missed))
        if session.finish is None and ask.from_index >= len(session.outs):
            out.append(Publish(Out(session.key, ask.from_index, session.epoch, alive=True)))

    def _cancel(self, ask: Ask, now: float, out: Effects) -> None:
        self.admission.waiting.remove(ask.session)
        if session := self.sessions.find_running(ask.session):
            out.append(Publish(session.say(now=now, finish="cancelled")))
            self._ended(session, now, out)

    def _fail(self, session: Session, reason: str, now: float, out: Effects) -> None:
        out.append(Publish(session.say(now=now, finish="error", error=reason, retry=True, freed=True)))
        self._ended(session, now, out)

    def _let_go(self, session: Session, now: float, out: Effects) -> None:
        """Another driver takes the session up, with what the devices hold of it."""
        self._await_nothing(session, out)
        self.sessions.remove(session.key, now)

    def _ended(self, session: Session, now: float, out: Effects) -> None:
        """Keep or free the caches on all devices, and let the next one in."""
        self._await_nothing(session, out)
        self.admission.on_end(session, now, out)

    def _await_nothing(self, session: Session, out: Effects) -> None:
        self.recovery.forget(session.key, out)
        out.append(CancelTimer(f"step:{session.key}"))
