"""A device as driver: admits sessions, feeds their rows into the pipeline, says the tokens."""

from dataclasses import replace
from typing import Literal

from swisd.core import deadlines
from swisd.core.drafts import worth
from swisd.core.effects import Activation, CancelTimer, Publish, Sample, Score, SetTimer
from swisd.core.events import StepDone
from swisd.core.gone import Gone
from swisd.core.local import Effects, Local
from swisd.core.messages import Ask, Out, Repair, SessionView
from swisd.core.parked import LEAST, Parked
from swisd.core.passes import Pass
from swisd.core.recovery import Recovery
from swisd.core.rounds import Rounds
from swisd.core.session import READ_AGAIN, Session
from swisd.core.types import Plan, Scores, Slot
from swisd.core.waiting import MAX_WAITING, Waiting, refusal
from swisd.core.worker import Worker

MOST_DONE = 64  # finished sessions whose messages are kept for a resend


class Driver:
    """The sessions that this device drives, under the plan it has loaded."""

    def __init__(self, local: Local, worker: Worker) -> None:
        self._local, self._worker = local, worker
        self.recovery = Recovery(local, worker.begin, self._go_on, self._fail)
        self._sessions: dict[str, Session] = {}
        self._gone = Gone()
        self._waiting = Waiting()
        self._parked = Parked()
        self.rounds = Rounds()

    def running(self) -> list[str]:
        """Sessions that run now."""
        return [session.key for session in self._sessions.values() if session.finish is None]

    def views(self) -> tuple[SessionView, ...]:
        running = [
            SessionView(
                session.key,
                session.ask.asker,
                len(session.ask.prompt),
                len(session.emitted) or session.scored,
                round(session.tokens_per_s, 2),
            )
            for session in self._sessions.values()
            if session.finish is None
        ]
        return tuple((running + self._waiting.views())[:32])

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
        self._parked.clear()  # the devices let go of them, too
        self.recovery.on_plan()
        here = plan.active and self._drives(plan) and self._local.ready_epoch >= plan.epoch
        waiting, room = self._waiting.clear(), plan.context
        for session in list(self._sessions.values()):
            if session.finish is not None:
                continue
            if here and session.reserved <= room:
                room -= session.reserved
                session.epoch = plan.epoch
                self.recovery.forget(session.key, out)
                self.recovery.start(session, why, now, out)
            else:
                said = session.say(now=now, finish="error", error="the plan changed", retry=True)
                out.append(Publish(said))
                self._let_go(session, now, out)
        for ask in waiting:
            if here and not refusal(ask, plan, self._local.manifest):
                self._waiting.add(ask, now)
            else:
                out.append(Publish(_changed(ask.session, plan.epoch)))
        self._admit(now, out)

    def head(self, activation: Activation, now: float, out: Effects) -> None:
        """Rows reached the last stage: run the head on them, or note that a prompt chunk went round."""
        slot = activation.slots[0]
        session = self._running(slot.session)
        if session is None:
            self._local.drop("rows of a session that ended")
            return
        if any(step < slot.step and step not in session.at_head for step in session.running):
            self.recovery.start(session, "rows were lost on their way", now, out)
            return
        session.at_head.add(slot.step)
        self._note_beyond(session, activation, now)
        if activation.rows == 0:
            self._went_round(session, slot.step, now, out)
            return
        request = session.head_request(slot.step)
        if request is None:
            self._local.drop("rows that nobody awaits")
            return
        self._worker.run(activation, now, out, *_wanted(request))

    def on_head_done(self, event: StepDone, now: float, out: Effects) -> None:
        """The head answered with a token or scores (or ran a prompt chunk that wants neither)."""
        session = self._running(event.work.session)
        if session is None:
            return
        item = session.running.get(event.work.step)
        if item is None:
            return
        if event.token is not None:
            if not session.awaits(item):
                self.recovery.start(session, "an answer came before its turn", now, out)
                return
            self._note_time(session, event.work.step, now)
            out.append(Publish(session.on_token(event.token, now)))
        elif event.scores is not None:
            self._scored(session, item.position, event.scores, now, out)
        self._went_round(session, event.work.step, now, out)

    def on_fed(self, session_key: str, now: float, out: Effects) -> None:
        """The first stage is free again: feed the next prompt chunk behind the last."""
        if session := self._running(session_key):
            self._feed(session, now, out)

    def on_timer(self, name: str, now: float, out: Effects) -> None:
        """A step of a session is late, or answers of devices that were asked after it."""
        kind, _, key = name.partition(":")
        session = self._running(key)
        if session is None:
            return
        if kind == "repair":
            self.recovery.on_timer(key, now, out)
            return
        patience = self._patience(session)
        if now < session.moved + patience:  # others' steps took longer meanwhile: its own may, too
            out.append(SetTimer(name, session.moved + patience))
        elif session.running and not self.recovery.busy(key):
            self.recovery.look(session, now, out)

    def on_repair(self, repair: Repair, now: float, out: Effects) -> None:
        """What a device says of a session that is brought back."""
        session = self._running(repair.session)
        if session is None:
            return
        if repair.op == "fail":
            self.recovery.on_fail(session, repair, now, out)
        else:
            self.recovery.on_repair(repair, now, out)

    def sweep(self, now: float, out: Effects) -> None:
        """End sessions whose asker fell silent, forget those long finished."""
        self._waiting.sweep(now)
        self._gone.sweep(now)
        for key in self._parked.stale(now):
            self._tell_holders("cancel", key, out)
        done = [session for session in self._sessions.values() if session.finish is not None]
        for number, session in enumerate(done):
            if number < len(done) - MOST_DONE or now - session.finished_at > deadlines.KEEP_DONE:
                self._forget(session.key, now)
        for session in list(self._sessions.values()):
            if session.finish is None and now - session.renewed > deadlines.LEASE:
                out.append(Publish(session.say(now=now, finish="cancelled", error="the asker fell silent")))
                self._ended(session, now, out)

    def _start(self, ask: Ask, now: float, out: Effects) -> None:
        known, plan = self._sessions.get(ask.session), self._local.plan
        if ask.session in self._waiting:
            return
        if known is not None:
            if len(ask.emitted) <= len(known.ask.emitted):
                return  # the same once more
            if known.finish is not None:
                epoch = plan.epoch if plan else 0
                out.append(Publish(replace(_changed(ask.session, epoch), freed=True)))
                return
            self._let_go(known, now, out)  # the asker began anew, and counts from there
        ready = plan is not None and plan.active and plan.epoch == ask.epoch <= self._local.ready_epoch
        if plan is None or not ready or not self._drives(plan):
            out.append(Publish(_changed(ask.session, plan.epoch if plan else 0)))
            return
        problem = refusal(ask, plan, self._local.manifest)
        if not problem and len(self._waiting) >= MAX_WAITING:
            problem = f"busy: {len(self._waiting)} requests wait already; try again later"
        if problem:
            out.append(Publish(Out(ask.session, 0, plan.epoch, finish="error", error=problem)))
            return
        self._waiting.add(ask, now)
        self._admit(now, out)
        self._say_place(ask.session, out)

    def _say_place(self, session: str, out: Effects) -> bool:
        """Tell the asker of a waiting session how many come before it; False if it does not wait."""
        place = self._waiting.place(session)
        if place is None:
            return False
        running = sum(1 for item in self._sessions.values() if item.finish is None)
        epoch = self._local.plan.epoch if self._local.plan else 0
        out.append(Publish(Out(session, 0, epoch, waiting=running + place)))
        return True

    def _admit(self, now: float, out: Effects) -> None:
        plan = self._local.plan
        while plan is not None and (ask := self._waiting.first()) is not None:
            limit = (
                0 if ask.score_top else min(ask.max_tokens or plan.context, plan.context - len(ask.prompt))
            )
            session = Session.begin(ask, plan.epoch, limit, now, self._gone.next_step(ask.session))
            used = sum(item.reserved for item in self._sessions.values() if item.finish is None)
            if used + session.reserved > plan.context and used:
                return
            self._waiting.remove(ask.session)
            self._sessions[session.key] = session
            prefix = None if ask.again else self._parked.take_for(session, plan.context - used)
            for key in self._parked.beyond(plan.context - used - session.reserved):
                self._tell_holders("cancel", key, out)
            if ask.again:  # whoever held rows of it may hold them still
                self.recovery.start(session, "it comes from another driver", now, out)
            elif prefix is not None:
                self._arm(session, now, out)
                self.recovery.fork(session, prefix, now, out)
            elif session.answers_from(0) > LEAST:  # one by one they take longer than as a part of the prompt
                self._fail(session, READ_AGAIN, now, out)
            else:
                self._go_on(session, now, out)

    def _go_on(self, session: Session, now: float, out: Effects) -> None:
        self._arm(session, now, out)
        self._feed(session, now, out)

    def _feed(self, session: Session, now: float, out: Effects) -> None:
        plan = self._local.plan
        if plan is None:
            return
        stages = plan.pipelines[0].stages
        # As many prompt chunks in flight as there are stages, and one that waits: all devices have work.
        if len(session.running) > len(stages):
            return
        if (taken := session.take()) is None:
            return
        self._feed_pass(session, taken, plan, now, out)
        # While caches move to another device, guesses would be late in coming there.
        if self._alone() and self._local.config.speculation and self._local.coming is None:
            most = worth(session.trust, self.rounds.times())
            for more in session.guess(most):
                self._feed_pass(session, more, plan, now, out)

    def _feed_pass(
        self, session: Session, taken: tuple[Slot, Pass], plan: Plan, now: float, out: Effects
    ) -> None:
        slot, item = taken
        session.fed_at[slot.step] = now
        activation = Activation(plan.epoch, 0, 0, (slot,), slot.rows, item.ids)
        solo = len(plan.pipelines[0].stages) == 1
        sample, score = _wanted(session.head_request(slot.step) if solo and slot.logits else None)
        self._worker.begin(activation, now, out, sample=sample, score=score)

    def _went_round(self, session: Session, step: int, now: float, out: Effects) -> None:
        fed_at, item = session.fed_at.pop(step, None), session.running.get(step)
        if fed_at is not None and item is not None:
            self.rounds.note(len(item.ids), now - fed_at)
        session.slack, session.tries = 1.0, 0
        self.recovery.moved(session.key, out)
        session.acknowledge(step)
        if session.ask.score_top and not session.running and not session.todo and session.finish is None:
            out.append(Publish(session.say(now=now, finish="stop")))
        if session.finish is not None:
            self._ended(session, now, out)
            return
        self._arm(session, now, out)
        self._feed(session, now, out)

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

    def _note_time(self, session: Session, step: int, now: float) -> None:
        first, rows = session.together
        if not self._alone() or step != first or len(session.token_times) < 2:
            return
        if (fed_at := session.fed_at.get(step)) is not None:
            self.rounds.note_size(rows, now - fed_at)
        if rows == 1:
            self.rounds.note_token((now - session.token_times[-1]) * 1000.0)

    def _note_beyond(self, session: Session, activation: Activation, now: float) -> None:
        """From the feeding of a step to its arrival at the head lies each hop once, and what was computed."""
        step = activation.slots[0].step
        fed_at, item = session.fed_at.get(step), session.running.get(step)
        if fed_at is not None and item is not None and len(item.ids) == 1 and self._alone():
            self.rounds.note_beyond((now - fed_at) * 1000.0 - activation.spent_ms)

    def _alone(self) -> bool:
        """Whether one session runs: what its steps take tells of the plan, and not of others."""
        return len(self.running()) == 1

    def _renew(self, ask: Ask, now: float, out: Effects) -> None:
        session = self._sessions.get(ask.session)
        if session is None:
            self._waiting.heard(ask.session, now)
            if not self._say_place(ask.session, out):
                epoch = self._local.plan.epoch if self._local.plan else 0
                message = "the driver does not know this session"
                out.append(
                    Publish(
                        Out(ask.session, ask.from_index, epoch, finish="error", error=message, retry=True)
                    )
                )
            return
        session.renewed = now
        for missed in session.outs[ask.from_index :]:
            out.append(Publish(missed))
        if session.finish is None and ask.from_index >= len(session.outs):
            out.append(Publish(Out(session.key, ask.from_index, session.epoch, alive=True)))

    def _cancel(self, ask: Ask, now: float, out: Effects) -> None:
        self._waiting.remove(ask.session)
        if session := self._running(ask.session):
            out.append(Publish(session.say(now=now, finish="cancelled")))
            self._ended(session, now, out)

    def _fail(self, session: Session, reason: str, now: float, out: Effects) -> None:
        out.append(Publish(session.say(now=now, finish="error", error=reason, retry=True, freed=True)))
        self._ended(session, now, out)

    def _let_go(self, session: Session, now: float, out: Effects) -> None:
        """Another driver takes the session up, with what the devices hold of it."""
        self.recovery.forget(session.key, out)
        out.append(CancelTimer(f"step:{session.key}"))
        self._forget(session.key, now)

    def _forget(self, key: str, now: float) -> None:
        self._gone.leave(key, self._sessions.pop(key).next_step, now)

    def _ended(self, session: Session, now: float, out: Effects) -> None:
        """Keep or free the caches on all devices, and let the next one in."""
        self.recovery.forget(session.key, out)
        out.append(CancelTimer(f"step:{session.key}"))
        self._tell_holders("park" if self._parked.add(session, now) else "cancel", session.key, out)
        self._admit(now, out)

    def _tell_holders(self, op: Literal["park", "cancel"], session: str, out: Effects) -> None:
        plan = self._local.plan
        if plan is not None and plan.pipelines:
            word = Ask(op, session, self._local.device, plan.epoch)
            out.extend(Publish(word, to=device) for device in self._holders(plan))

    def _holders(self, plan: Plan) -> list[str]:
        """Devices that may hold rows of a session: those of the plan, and of one that is coming."""
        plans = (plan, self._local.coming) if self._local.coming is not None else (plan,)
        pipelines = [pipeline for item in plans for pipeline in item.pipelines]
        return sorted({self._local.device, *(stage.device for item in pipelines for stage in item.stages)})

    def _arm(self, session: Session, now: float, out: Effects) -> None:
        session.moved = now
        out.append(SetTimer(f"step:{session.key}", now + self._patience(session)))

    def _patience(self, session: Session) -> float:
        plan = self._local.plan
        passes = [
            item
            for other in self._sessions.values()
            if other.finish is None
            for item in other.running.values()
        ]
        single = all(len(item.ids) == 1 for item in session.running.values())
        rows = sum(len(item.ids) for item in passes)
        return self.rounds.patience(plan.prediction if plan else None, rows, single=single) * session.slack

    def _running(self, key: str) -> Session | None:
        session = self._sessions.get(key)
        return session if session is not None and session.finish is None else None

    def _drives(self, plan: Plan) -> bool:
        return bool(plan.pipelines) and plan.pipelines[0].driver == self._local.device


def _wanted(request: Sample | Score | None) -> tuple[Sample | None, Score | None]:
    return (
        request if isinstance(request, Sample) else None,
        request if isinstance(request, Score) else None,
    )


def _changed(session: str, epoch: int) -> Out:
    return Out(session, 0, epoch, finish="error", error="the plan changed", retry=True)
