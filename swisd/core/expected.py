"""The next row of a session, which may run as soon as it is here: before the machine hears of it.

Most rows that come are the next of the same session, from the same device. The way to the machine and from it
to the computing thread takes as long as a layer, and what it would say is known. So such a row may run
meanwhile, and go on to the next device. When the machine asks for just that, it is told what became of it;
where it asks for something else, or for nothing, what ran is forgotten: one row too much lies in the caches
behind those that count, and the next one takes its place.
"""

from dataclasses import dataclass

from swisd.core.effects import CancelTimer, Effect, Notice, Publish, RunStep, SendFrame, SetTimer
from swisd.core.events import FrameArrived
from swisd.core.rows import Activation, Work

HARMLESS = (Publish, SendFrame, SetTimer, CancelTimer, Notice)  # they touch neither caches nor plan


@dataclass(frozen=True, slots=True)
class Coming:
    """The row behind a step of one row; behind one that the head answered with `token`."""

    before: RunStep
    token: int | None = None

    @property
    def device(self) -> str:
        """Where it comes from."""
        return self.before.inward

    def asked(self) -> RunStep:
        """What the machine will ask for once the row is here, which has no values yet."""
        before, ran = self.before, self.before.activation
        slot = ran.slots[0].behind()
        row = Activation(ran.epoch, ran.pipeline, ran.stage, (slot,), 1, b"", ran.until)
        work = Work(ran.epoch, ran.stage, slot.session, slot.step)
        sample, following = before.sample, before.following
        if sample is not None and self.token is not None:
            sample, following = sample.after(self.token), following and following.behind()
        return RunStep(work, before.units, row, sample, following=following, onward=before.onward)

    def step(self, event: FrameArrived) -> RunStep | None:
        """What the machine will ask for once it hears of these rows; None if they are not those."""
        ran, rows = self.before.activation, event.activation
        known = ran.epoch, ran.pipeline, ran.stage, ran.until, 1, (ran.slots[0].behind(),)
        if (rows.epoch, rows.pipeline, rows.stage, rows.until, rows.rows, rows.slots) != known:
            return None
        return with_rows(self.asked(), rows) if event.sender == self.device else None


def with_rows(asked: RunStep, rows: Activation) -> RunStep:
    """A step that was known before its rows had values."""
    return RunStep(
        asked.work, asked.units, rows, asked.sample, following=asked.following, onward=asked.onward
    )


class Expected:
    """Hears of all that a machine wants done, and says which step a frame is about to bring."""

    def __init__(self) -> None:
        self._before: RunStep | None = None
        self._coming: Coming | None = None
        self._lent: Coming | None = None
        self._right = False  # the last row that came was the one expected

    def note(self, effect: Effect) -> None:
        """The row behind a step is expected, until anything else is done that may concern it.

        The one that the head answers is so once its token is fed into the first stage.
        """
        if isinstance(effect, RunStep):
            before, self._coming, self._lent = self._before, None, None
            if effect.inward:
                self._before = effect
                self._coming = Coming(effect) if effect.sample is None else None
            elif before is not None and (token := _token_behind(before, effect)) is not None:
                self._coming = Coming(before, token)
            else:
                self._before = None
        elif not isinstance(effect, HARMLESS):
            self._before = self._coming = self._lent = None
            self._right = False

    def step(self, event: FrameArrived) -> RunStep | None:
        """What the machine will ask for once it hears of these rows, if they are those expected.

        They are so only once.
        """
        if self._coming is None:
            return None
        step = self._coming.step(event)
        self._right = step is not None
        if self._right:
            self._coming = None
        return step

    def lend(self) -> Coming | None:
        """The row that is coming, for somebody else who looks out for it, if the last one was foretold."""
        if not self._right or self._coming is None:
            return None
        self._lent, self._coming = self._coming, None
        return self._lent

    def give_back(self, coming: Coming) -> None:
        """Nobody else looks out any more; the row did not come to them."""
        if self._lent is coming:
            self._coming, self._lent = coming, None


def _token_behind(before: RunStep, effect: RunStep) -> int | None:
    """The token that the head answered `before` with, if this step feeds its row into the first stage."""
    slots, payload = effect.activation.slots, effect.activation.payload
    if before.sample is None or effect.work.stage != 0 or len(slots) != 1 or not isinstance(payload, tuple):
        return None
    same = effect.work.epoch == before.work.epoch and slots[0] == before.activation.slots[0].behind()
    return payload[0] if same and len(payload) == 1 else None


def is_asked(asked: RunStep, ran: RunStep) -> bool:
    """Whether a step that ran before it was asked for is the one that is asked for now."""
    known = ran.work, ran.units, ran.sample, ran.score
    wanted = asked.work, asked.units, asked.sample, asked.score
    return asked.activation is ran.activation and wanted == known
