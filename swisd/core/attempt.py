"""One try to bring a session back: what is asked of the devices, who still has to answer, what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from swisd.core.messages import Held, Repair
from swisd.core.parked import Prefix
from swisd.core.rerun import Rerun
from swisd.core.session import Session
from swisd.core.types import Stage


@dataclass(slots=True)
class Attempt:
    """A look after a late step (`looking`), a session that begins with a `prefix`, or one that is resumed."""

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
    rerun: Rerun | None = None  # rows that are run again
    anew: int = 0  # positions that nobody holds: they are run as if for the first time
    waits: int = 0  # times that caches on their way are waited for

    @property
    def question(self) -> str:
        """What a device is asked that did not answer yet."""
        if self.looking:
            return "probe"
        return "resume" if self.prefix is None else "fork"

    def word(self, op: str, sender: str) -> Repair:
        """A question to a device."""
        session = self.session
        word = Repair(op, session.key, session.epoch, self.step, sender)  # type: ignore[arg-type]
        if op == "fork" and (prefix := self.prefix) is not None:
            return replace(word, source=prefix.session, end=prefix.end, keep=prefix.keep)
        return word

    def on_answer(self, repair: Repair, stages: Sequence[Stage]) -> bool:
        """A device that was silent says what it holds. Returns True if it was the last one."""
        self.silent.discard(repair.device)
        mine = {number for number, stage in enumerate(stages) if stage.device == repair.device}
        self.held.update({item.stage: item for item in repair.held if item.stage in mine})
        return not self.silent
