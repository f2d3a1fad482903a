"""The asker of one session: it keeps the truth (prompt, tokens so far, seed) and sees it through to an end.

Pure like the rest of the core: `handle(event, now) -> effects`. If the swarm loses the session, the asker
starts it again under the next plan with the tokens it has, so the stream goes on where it stood.
"""

from swisd.core import deadlines
from swisd.core.answer import Answer
from swisd.core.choice import Crowd, choose
from swisd.core.effects import CancelTimer, Publish, SetTimer
from swisd.core.events import BusChanged, Received, Started, Stopping, Timer
from swisd.core.messages import Ask, Digest, Out
from swisd.core.outlook import LOST, Outlook
from swisd.core.request import Answered, AskerEffect, Ended, Listen, Request, Waiting
from swisd.core.types import FinishReason, Plan

MAX_ATTEMPTS = 64


class Asker:
    """One session from submission to its end.

    It gives up when nothing moved for `patience` seconds (None: `deadlines.PATIENCE`). That the model fits
    nowhere is an answer too: unless told to wait, it gives up on that within `deadlines.NO_FIT`. Askers of
    one client share a `crowd`.
    """

    def __init__(
        self, request: Request, *, patience: float | None = None, crowd: Crowd | None = None
    ) -> None:
        self._request = request
        self._crowd = Crowd() if crowd is None else crowd
        self._driver = ""  # whom it was brought to under the plan `_asked`
        self._patience = deadlines.PATIENCE if patience is None else patience
        self._outlook = Outlook(deadlines.NO_FIT if patience is None else patience)
        self._attempt = 0  # its caches were freed so often, and it began anew
        self._submitted = 0
        self._pause = 0.0
        self._plan: Plan | None = None
        self._asked: Plan | None = None  # the plan under which the running attempt was submitted
        self._answer = Answer(request.emitted)
        self._alone = request.alone
        self._moved = 0.0
        self._said = ""
        self._began = 0.0
        self._elsewhere = False  # a bus was reached anew: its host may be another, with plans of its own
        self.ended = False

    @property
    def session(self) -> str:
        return f"{self._request.session[:14]}{self._attempt:02x}"

    def handle(self, event: object, now: float) -> list[AskerEffect]:
        """Take one event of the bus or a timer."""
        out: list[AskerEffect] = []
        if self.ended:
            return out
        match event:
            case Started():
                self._moved = self._began = now
                out.append(SetTimer("ask", now + deadlines.RENEW))
            case Received(message=Plan() as plan):
                self._on_plan(plan, now, out)
                self._see_whether_it_fits(now, out)
            case Received(message=Digest() as digest):
                self._on_digest(digest, now, out)
                self._see_whether_it_fits(now, out)
            case Received(sender=sender, message=Out() as said):
                self._on_out(sender, said, now, out)
            case Timer(name="ask"):
                self._on_timer(now, out)
            case Timer(name="fit"):
                if self._outlook.hopeless(now):
                    self._end("error", self._why_waiting(), out)
            case Timer(name="again"):
                if self._asked is None and self._plan is not None:
                    self._submit(now, out)
            case BusChanged():
                self._outlook.connected = event.connected
                self._elsewhere = self._elsewhere or event.connected
                if not event.connected:
                    self._tell(LOST, out)
                else:
                    self._renew(out)  # what was said meanwhile is missing
            case Stopping():
                self._cancel(out)
                self._end("cancelled", "", out)
            case _:
                pass
        return out

    def _on_plan(self, plan: Plan, now: float, out: list[AskerEffect]) -> None:
        known = self._plan
        if self._elsewhere:
            self._elsewhere = False
            asked = self._asked
            if asked is not None and plan.host != asked.host and plan.epoch <= asked.epoch:
                self._leave()  # that host never heard of the plan under which this runs
            if known is not None and plan.host != known.host:
                known = None
        if known is not None and plan.epoch < known.epoch:
            return
        if known is not None and plan.epoch == known.epoch and known.active and not plan.active:
            return  # came late
        self._plan = plan
        self._moved = now
        asked = self._asked
        if asked is not None and plan.epoch > asked.epoch:
            if plan.active and self._driver in plan.drivers:
                self._asked = plan  # its driver goes on with the session
                self._renew(out)
            elif plan.active or not plan.pipelines:
                self._leave()
        if self._asked is None:
            self._submit(now, out)

    def _on_digest(self, digest: Digest, now: float, out: list[AskerEffect]) -> None:
        if self._outlook.on_digest(digest):
            self._moved = now
        # What the bus retains comes one after the other: the plan may be on its way behind the digest.
        early = now - self._began < deadlines.BEAT
        if not early and self._asked is None and (self._plan is None or not self._plan.active):
            self._tell(self._why_waiting(), out)

    def _on_out(self, sender: str, said: Out, now: float, out: list[AskerEffect]) -> None:
        if self._asked is None or sender != self._driver:
            return  # a driver of an earlier plan
        if said.session != self.session or self._answer.of_earlier(said):
            return
        self._moved = now
        if said.alive:
            return
        if said.waiting:
            self._tell(f"busy: {said.waiting} before you", out)
            return
        for item in self._answer.in_turn(said):
            self._take(item, now, out)
            if self.ended:
                return

    def _take(self, item: Out, now: float, out: list[AskerEffect]) -> None:
        if item.tokens or item.top_ids:
            self._pause = 0.0
            fresh = self._answer.add(item)
            if item.tokens or fresh.top_ids:
                out.append(Answered(fresh))
        if item.finish is None:
            return
        if item.finish == "error" and item.retry:
            self._leave()
            self._answer.forget_early()
            if item.freed:
                self._attempt += 1  # late words about it must not be taken for words about the next
            # At once could become a loop with no end.
            self._pause = min(2.0 * self._pause or deadlines.AGAIN, deadlines.RENEW)
            out.append(SetTimer("again", now + self._pause))
            self._tell(f"{item.error}; trying again", out)
            return
        self._end(item.finish, item.error, out, item)

    def _submit(self, now: float, out: list[AskerEffect]) -> None:
        plan = self._plan
        if plan is None or not plan.active or not plan.pipelines:
            if plan is not None:
                self._tell(self._why_waiting(), out)
            return
        wanted = self._request.model_id
        if wanted and plan.model_id != wanted:
            advice = f"start its host with `swisd up --model {wanted}`"
            self._end("error", f"the swarm runs {plan.model_id}, not {wanted}: {advice}", out)
            return
        if self._submitted >= MAX_ATTEMPTS:
            self._end(
                "error", f"the session was lost {MAX_ATTEMPTS} times: the swarm is not stable enough", out
            )
            return
        if self._submitted and self._alone and not self._answer.tokens:
            # What the driver knew is lost: all of the prompt is read, and rows of the try before do not fit.
            self._alone = ()
            self._attempt += 1
        self._submitted += 1
        self._asked, self._moved = plan, now
        self._driver = choose(plan, self._crowd.beside(self._outlook.digest), self.session)
        self._crowd.join(self._driver)
        self._answer.submit()
        request, emitted = self._request, tuple(self._answer.tokens)
        out.append(Listen(self.session))
        out.append(
            Publish(
                Ask(
                    "start", self.session, request.asker, plan.epoch, request.prompt, emitted,
                    request.stop_ids, request.max_tokens, request.seed, request.sampling, request.score_top,
                    again=self._submitted > 1 or bool(emitted), alone=self._alone,
                ),
                to=self._driver,
            )
        )  # fmt: skip

    def _leave(self) -> None:
        """The driver has the session no more."""
        if self._asked is not None:
            self._crowd.leave(self._driver)
            self._asked = None

    def _on_timer(self, now: float, out: list[AskerEffect]) -> None:
        out.append(SetTimer("ask", now + deadlines.RENEW))
        if now - self._moved > self._patience:
            self._cancel(out)
            self._end("error", f"nothing moved for {self._patience:.0f} s: {self._why_waiting()}", out)
            return
        if self._asked is not None:
            self._renew(out)
        elif self._plan is not None:
            self._submit(now, out)

    def _renew(self, out: list[AskerEffect]) -> None:
        """Say that somebody listens still, and from which message on."""
        if self._asked is not None:
            index = self._answer.next
            ask = Ask("renew", self.session, self._request.asker, self._asked.epoch, from_index=index)
            out.append(Publish(ask, to=self._driver))

    def _see_whether_it_fits(self, now: float, out: list[AskerEffect]) -> None:
        if self._outlook.closes(self._plan, now, asked=self._asked is not None):
            out.append(SetTimer("fit", now + self._outlook.no_fit))

    def _cancel(self, out: list[AskerEffect]) -> None:
        if self._asked is not None:
            ask = Ask("cancel", self.session, self._request.asker, self._asked.epoch)
            out.append(Publish(ask, to=self._driver))

    def _end(
        self,
        finish: FinishReason,
        error: str,
        out: list[AskerEffect],
        last: Out | None = None,
    ) -> None:
        self.ended, plan = True, self._asked or self._plan
        self._leave()
        out.extend((CancelTimer("ask"), CancelTimer("again"), CancelTimer("fit")))
        told = (last.prompt_ms, self._alone, last.held, last.guessed) if last else (0.0, self._alone)
        out.append(Ended(finish, error, plan, *told))

    def _tell(self, text: str, out: list[AskerEffect]) -> None:
        if text and text != self._said:
            self._said = text
            out.append(Waiting(text))

    def _why_waiting(self) -> str:
        return self._outlook.why(self._plan, asked=self._asked is not None)
