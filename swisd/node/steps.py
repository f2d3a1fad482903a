"""Steps that wait for the computing thread, and which of them it runs next.

One-row steps of several sessions run in one pass, and so do those of one session at positions in a row:
guesses at its next tokens, or tokens that run again. A prompt's long passes run in slices, and between two of
them whatever waits with one row has its turn: nobody's next token waits for another's whole prompt. The steps
of one session keep their order.

Sessions that run here in turn would never meet: while one computes, the other's token is told, and its next
row comes a moment too late. So a row waits for that moment where it is known that others are about to come.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass

from swisd.core.effects import GiveUp, RunStep, given_up
from swisd.core.types import Units

BUSY = 1.0  # seconds
MOST_TOGETHER = 16  # rows of one pass: beyond, a pass takes about as much longer as it serves more
MOST_OF_ONE = 8  # rows of one session: `ROWS` of `swisd.runtime.mirrors`


@dataclass(frozen=True, slots=True)
class _Waiting:
    effect: RunStep
    part: int  # of the line: between two parts something else is done, which keeps its place

    @property
    def session(self) -> str:
        return self.effect.work.session

    @property
    def short(self) -> bool:
        """One row of one session, and no scores: any number of them can share a pass."""
        slots = self.effect.activation.slots
        return len(slots) == 1 and slots[0].rows == 1 and self.effect.score is None

    def follows(self, other: "_Waiting") -> bool:
        """Whether it goes on where `other` ends; both are short, and of one session."""
        position = self.effect.activation.slots[0].position
        return position == other.effect.activation.slots[0].position + 1


class Steps:
    """The line of steps. One thread adds, another takes."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._line: deque[_Waiting] = deque()
        self._due: dict[str, tuple[Units, float]] = {}  # session -> shard of its next row, when it is late
        self._given_up: dict[str, GiveUp] = {}  # by session
        self._short_at = -BUSY  # when one-row steps last ran

    def add(self, effect: RunStep, part: int) -> None:
        with self._lock:
            self._due.pop(effect.work.session, None)
            if self._wanted(effect):
                self._line.append(_Waiting(effect, part))
            self._lock.notify_all()

    def expect(self, session: str, units: Units, until: float) -> None:
        """A row of this session is about to come; until then (`time.monotonic`) others wait to join it."""
        with self._lock:
            self._due[session] = units, until

    def give_up(self, effect: GiveUp) -> None:
        """Steps that are given up by this do not run."""
        with self._lock:
            self._due.pop(effect.session, None)
            self._given_up[effect.session] = effect
            self._line = deque(item for item in self._line if not given_up(item.effect.work, effect))

    def forget(self, session: str) -> None:
        """The session is over."""
        with self._lock:
            self._due.pop(session, None)
            self._given_up.pop(session, None)

    def take(self, part: int) -> list[RunStep]:
        """What runs next of this part of the line: one step, or several with one row. Empty if none waits.

        Several are each of another session, or all of one, in order.
        """
        with self._lock:
            first = self._line[0] if self._line else None
            if first is None or first.part > part:
                return []
            if first.short:
                self._await_company(part)
                return self._short(part, set())
            self._line.popleft()
            return [first.effect]

    def take_between(self, part: int, session: str) -> list[RunStep]:
        """One-row steps to run between two slices of a step of this session."""
        with self._lock:
            return self._short(part, {session})

    def put_back(self, effects: Sequence[RunStep], part: int) -> None:
        """Steps that were taken stand first in line again."""
        with self._lock:
            for effect in reversed(effects):
                if self._wanted(effect):
                    self._line.appendleft(_Waiting(effect, part))

    def idle(self, but: Set[str]) -> bool:
        """Whether nothing waits, and nobody is about to come but these sessions."""
        with self._lock:
            now = time.monotonic()
            return not self._line and all(key in but or until < now for key, (_, until) in self._due.items())

    def busy(self) -> bool:
        """Whether somebody's tokens may have to wait for a long pass: one-row steps ran a moment ago."""
        return time.monotonic() - self._short_at < BUSY

    def _wanted(self, effect: RunStep) -> bool:
        """Whether it was not given up."""
        floor = self._given_up.get(effect.work.session)
        return floor is None or not given_up(effect.work, floor)

    def _await_company(self, part: int) -> None:
        """Wait for rows that can share the pass of the first one here, if any are about to come."""
        while self._line and self._due:
            first = self._line[0].effect
            here = {
                item.session
                for item in self._line
                if item.part <= part and item.short and item.effect.units == first.units
            }
            self._due = {key: due for key, due in self._due.items() if due[1] > time.monotonic()}
            coming = [until for key, (units, until) in self._due.items() if units == first.units]
            if not coming or len(here) >= min(MOST_TOGETHER, first.together):
                return
            self._lock.wait(max(coming) - time.monotonic())

    def _short(self, part: int, met: set[str]) -> list[RunStep]:
        """One-row steps that share a pass with the first of them; `met` are sessions that must wait."""
        taken: list[_Waiting] = []
        if len(self._line) == 1 and not met and (only := self._line[0]).short and only.part <= part:
            self._line.clear()
            self._short_at = time.monotonic()
            return [only.effect]
        for item in self._line:
            if item.part > part:
                break
            if item.short and item.session not in met and _same_pass(taken, item):
                if not taken and len(run := self._run_from(item)) > 1:
                    taken = run
                    break
                taken.append(item)
                if len(taken) >= min(MOST_TOGETHER, taken[0].effect.together):
                    break
            met.add(item.session)
        if not taken:
            return []
        self._short_at = time.monotonic()
        chosen = {id(item) for item in taken}
        self._line = deque(item for item in self._line if id(item) not in chosen)
        return [item.effect for item in taken]

    def _run_from(self, first: _Waiting) -> list[_Waiting]:
        """This step and those of its session that share its pass: each goes on where the one before ends."""
        run: list[_Waiting] = []
        for item in self._line:
            if item.part > first.part or len(run) == MOST_OF_ONE:
                break
            if item is first:
                run.append(item)
            elif run and item.session == first.session:
                if not (item.short and _same_pass(run, item) and item.follows(run[-1])):
                    break
                run.append(item)
        return run


def _same_pass(taken: list[_Waiting], item: _Waiting) -> bool:
    return not taken or item.effect.units == taken[0].effect.units
