"""What the caches of a device hold of each session, layer by layer, and which of its steps may still run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from swisd.core import deadlines
from swisd.core.replay import STATELESS
from swisd.core.types import Slot, Units

ENDED = 64  # sessions that ended lately are remembered: their rows may still come


@dataclass(slots=True)
class Kept:
    """One session: positions in the caches of each layer, and steps that were run or given up."""

    heard: float
    lengths: dict[int, int] = field(default_factory=dict)  # layer -> positions, once all that waits has run
    done: dict[int, int] = field(default_factory=dict)  # layer -> positions that are there by now
    sure: dict[int, int] = field(default_factory=dict)  # layer -> positions before the first guess
    steps: dict[int, int] = field(default_factory=dict)  # stage -> the step after the last one
    ran: dict[int, int] = field(default_factory=dict)  # stage -> the step after the last one that has run
    least: int = 0  # steps below were given up by the driver
    parked: bool = False  # it ended; its rows are for others
    listed: float = 0.0  # when its driver last said that it runs

    def roll_back(self) -> None:
        """What waits will not run."""
        self.lengths = {layer: min(at, self.done.get(layer, 0)) for layer, at in self.lengths.items()}
        self.done = {layer: at for layer, at in self.done.items() if layer in self.lengths}


class Caches:
    """The sessions that a device holds rows of; no layers at all hold whatever is asked for."""

    def __init__(self) -> None:
        self._sessions: dict[str, Kept] = {}
        self._over: dict[str, tuple[int, float]] = {}  # session -> last step under this plan, when it ended

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[str]:
        """Those that run."""
        return iter([session for session, kept in self._sessions.items() if not kept.parked])

    def parked(self) -> list[str]:
        """Those that ended and whose rows are kept."""
        return [session for session, kept in self._sessions.items() if kept.parked]

    def over(self, session: str) -> bool:
        """Whether the session ended."""
        return session in self._over

    def length(self, session: str, layers: Iterable[int]) -> int:
        """Positions of a session that all of these layers hold."""
        kept = self._sessions.get(session)
        lengths = kept.lengths if kept is not None else {}
        return min((lengths.get(layer, 0) for layer in layers), default=STATELESS)

    def sure(self, session: str, layers: Iterable[int]) -> int:
        """Positions that all of these layers hold and whose tokens are no guesses."""
        kept = self._sessions.get(session)
        if kept is None:
            return 0
        return min(min(kept.lengths.get(layer, 0), kept.sure.get(layer, 0)) for layer in layers)

    def steps(self, session: str, stage: int) -> tuple[int, int]:
        """The steps after the last one that came to a stage, and after the last one that has run there."""
        kept = self._sessions.get(session)
        return (kept.steps.get(stage, 0), kept.ran.get(stage, 0)) if kept is not None else (0, 0)

    def active(self, since: float) -> int:
        """Sessions that ran a step since then."""
        return sum(1 for kept in self._sessions.values() if kept.heard >= since)

    def repeats(self, stage: int, slot: Slot) -> bool:
        """Whether a step was run by this stage already, or given up."""
        kept = self._sessions.get(slot.session)
        return kept is not None and slot.step < max(kept.steps.get(stage, 0), kept.least)

    def enter(self, stage: int, slot: Slot, layers: Iterable[int], now: float) -> None:
        """A stage runs these rows: what lay at their position and behind is replaced."""
        kept = self._known(slot.session, now)
        kept.heard = now
        kept.steps[stage] = slot.step + 1
        for layer in layers:
            kept.lengths[layer] = slot.position + slot.rows
            if not slot.guess:
                kept.sure[layer] = slot.position + slot.rows

    def ran(self, stage: int, slot: Slot, layers: Iterable[int]) -> None:
        """These rows are in the caches."""
        if (kept := self._sessions.get(slot.session)) is not None:
            kept.ran[stage] = slot.step + 1
            for layer in layers:
                kept.done[layer] = slot.position + slot.rows
                if kept.parked:  # rows go on before it is told that they ran: its end may be told first
                    kept.lengths[layer] = max(kept.lengths.get(layer, 0), kept.done[layer])

    def give_up(self, session: str, step: int, now: float) -> bool:
        """The driver gave steps below this one up, and goes on with the session.

        False if that is a word from before the session ended: a driver takes up none that ended a moment ago.
        """
        if session in self._over:
            last, at = self._over[session]
            if step <= last and now - at < deadlines.KEEP_DONE:
                return False
            del self._over[session]
        kept = self._known(session, now)
        kept.heard, kept.least = now, max(kept.least, step)
        kept.roll_back()
        return True

    def take(
        self, session: str, units: Units, position: int, rows: int, now: float, stages: set[int]
    ) -> bool:
        """Note rows that another device gives for layers of these stages.

        Returns False if they leave a gap, if nothing is new in them, or if the session runs here already.
        """
        layers = range(*units)
        if self.over(session) or not position <= self.length(session, layers) < position + rows:
            return False
        kept = self._known(session, now)
        if stages & kept.steps.keys():
            return False
        kept.heard = now
        for layer in layers:
            kept.lengths[layer] = kept.done[layer] = kept.sure[layer] = position + rows
        return True

    def lose(self, session: str, layers: Iterable[int]) -> None:
        """These layers hold nothing of a session after all."""
        if (kept := self._sessions.get(session)) is not None:
            for layer in kept.lengths.keys() & set(layers):
                kept.lengths[layer] = kept.done[layer] = 0

    def keep(self, layers: set[int]) -> list[str]:
        """Another plan: only these layers stay, and steps count anew. Returns the sessions that are gone."""
        self._over = {session: (-1, at) for session, (_, at) in self._over.items()}
        gone = []
        for session, kept in list(self._sessions.items()):
            kept.lengths = {layer: at for layer, at in kept.lengths.items() if layer in layers}
            kept.sure = {layer: at for layer, at in kept.sure.items() if layer in layers}
            kept.roll_back()
            kept.steps, kept.ran, kept.least = {}, {}, 0
            if not kept.lengths:
                del self._sessions[session]
                gone.append(session)
        return gone

    def end(self, session: str, now: float) -> bool:
        """The session is over: rows of it that still come are refused. Returns True if some were held."""
        self._note_end(session, now)
        return self.forget(session)

    def park(self, session: str, now: float) -> None:
        """The session is over, and what it holds stays."""
        self._note_end(session, now)
        if (kept := self._sessions.get(session)) is not None:
            kept.parked, kept.heard = True, now
            kept.roll_back()

    def fork(self, source: str, session: str, end: int, now: float, *, keep: bool) -> bool:
        """A session that holds nothing begins with what a parked one holds before `end`. False if not."""
        kept = self._sessions.get(source)
        if kept is None or not kept.parked or session in self._sessions or self.over(session):
            return False
        if not kept.lengths or min(kept.lengths.values()) < end:
            return False
        there = dict.fromkeys(kept.lengths, end)
        self._sessions[session] = Kept(now, lengths=there, done=dict(there), sure=dict(there))
        if keep:
            kept.heard = now
        else:
            del self._sessions[source]
        return True

    def _note_end(self, session: str, now: float) -> None:
        kept = self._sessions.get(session)
        if kept is not None or session not in self._over:
            last = max([*(step - 1 for step in kept.steps.values()), kept.least]) if kept is not None else -1
            self._over[session] = last, now
        while len(self._over) > ENDED:
            del self._over[next(iter(self._over))]

    def forget_ended(self, now: float) -> None:
        """Of sessions that ended long ago no rows come any more."""
        long_ago = now - deadlines.KEEP_DONE
        self._over = {session: item for session, item in self._over.items() if item[1] > long_ago}

    def forget(self, session: str) -> bool:
        """Hold nothing of a session, which may go on. Returns True if rows of it were held."""
        return self._sessions.pop(session, None) is not None

    def beyond(self, room: int, session: str) -> list[str]:
        """Forget the sessions that were heard least lately, but this, until the rest fits the room."""
        if len(self._sessions) < 2:
            return []
        held = {key: max(kept.lengths.values(), default=0) for key, kept in self._sessions.items()}
        gone: list[str] = []
        while len(held) > 1 and sum(held.values()) > room:
            gone.append(
                min((key for key in held if key != session), key=lambda key: self._sessions[key].heard)
            )
            del held[gone[-1]], self._sessions[gone[-1]]
        return gone

    def list_running(self, sessions: Iterable[str], now: float) -> None:
        """These run, though their rows may be in line elsewhere."""
        for session in sessions:
            if (kept := self._sessions.get(session)) is not None:
                kept.listed = now

    def silent(self, now: float, seconds: float) -> list[str]:
        """Sessions of which nothing was heard for so long; those that ended are kept longer."""
        return [
            session
            for session, kept in self._sessions.items()
            if now - max(kept.heard, kept.listed) > seconds + deadlines.PARKED * kept.parked
        ]

    def _known(self, session: str, now: float) -> Kept:
        return self._sessions.setdefault(session, Kept(now))
