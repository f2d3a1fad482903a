"""Steps in the computing thread: what is next in line runs, and its answer is told."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import cache, partial

from swisd.core.effects import RunStep
from swisd.core.errors import SwisdError
from swisd.core.events import Event, StepDone, StepFailed
from swisd.core.expected import is_asked
from swisd.node.foreseen import Foreseen, row_behind
from swisd.node.hops import HopTimes
from swisd.node.onward import Onward
from swisd.node.shards import Shards
from swisd.node.steps import Steps

log = logging.getLogger(__name__)
# Of the time of a pass, for which a row waits for one that is about to come: two rows in one pass take much
# less than two passes.
WAIT = 0.25


class Stepping:
    """Takes steps from the line and runs them; what the loop sets are `line`, `coming` and `heard`.

    `coming` is a step that is about to be asked for, as long as it is not: a pass that runs in slices may
    have served it meanwhile, and to run it again behind those that followed would take their rows away.
    """

    def __init__(self, shards: Shards, times: HopTimes, tell: Callable[..., None]) -> None:
        self._shards, self._times, self._tell = shards, times, tell
        self.line = Steps()
        self.turn_ms = 0.0  # what handing a step to this thread and its answer back costs
        self.submitted = 0.0  # when the last steps were handed over
        self.onward: Onward | None = None  # once there are lanes
        self.coming: RunStep | None = None
        self._told = self.heard = 0  # times that steps were told, and that the loop heard of it
        # Run before it is asked for; nothing else was done since.
        self._foreseen: Foreseen | None = None  # behind a token
        self._early: tuple[RunStep, Sequence[Event]] | None = None  # just arrived

    def interrupt(self) -> None:
        """Something else is done, and may touch the caches."""
        self._foreseen = self._early = None

    def begin(self) -> bool:
        """Run the step that is coming, as `run_early` says, unless it was asked for."""
        effect, self.coming = self.coming, None
        return effect is None or self.run_early(effect)

    def run_early(self, effect: RunStep) -> bool:
        """Run a step before it is asked for, unless others wait, and send its rows on.

        Returns False where it ran and its rows are not sent: they wait until it is asked for.
        """
        if not self.line.idle({effect.work.session}):
            return True
        self.interrupt()
        try:
            (event,) = self._sent_on([effect], self._run(0, [effect]))
        except Exception as error:  # noqa: BLE001 - once it is asked for it fails again, and that is told
            log.debug("a step does not run early: %s", error)
            return True
        if not isinstance(event, StepDone):
            return True
        self._early = effect, [event]
        return event.sent or not effect.onward

    def take(self, part: int) -> None:
        """Run what is next of this part of the line, if anything is left of it."""
        effects = self.line.take(part)
        if not effects:
            return
        (foreseen, self._foreseen), (begun, self._early) = (self._foreseen, None), (self._early, None)
        if begun is not None and len(effects) == 1 and is_asked(effects[0], begun[0]):
            self._say(effects, begun[1])
            self._foresee(effects, begun[1])
            return
        early: list[RunStep] = []
        rest: list[RunStep] = []
        for effect in effects:
            (early if foreseen is not None and foreseen.serves(effect) else rest).append(effect)
        if foreseen is None or not early:
            answers = self._all(effects, partial(self._run, part))
            self._foresee(effects, answers)
            return
        answers = self._all(early, foreseen.take)
        if rest:  # those that were early come again in a moment, and may join them
            self.line.put_back(rest, part)
            self.take(part)
        elif foreseen.rows:
            self._foreseen = foreseen
        else:
            self._foresee(early, answers)

    def _foresee(self, effects: Sequence[RunStep], answers: Sequence[Event]) -> None:
        """Go on with what will be asked for, unless others wait, or are about to come."""
        if not self.line.idle({effect.work.session for effect in effects}):
            return
        try:
            _, foresee = passes()
            self._foreseen = foresee(effects, answers, self._shards.get)
        except Exception as error:  # noqa: BLE001 - once it is asked for it fails again, and that is told
            log.debug("nothing runs ahead: %s", error)

    def _all(
        self, effects: Sequence[RunStep], work: Callable[[Sequence[RunStep]], Sequence[Event]]
    ) -> Sequence[Event]:
        """Run steps in one pass, and each alone where that fails: the others are not to blame for one."""
        try:
            events = work(effects)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told and logged
            if len(effects) > 1:
                return [event for effect in effects for event in self._all([effect], work)]
            events = [StepFailed(effects[0].work, reason_of(error))]
        events = self._sent_on(effects, events)
        self._say(effects, events)
        return events

    def _sent_on(self, effects: Sequence[RunStep], events: Sequence[Event]) -> Sequence[Event]:
        if self.onward is None or self._told != self.heard:  # else these would overtake some
            return events
        return self.onward.send(effects, events)

    def _say(self, effects: Sequence[RunStep], events: Sequence[Event]) -> None:
        self._expect(effects, events)
        self._told += 1
        self._tell(*events)

    def _expect(self, effects: Sequence[RunStep], events: Sequence[Event]) -> None:
        """Sessions that others may share a pass with will come back with their tokens' rows."""
        for effect, event in zip(effects, events, strict=True):
            if effect.together < 2 or effect.activation.rows != 1 or not isinstance(event, StepDone):
                continue
            if (row := row_behind(effect, event)) is not None:
                until = time.monotonic() + WAIT * event.ran_ms / 1000.0
                self.line.expect(row.slot.session, row.units, until)

    def _run(self, part: int, effects: Sequence[RunStep]) -> Sequence[Event]:
        shard = self._shards.get(effects[0].units)
        if shard is None:
            start, end = effects[0].units
            reason = f"units {start} to {end} are not loaded"
            return [StepFailed(effect.work, reason) for effect in effects]
        if len(effects) == 1 and effects[0].activation.rows == 1:
            self._times.started(self.submitted)
        between = partial(self._between, effects[0].work.session, part) if self.line.busy() else None
        run, _ = passes()
        return run(shard, effects, self.turn_ms, between)

    def _between(self, session: str, part: int) -> None:
        """Others' turn between two slices of a long step."""
        if effects := self.line.take_between(part, session):
            self._all(effects, partial(self._run, part))


@cache
def passes() -> tuple[Callable[..., list[StepDone]], Callable[..., Foreseen | None]]:
    """`run` and `foresee`: they bring numpy, so not before there is something to run.

    Kept, as an import looks up a dozen things that are in no cache between two passes.
    """
    from swisd.node.running import foresee, run

    return run, foresee


def reason_of(error: Exception) -> str:
    """What went wrong, for other devices; what nobody foresaw goes to the log in full."""
    if isinstance(error, SwisdError):
        return str(error)
    log.warning("computing failed", exc_info=error)
    return f"{type(error).__name__}: {error}"
