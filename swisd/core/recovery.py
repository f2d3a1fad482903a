"""How a driver brings a session back to life when a step does not come round, or under a new plan.

It asks each device of the plan what it holds. Whoever does not answer is named to the host. Once all have
answered, the rows that a stage lacks are run again (`replay.py`), and the session goes on where it stood:
what was under way is fed anew, and what it says does not change by that.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from swisd.core import deadlines
from swisd.core.effects import Activation, CancelTimer, Notice, Publish, SetTimer
from swisd.core.local import Effects, Local
from swisd.core.messages import Call, Held, Repair
from swisd.core.parked import Prefix
from swisd.core.replay import Span, reachable, spans
from swisd.core.session import READ_AGAIN, Session
from swisd.core.types import Plan, Slot

MAX_TRIES = 8
QUICK_TRIES = 2
MAX_WAITS = 5
MOST_SLACK = 32.0  # some 20 s in which a step did not move, although everybody answered


@dataclass(slots=True)
class Attempt:
    """One try to bring a session back: who still has to answer, what they hold, what is run again."""

    session: Session
    why: str
    began: float
    step: int = 0  # answers name it, and rows from it on are new
    looking: bool = False  # only a look: nothing was forgotten yet
    pausing: bool = False  # before it is tried again
    prefix: Prefix | None = None  # what it begins with
    asked: int = 0  # times that those who do not answer were asked
    silent: set[str] = field(default_factory=set)
    held: dict[int, Held] = field(default_factory=dict)
    running: dict[int, Span] = field(default_factory=dict)  # spans that are run again, by their last stage
    ends: dict[int, int] = field(default_factory=dict)  # last stage of a span -> the step after its last
    ran: dict[int, int] = field(default_factory=dict)  # stage -> how far it was when last heard, in steps
    replay_at: float = 0.0  # when rows began to be run again
    looked: bool = False  # it was asked how far they are
    patience: float = 0.0  # without any advance, in seconds
    rows: int = 0
    anew: int = 0  # positions that nobody holds: they are run as if for the first time
    waits: int = 0  # times that caches on their way are waited for


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
        self._local, self._begin, self._feed, self._give_up = local, begin, feed, give_up
        self._attempts: dict[str, Attempt] = {}
        self._named: set[tuple[int, str]] = set()  # (epoch, device) that the host was told of
        self._moved_at = 0.0  # when rows that are run again last advanced
        self._strikes: dict[str, list[float]] = {}  # device -> when it was found late

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
                self._publish(_question(attempt), attempt, attempt.silent, out)
                out.append(SetTimer(f"repair:{session}", now + deadlines.REGROUP))

    def on_plan(self) -> None:
        """Another plan is in service: who was silent or late under the old one starts with a clean slate."""
        self._named.clear()
        self._strikes.clear()

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
        if repair.op == "held" and repair.step == attempt.step and repair.device in attempt.silent:
            attempt.silent.discard(repair.device)
            stages = plan.pipelines[0].stages
            mine = {number for number, stage in enumerate(stages) if stage.device == repair.device}
            attempt.held.update({item.stage: item for item in repair.held if item.stage in mine})
            if not attempt.silent:
                self._judge(attempt, plan, now, out)
        elif repair.op == "held" and repair.step == attempt.step and attempt.running:
            self._note_advance(attempt, repair.held, now, out)
        elif repair.op == "done":
            span = attempt.running.get(repair.until)
            if span is not None and span.end == repair.end:
                self._note_done(attempt, span, now, out)

    def on_timer(self, session: str, now: float, out: Effects) -> None:
        """Answers or replayed rows did not come in time."""
        attempt, plan = self._attempts.get(session), self._local.plan
        if attempt is None or plan is None:
            return
        if attempt.pausing:
            attempt.pausing = False
            self._ask("resume", attempt, now, out)
            return
        if not attempt.silent:
            self._still_running(attempt, plan, now, out)
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
                self._name("suspect", device, plan, f"{self._local.name_of(device)} does not answer", out)
        self._publish(_question(attempt), attempt, attempt.silent, out)
        pause = deadlines.ANSWER * min(max(attempt.asked, 1), 5)
        out.append(SetTimer(f"repair:{session}", now + pause))

    # --- one after the other -----------------------------------------------------------------------

    def _ask(self, op: str, attempt: Attempt, now: float, out: Effects) -> None:
        session, plan = attempt.session, self._local.plan
        self._attempts[session.key] = attempt
        if plan is None or not plan.pipelines:
            return
        if op != "probe":
            session.next_step += 1  # older ones are forgotten everywhere
            session.floor = session.next_step
        attempt.step = session.next_step
        attempt.silent = {stage.device for stage in plan.pipelines[0].stages}
        self._publish(op, attempt, attempt.silent, out)
        out.append(SetTimer(f"repair:{session.key}", now + deadlines.ANSWER))

    def _publish(self, op: str, attempt: Attempt, devices: set[str], out: Effects) -> None:
        session = attempt.session
        word = Repair(op, session.key, session.epoch, attempt.step, self._local.device)  # type: ignore[arg-type]
        if op == "fork" and (prefix := attempt.prefix) is not None:
            word = replace(word, source=prefix.session, end=prefix.end, keep=prefix.keep)
        out.extend(Publish(word, to=device) for device in sorted(devices))

    def _judge(self, attempt: Attempt, plan: Plan, now: float, out: Effects) -> None:
        stages = plan.pipelines[0].stages
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
        position = session.running[step].position
        waiting = next((item.stage for item in held if item.entered <= step or item.length <= position), None)
        if waiting is not None and (waiting == 0 or held[waiting - 1].ran > step):
            self.start(session, "rows were lost on their way", now, out)
            return
        slow = plan.pipelines[0].stages[(waiting if waiting is not None else len(held)) - 1].device
        strikes = self._strikes.setdefault(slow, [])
        strikes[:] = [*(at for at in strikes if now - at < deadlines.STRIKES_WITHIN), now]
        if len(strikes) >= deadlines.STRIKES:
            name = self._local.name_of(slow)
            self._name("slow", slow, plan, f"{name} was late {len(strikes)} times within a minute", out)
        session.slack *= 2.0
        if session.slack > MOST_SLACK:  # a device that forgot what it had looks like one that is slow
            self.start(session, f"nothing moved on {self._local.name_of(slow)}", now, out)
            return
        out.append(SetTimer(f"step:{session.key}", now + deadlines.ANSWER * session.slack))

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
        attempt.replay_at = now
        attempt.running = {span.until: span for span in found}
        attempt.rows = sum(span.end - span.start for span in found)
        attempt.anew = max(0, session.first_wanted - end)
        attempt.ran = {number: item.ran for number, item in enumerate(held)}
        if not found:
            self._go_on(attempt, now, out)
            return
        step = session.next_step
        most = rows = 0
        for span in found:
            passes = session.passes(span.start, span.end)
            most = max(most, len(passes))
            attempt.ends[span.until] = step + len(passes)
            rows = max(rows, *(len(item.ids) for item in passes))
            if span.first > 0:
                sender = plan.pipelines[0].stages[span.first - 1].device
                word = Repair(
                    "replay", session.key, plan.epoch, step, self._local.device,
                    stage=span.first - 1, until=span.until, start=span.start, end=span.end,
                )  # fmt: skip
                out.append(Publish(word, to=sender))
        session.next_step = step + most + 1
        self._from_tokens(session, found, plan, step, now, out)
        attempt.patience = _replay_s(session, rows, plan)
        out.append(SetTimer(f"repair:{session.key}", now + deadlines.REPLAY))

    def _from_tokens(
        self, session: Session, found: list[Span], plan: Plan, step: int, now: float, out: Effects
    ) -> None:
        for span in found:
            if span.first == 0:
                passes = session.passes(span.start, span.end)
                for number, item in enumerate(passes):
                    slot = Slot(
                        session.key, step + number, item.position, len(item.ids), int(item is passes[-1])
                    )
                    self._begin(
                        Activation(plan.epoch, 0, 0, (slot,), slot.rows, item.ids, span.until), now, out
                    )

    def _note_advance(self, attempt: Attempt, held: tuple[Held, ...], now: float, out: Effects) -> None:
        """How far a device is with rows that are run again."""
        for item in held:
            if item.ran == attempt.ran.get(item.stage, item.ran):
                continue
            attempt.ran[item.stage], self._moved_at = item.ran, now
            span = attempt.running.get(item.stage)
            if span is not None and item.ran >= attempt.ends[item.stage]:
                self._note_done(attempt, span, now, out)  # the word of it was lost

    def _note_done(self, attempt: Attempt, span: Span, now: float, out: Effects) -> None:
        self._moved_at = now
        del attempt.running[span.until]
        if not attempt.running:
            self._go_on(attempt, now, out)

    def _still_running(self, attempt: Attempt, plan: Plan, now: float, out: Effects) -> None:
        """Rows that are run again take long: as long as any session's advance, the others wait in line.

        They are asked after now and then, because the word that they came round may be lost.
        """
        since = max(self._moved_at, attempt.replay_at)
        if self._local.connected and attempt.looked and now - since > attempt.patience:
            self.start(attempt.session, "rows that are run again do not come round", now, out)
            return
        attempt.looked = True
        stages = plan.pipelines[0].stages
        numbers = {at for span in attempt.running.values() for at in range(span.first, span.until + 1)}
        self._publish("probe", attempt, {stages[number].device for number in numbers}, out)
        out.append(SetTimer(f"repair:{attempt.session.key}", now + deadlines.REPLAY))

    def _go_on(self, attempt: Attempt, now: float, out: Effects) -> None:
        session = attempt.session
        self.forget(session.key, out)
        took = now - attempt.began
        if attempt.prefix is not None:
            self._feed(session, now, out)
            return
        again = "nothing had to be run again"
        if attempt.rows:
            again = f"replayed {attempt.rows} positions in {now - attempt.replay_at:.2f} s"
        elif attempt.anew:
            again = f"{attempt.anew} positions are run anew"
        text = f"session {session.key[:6]} goes on after {took:.2f} s ({attempt.why}): {again}"
        out.append(Notice("info", text))
        self._feed(session, now, out)

    # --- words -------------------------------------------------------------------------------------

    def _name(self, op: str, device: str, plan: Plan, note: str, out: Effects) -> None:
        if device == self._local.device or (plan.epoch, device) in self._named:
            return
        self._named.add((plan.epoch, device))
        out.append(Notice("warning", note))
        call = Call(op, self._local.device, about=device, epoch=plan.epoch, note=note[:500])  # type: ignore[arg-type]
        out.append(Publish(call))

    def _names(self, attempt: Attempt) -> str:
        return ", ".join(self._local.name_of(device) for device in sorted(attempt.silent))


def _replay_s(session: Session, rows: int, plan: Plan) -> float:
    """Seconds without any advance before rows are run again once more; `rows` has the longest pass.

    What was given up may still wait in line on a slow device, so each try has twice the time of the last.
    """
    pause = deadlines.REPLAY * 2.0 ** min(session.tries - 1, 4)
    longest = max(rows * plan.prediction.prompt_token_ms, *plan.prediction.stage_ms, 0.0)
    return pause + deadlines.ROUND_TIMES * longest / 1000.0


def _question(attempt: Attempt) -> str:
    """What a device is asked that did not answer yet."""
    if attempt.looking:
        return "probe"
    return "resume" if attempt.prefix is None else "fork"
