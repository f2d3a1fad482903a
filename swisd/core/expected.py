"""The next row of a session, which may run as soon as it is here: before the machine hears of it.

Most rows that come are the next of the same session, from the same device. The way to the machine and from it
to the computing thread takes as long as a layer, and what it would say is known. So such a row may run
meanwhile, and go on to the next device. When the machine asks for just that, it is told what became of it;
where it asks for something else, or for nothing, what ran is forgotten: one row too much lies in the caches
behind those that count, and the next one takes its place.
"""

from swisd.core.effects import CancelTimer, Effect, Notice, Publish, RunStep, SendFrame, SetTimer, Work
from swisd.core.events import FrameArrived
from swisd.core.types import Slot

HARMLESS = (Publish, SendFrame, SetTimer, CancelTimer, Notice)  # they touch neither caches nor plan


class Expected:
    """Hears of all that a machine wants done, and says which step a frame is about to bring."""

    def __init__(self) -> None:
        self._last: RunStep | None = None

    def note(self, effect: Effect) -> None:
        """The row behind a step is expected, until anything else is done that may concern it."""
        if isinstance(effect, RunStep):
            self._last = effect if effect.inward else None
        elif not isinstance(effect, HARMLESS):
            self._last = None

    def step(self, event: FrameArrived) -> RunStep | None:
        """What the machine will ask for once it hears of these rows, if they are those expected.

        They are so only once.
        """
        last, rows = self._last, event.activation
        if last is None or event.sender != last.inward or len(rows.slots) != 1:
            return None
        before = last.activation
        slot, then = rows.slots[0], before.slots[0]
        known = before.epoch, before.pipeline, before.stage, before.until
        next_one = Slot(then.session, then.step + 1, then.position + 1, 1, 1)
        if (rows.epoch, rows.pipeline, rows.stage, rows.until) != known or slot != next_one or rows.rows != 1:
            return None
        self._last = None
        work = Work(rows.epoch, rows.stage, slot.session, slot.step)
        return RunStep(work, last.units, rows, onward=last.onward)


def is_asked(asked: RunStep, ran: RunStep) -> bool:
    """Whether a step that ran before it was asked for is the one that is asked for now."""
    return asked.activation is ran.activation and (asked.work, asked.units) == (ran.work, ran.units)
