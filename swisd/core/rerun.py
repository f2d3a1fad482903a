"""Rows that are run again because stages lack them: who has to send them, and how far they came.

Which rows these are says `replay.py`. The first stage gets its rows from the tokens, any other one from the
journal of the stage before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from swisd.core import deadlines
from swisd.core.effects import Publish
from swisd.core.local import Effects, Local
from swisd.core.messages import Held, Repair
from swisd.core.replay import Span
from swisd.core.rows import Activation
from swisd.core.session import Session
from swisd.core.types import Plan, Slot, Stage


@dataclass(slots=True)
class Rerun:
    """What is run again of one session."""

    began: float
    rows: int
    step: int  # of the first of them
    ran: dict[int, int]  # stage -> how far it was when last heard, in steps
    spans: dict[int, Span]  # those that did not come round yet, by their last stage
    ends: dict[int, int] = field(default_factory=dict)  # last stage of a span -> the step after its last
    patience: float = 0.0  # without any advance, in seconds
    on_the_way: float = 0.0  # seconds for which rows may be between two devices
    looked: bool = False  # it was asked how far they are
    silent: set[str] = field(default_factory=set)  # who did not answer that yet
    places: dict[int, tuple[int, int]] = field(default_factory=dict)  # stage -> steps that came, and have run
    idle_since: float | None = None  # all that came to any stage has run, and nothing moved

    def look(self, stages: Sequence[Stage]) -> set[str]:
        """Ask how far they are: the devices of the pipeline that still have rows to run again."""
        self.looked, self.silent = True, {stages[number].device for number in self._stages()}
        return self.silent

    def on_answer(self, device: str, held: Sequence[Held], now: float) -> None:
        """Where the rows are, by one device's account."""
        stages = self._stages()
        for item in held:
            place = max(item.entered, self.step), max(item.ran, self.step)
            if item.stage in stages and self.places.get(item.stage) != place:
                self.places[item.stage], self.idle_since = place, None
        self.silent.discard(device)
        if not self.silent and self.idle_since is None and self._idle(stages):
            self.idle_since = now

    def lost(self, now: float) -> bool:
        """Whether they are at no device, and were not a while ago: they are not on their way either."""
        idle = self.idle_since
        return not self.silent and idle is not None and now - idle > self.on_the_way

    def _stages(self) -> set[int]:
        return {at for span in self.spans.values() for at in range(span.first, span.until + 1)}

    def _idle(self, stages: set[int]) -> bool:
        places = [self.places.get(stage) for stage in stages]
        return all(place is not None and place[0] == place[1] for place in places)


class Reruns:
    """Has rows of a driver's sessions run again. As long as any session advances, the others wait in line.

    `begin` hands rows to the device's own first stage.
    """

    def __init__(self, local: Local, begin: Callable[[Activation, float, Effects], None]) -> None:
        self._local, self._begin = local, begin
        self._moved_at = 0.0  # when rows that are run again last advanced

    def start(
        self, session: Session, found: list[Span], held: list[Held], plan: Plan, now: float, out: Effects
    ) -> Rerun:
        """Have the spans run again. `held` has one entry a stage, in order."""
        rerun = Rerun(
            began=now,
            rows=sum(span.end - span.start for span in found),
            step=session.next_step,
            ran={number: item.ran for number, item in enumerate(held)},
            spans={span.until: span for span in found},
        )
        step = session.next_step
        most = rows = 0
        for span in found:
            passes = session.passes(span.start, span.end)
            most = max(most, len(passes))
            rerun.ends[span.until] = step + len(passes)
            rows = max(rows, *(len(item.ids) for item in passes))
            if span.first > 0:
                sender = plan.stages_of(self._local.device)[span.first - 1].device
                word = Repair(
                    "replay", session.key, plan.epoch, step, self._local.device,
                    stage=span.first - 1, until=span.until, start=span.start, end=span.end,
                )  # fmt: skip
                out.append(Publish(word, to=sender))
        session.next_step = step + most + 1
        self._from_tokens(session, found, plan, step, now, out)
        longest = max(rows * plan.prediction.prompt_token_ms, *plan.prediction.stage_ms, 0.0) / 1000.0
        rerun.patience = _patience(session, longest)
        rerun.on_the_way = deadlines.ON_THE_WAY * _times(session) + 2.0 * longest
        return rerun

    def on_held(self, rerun: Rerun, device: str, held: Sequence[Held], now: float) -> bool:
        """A device says how far it is. Returns True if all has come round by this."""
        rerun.on_answer(device, held, now)
        for item in held:
            if item.ran == rerun.ran.get(item.stage, item.ran):
                continue
            rerun.ran[item.stage], self._moved_at = item.ran, now
            if item.stage in rerun.spans and item.ran >= rerun.ends[item.stage]:
                del rerun.spans[item.stage]  # the word of it was lost
        return not rerun.spans

    def on_done(self, rerun: Rerun, repair: Repair, now: float) -> bool:
        """A span came round. Returns True if it was the last."""
        span = rerun.spans.get(repair.until)
        if span is None or span.end != repair.end:
            return False
        self._moved_at = now
        del rerun.spans[repair.until]
        return not rerun.spans

    def stuck(self, rerun: Rerun, now: float) -> bool:
        """Whether nothing advances, of any session, although it was asked after."""
        return rerun.looked and now - max(self._moved_at, rerun.began) > rerun.patience

    def _from_tokens(
        self, session: Session, found: list[Span], plan: Plan, step: int, now: float, out: Effects
    ) -> None:
        pipeline = plan.number_of(self._local.device) or 0
        for span in found:
            if span.first == 0:
                passes = session.passes(span.start, span.end)
                for number, item in enumerate(passes):
                    slot = Slot(
                        session.key, step + number, item.position, len(item.ids), int(item is passes[-1])
                    )
                    rows = Activation(plan.epoch, pipeline, 0, (slot,), slot.rows, item.ids, span.until)
                    self._begin(rows, now, out)


def _patience(session: Session, longest: float) -> float:
    """Seconds without any advance before rows are run again once more; the longest pass takes `longest`."""
    return deadlines.REPLAY * _times(session) + deadlines.ROUND_TIMES * longest


def _times(session: Session) -> float:
    """What was given up may wait in line still, or on a slow link: each try has twice the time."""
    return 2.0 ** min(session.tries - 1, 4)
