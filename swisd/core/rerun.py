"""Rows that are run again because stages lack them: who has to send them, and how far they came.

Which rows these are says `replay.py`. The first stage gets its rows from the tokens, any other one from the
journal of the stage before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from swisd.core import deadlines
from swisd.core.effects import Activation, Publish
from swisd.core.local import Effects, Local
from swisd.core.messages import Held, Repair
from swisd.core.replay import Span
from swisd.core.session import Session
from swisd.core.types import Plan, Slot, Stage


@dataclass(slots=True)
class Rerun:
    """What is run again of one session."""

    began: float
    rows: int
    ran: dict[int, int]  # stage -> how far it was when last heard, in steps
    spans: dict[int, Span]  # those that did not come round yet, by their last stage
    ends: dict[int, int] = field(default_factory=dict)  # last stage of a span -> the step after its last
    patience: float = 0.0  # without any advance, in seconds
    looked: bool = False  # it was asked how far they are

    def devices(self, stages: Sequence[Stage]) -> set[str]:
        """Those of the pipeline that still have rows to run again."""
        numbers = {at for span in self.spans.values() for at in range(span.first, span.until + 1)}
        return {stages[number].device for number in numbers}


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
        rerun.patience = _patience(session, rows, plan)
        return rerun

    def on_held(self, rerun: Rerun, held: Sequence[Held], now: float) -> bool:
        """A device says how far it is. Returns True if all has come round by this."""
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


def _patience(session: Session, rows: int, plan: Plan) -> float:
    """Seconds without any advance before rows are run again once more; `rows` has the longest pass.

    What was given up may still wait in line on a slow device, so each try has twice the time of the last.
    """
    pause = deadlines.REPLAY * 2.0 ** min(session.tries - 1, 4)
    longest = max(rows * plan.prediction.prompt_token_ms, *plan.prediction.stage_ms, 0.0)
    return pause + deadlines.ROUND_TIMES * longest / 1000.0
