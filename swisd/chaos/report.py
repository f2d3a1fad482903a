"""What a round and a campaign showed, as values that become JSON lines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from swisd.chaos.parts import PauseParts
from swisd.core.types import Units


@dataclass(frozen=True, slots=True)
class Struck:
    """A device that was struck. `warm`: spares of all its units were in memory elsewhere."""

    name: str
    role: str
    units: tuple[Units, ...] = ()
    warm: bool = False


@dataclass(frozen=True, slots=True)
class StreamResult:
    """One session beside its undisturbed answer; `problem` is empty if they are identical."""

    identical: bool
    tokens: int
    expected: int
    pause_s: float = 0.0  # longest time between two tokens after the blow
    median_ms: float = 0.0  # between two tokens, over the whole stream
    problem: str = ""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Who does now what the struck device did; `units` are its former ones and `by` who runs them."""

    what: str  # host, driver, or units
    by: tuple[str, ...]
    units: Units | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """One round: who was struck in which role and when, and what came of the streams."""

    number: int
    kind: str  # none, worker, driver, host, host-driver, two
    how: str  # kill, stop, leave
    struck: tuple[Struck, ...] = ()
    at_token: int = 0
    streams: tuple[StreamResult, ...] = ()
    taken_over: tuple[TakenOver, ...] = ()
    epoch_before: int = 0
    epoch_after: int = 0
    parts: PauseParts = field(default_factory=PauseParts)
    note: str = ""
    error: str = ""  # why the round could not be run to its end
    seconds: float = 0.0  # with the way back to a whole swarm

    @property
    def identical(self) -> bool:
        """Whether every stream was, and the round came to its end."""
        return not self.error and bool(self.streams) and all(stream.identical for stream in self.streams)

    @property
    def pause_s(self) -> float:
        return max((stream.pause_s for stream in self.streams), default=0.0)

    @property
    def median_ms(self) -> float:
        return median(stream.median_ms for stream in self.streams) if self.streams else 0.0

    @property
    def warm(self) -> bool:
        """Whether a spare stood by for everything that was struck."""
        return bool(self.struck) and all(each.warm for each in self.struck if each.units)


@dataclass(frozen=True, slots=True)
class RoleSummary:
    """All rounds of one role; pauses in seconds, those with a warm spare for all that was lost apart."""

    kind: str
    rounds: int
    identical: int
    median_pause_s: float
    longest_pause_s: float
    warm_rounds: int
    longest_warm_pause_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole campaign. `failed` are the numbers of the rounds that were not identical."""

    rounds: int
    streams: int
    tokens: int
    identical: int
    failed: tuple[int, ...]
    longest_pause_s: float
    median_token_ms: float
    roles: tuple[RoleSummary, ...]


def summarise(rounds: Sequence[Round]) -> Summary:
    """Fold the rounds, by role in the order in which the roles first came."""
    kinds = dict.fromkeys(each.kind for each in rounds)
    streams = [stream for each in rounds for stream in each.streams]
    times = [each.median_ms for each in rounds if each.streams]
    return Summary(
        rounds=len(rounds),
        streams=len(streams),
        tokens=sum(stream.tokens for stream in streams),
        identical=sum(each.identical for each in rounds),
        failed=tuple(each.number for each in rounds if not each.identical),
        longest_pause_s=max((each.pause_s for each in rounds), default=0.0),
        median_token_ms=round(median(times), 2) if times else 0.0,
        roles=tuple(_role(kind, [each for each in rounds if each.kind == kind]) for kind in kinds),
    )


def _role(kind: str, rounds: Sequence[Round]) -> RoleSummary:
    pauses = [each.pause_s for each in rounds if each.streams]
    warm = [each.pause_s for each in rounds if each.streams and each.warm]
    return RoleSummary(
        kind=kind,
        rounds=len(rounds),
        identical=sum(each.identical for each in rounds),
        median_pause_s=round(median(pauses), 3) if pauses else 0.0,
        longest_pause_s=max(pauses, default=0.0),
        warm_rounds=len(warm),
        longest_warm_pause_s=max(warm, default=0.0),
    )
