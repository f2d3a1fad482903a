"""How a driver brings a session back to life when a step does not come round, or under a new plan.

It asks each device of the plan what it holds. Whoever does not answer is named to the host (`blame.py`). Once
all have answered, the rows that a stage lacks are run again (`rerun.py`), and the session goes on where it
stood: what was under way is fed anew, and what it says does not change by that.
"""

from collections.abc import Callable

from swisd.core import deadlines
from swisd.core.attempt import Attempt
from swisd.core.blame import Blame, holder
from swisd.core.effects import CancelTimer, Notice, Publish, SetTimer
from swisd.core.local import Effects, Local
from swisd.core.messages import Held, Repair
from swisd.core.parked import Prefix
from swisd.core.replay import reachable, spans
from swisd.core.rerun import Rerun, Reruns
from swisd.core.rows import Activation
from swisd.core.session import READ_AGAIN, Session
from swisd.core.types import Plan

MAX_TRIES = 8
QUICK_TRIES = 2
MAX_WAITS = 5
MOST_SLACK = 32.0  # some 20 s in which a step did not move, although everybody answered


class Recovery:
    """The sessions of a driver that are brought back. `feed` is called when one may go on, `give_up` when it
    cannot; `begin` hands rows to the device's own first stage."""

    def __init__(
        self,
        local: Local,
        begin: Callable[[Activation, float, Effects], None],
        feed: Callable[[Session, float, Effects], None],
        give_up: Callable[[Session, str, float, Effects], None],
    ) -> None:
        self._local, self._feed, self._give_up = local, feed, give_up
        self._blame, self._reruns = Blame(local), Reruns(local, begin)
        self._attempts: dict[str, Attempt] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def busy(self, session: str) -> bool:
        """Whether the session waits for answers or for rows that are run again."""
        attempt = self._attempts.get(session)
        return attempt is not None and not attempt.looking

    def start(self, session: Session, why: str, now: float, out: Effects) -> None:
        """Stop feeding the session, and find out what is held of it."""
        before = self._attempts.get(session.key)
        began = before.began if before is not None and not before.looking else now
        session.tries += 1
        if session.tries > MAX_TRIES:
            self.forget(session.key, out)
            self._give_up(session, f"it could not be brought back ({why})", now, out)
            return
        session.slack = 1.0
        session.halt()
        out.append(CancelTimer(f"step:{session.key}"))
        attempt = self._attempts[session.key] = Attempt(session, why, began)
        if session.tries > QUICK_TRIES:  # whatever it is, it lasts
            attempt.pausing = True
            out.append(SetTimer(f"repair:{session.key}", now + deadlines.ANSWER * session.tries))
        else:
            self._ask("resume", attempt, now, out)

    def fork(self, session: Session, prefix: Prefix, now: float, out: Effects) -> None:
        """Begin with what the devices hold of a session that ended."""
        session.take_over(prefix.end)
        self._ask("fork", Attempt(session, "", now, prefix=prefix), now, out)

    def look(self, session: Session, now: float, out: Effects) -> None:
        """A step is late: find out where it is, without forgetting it."""
        if session.key not in self._attempts:
            self._ask("probe", Attempt(session, "a step is late", now, looking=True), now, out)

    def moved(self, session: str, out: Effects) -> None:
        """A late step came round after all."""
        attempt = self._attempts.get(session)
        if attempt is not None and attempt.looking:
            self.forget(session, out)

    def forget(self, session: str, out: Effects) -> None:
        """The session is over, or handed back."""
        if self._attempts.pop(session, None) is not None:
            out.append(CancelTimer(f"repair:{session}"))

    def on_bus(self, now: float, out: Effects) -> None:
        """The bus was reached anew: ask again, and give the others time to reach it, too."""
        for session, attempt in self._attempts.items():
            if attempt.silent:
                attempt.asked = 0
                self._publish(attempt.question, attempt, attempt.silent, out)
                out.append(SetTimer(f"repair:{session}", now + deadlines.REGROUP))

    def on_plan(self) -> None:
        """Another plan is in service."""
        self._blame.clear()

    def on_fail(self, session: Session, repair: Repair, now: float, out: Effects) -> None:
        """A device says that the session is stuck there."""
        attempt = self._attempts.get(session.key)
        asking = attempt is not None and not attempt.looking and bool(attempt.silent)
        waits = attempt is not None and attempt.pausing
        if not asking and not waits and repair.step >= session.floor and repair.epoch == session.epoch:
            self.start(session, repair.note, now, out)

    def on_repair(self, repair: Repair, now: float, out: Effects) -> None:
        """An answer of a device, or the end of a replay."""
        attempt, plan = self._attempts.get(repair.session), self._local.plan
        if attempt is None or plan is None or repair.epoch != plan.epoch:
            return
        if repair.op == "held" and repair.step == attempt.step:
            self._on_held(attempt, repair, plan, now, out)
        elif repair.op == "done" and attempt.rerun and self._reruns.on_done(attempt.rerun, repair, now):
            self._go_on(attempt, now, out)

    def on_timer(self, session: str, now: float, out: Effects) -> None:
        """Answers or replayed rows did not come in time."""
        attempt, plan = self._attempts.get(session), self._local.plan
        if attempt is None or plan is None:
            return
        if attempt.pausing:
            attempt.pausing = False
            self._ask("resume", attempt, now, out)
            return
        if attempt.rerun is not None:
            self._still_running(attempt, attempt.rerun, plan, now, out)
            return
        if not self._local.connected:  # nobody can hear, so nobody is silent
            attempt.asked = 0
            out.append(SetTimer(f"repair:{session}", now + deadlines.ANSWER))
            return
        if now - attempt.began > deadlines.STEP:
            self.forget(session, out)
            self._give_up(attempt.session, f"{self._names(attempt)} does not answer", now, out)
            return
        attempt.asked += 1
        if attempt.asked > 1:  # a word may be lost once
            for device in sorted(attempt.silent):
                self._blame.silent(device, plan, out)
        self._publish(attempt.question, attempt, attempt.silent, out)
        pause = deadlines.ANSWER * min(max(attempt.asked, 1), 5)
        out.append(SetTimer(f"repair:{session}", now + pause))

    # --- one after the other -----------------------------------------------------------------------

    def _ask(self, op: str, attempt: Attempt, now: float, out: Effects) -> None:
        session, plan = attempt.session, self._local.plan
        self._attempts[session.key] = attempt
        stages = plan.stages_of(self._local.device) if plan is not None else ()
        if not stages:
            return
        if op != "probe":
            session.next_step += 1  # older ones are forgotten everywhere
            session.floor = session.next_step
        attempt.step = session.next_step
        attempt.silent = {stage.device for stage in stages}
        self._publish(op, attempt, attempt.silent, out)
        out.append(SetTimer(f"repair:{session.key}", now + deadlines.ANSWER))

    def _publish(self, op: str, attempt: Attempt, devices: set[str], out: Effects) -> None:
        word = attempt.word(op, self._local.device)
        out.extend(Publish(word, to=device) for device in sorted(devices))

    def _on_held(self, attempt: Attempt, repair: Repair, plan: Plan, now: float, out: Effects) -> None:
        """A device says what it holds, or how far it is with rows that are run again."""
        if repair.device in attempt.silent:
            if attempt.on_answer(repair, plan.stages_of(self._local.device)):
                self._judge(attempt, plan, now, out)
        elif (rerun := attempt.rerun) is not None:
            if self._reruns.on_held(rerun, repair.device, repair.held, now):
                self._go_on(attempt, now, out)
            elif rerun.lost(now):
                self.start(attempt.session, "rows that are run again were lost on their way", now, out)

    def _judge(self, attempt: Attempt, plan: Plan, now: float, out: Effects) -> None:
        stages = plan.stages_of(self._local.device)
        if attempt.held.keys() != set(range(len(stages))):
            self.start(attempt.session, "a device answers for other stages than its own", now, out)
            return
        held = [attempt.held[number] for number in range(len(stages))]
        if attempt.looking:
            self._found(attempt, held, plan, now, out)
        elif attempt.prefix is not None and any(item.length < attempt.prefix.end for item in held):
            self._without_prefix(attempt, now, out)
        else:
            self._rebuild(attempt, held, plan, now, out)

    def _without_prefix(self, attempt: Attempt, now: float, out: Effects) -> None:
        """Some device let it go. What was an answer once is then quicker read as a part of the prompt."""
        session = attempt.session
        self.forget(session.key, out)
        session.start_over()
        if session.ask.alone:
            self._give_up(session, READ_AGAIN, now, out)
        else:
            self._feed(session, now, out)

    def _found(self, attempt: Attempt, held: list[Held], plan: Plan, now: float, out: Effects) -> None:
        """Where a late step is: on its way and lost, or with a device that is slow."""
        session = attempt.session
        self.forget(session.key, out)
        step = session.oldest
        if step is None:
            self.start(session, "nothing is under way", now, out)
            return
        stage = holder(held, step, session.running[step].position)
        if stage is None:
            self.start(session, "rows were lost on their way", now, out)
            return
        # Behind rows of others that are run again nobody is slow: a new plan would have all run once more.
        waits = any(other.rerun is not None for other in self._attempts.values())
        if not waits and session.looked >= session.moved + session.patience * session.slack:
            slow = plan.stages_of(self._local.device)[stage].device
            self._blame.late(slow, plan, now, out)
            session.slack *= 2.0
            if session.slack > MOST_SLACK:  # a device that forgot what it had looks like one that is slow
                self.start(session, f"nothing moved on {self._local.name_of(slow)}", now, out)
                return
        out.append(SetTimer(f"step:{session.key}", session.looked + session.patience))

    def _rebuild(self, attempt: Attempt, held: list[Held], plan: Plan, now: float, out: Effects) -> None:
        session = attempt.session
        end = session.line_up(reachable(held, session.first_wanted))
        found = spans(held, end)
        if found and plan.gentle and attempt.waits < MAX_WAITS:  # the last rows that move are on their way
            attempt.waits += 1
            attempt.pausing = True
            session.halt()
            out.append(SetTimer(f"repair:{session.key}", now + deadlines.MOVING))
            return
        attempt.anew = max(0, session.first_wanted - end)
        if not found:
            self._go_on(attempt, now, out)
            return
        attempt.rerun = self._reruns.start(session, found, held, plan, now, out)
        out.append(SetTimer(f"repair:{session.key}", now + deadlines.LOOK))

    def _still_running(self, attempt: Attempt, rerun: Rerun, plan: Plan, now: float, out: Effects) -> None:
        """Rows that are run again take long.

        They are asked after now and then, because the word that they came round may be lost.
        """
        if self._local.connected and self._reruns.stuck(rerun, now):
            self.start(attempt.session, "rows that are run again do not come round", now, out)
            return
        self._publish("probe", attempt, rerun.look(plan.stages_of(self._local.device)), out)
        out.append(SetTimer(f"repair:{attempt.session.key}", now + deadlines.LOOK))

    def _go_on(self, attempt: Attempt, now: float, out: Effects) -> None:
        session = attempt.session
        self.forget(session.key, out)
        took = now - attempt.began
        if attempt.prefix is not None:
            self._feed(session, now, out)
            return
        again = "nothing had to be run again"
        if (rerun := attempt.rerun) is not None:
            again = f"replayed {rerun.rows} positions in {now - rerun.began:.2f} s"
        elif attempt.anew:
            again = f"{attempt.anew} positions are run anew"
        text = f"session {session.key[:6]} goes on after {took:.2f} s ({attempt.why}): {again}"
        out.append(Notice("info", text))
        self._feed(session, now, out)

    def _names(self, attempt: Attempt) -> str:
        return ", ".join(self._local.name_of(device) for device in sorted(attempt.silent))
