"""What a run of `swisd bench` found: the value behind the table, `--json` and a line of the history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Annotated, Literal

from swisd.bench.figures import Several, Single, middle, middle_of_several, paired_ratio
from swisd.core.checked import Items, Range, Text
from swisd.core.messages import Digest
from swisd.core.types import Beyond, Bytes, HopParts, Name, Note, Plan

Figure = Annotated[float, Range(0.0, 1e9)]
Count = Annotated[int, Range(0, 1 << 31)]
Kind = Literal["solo", "swarm", "llama.cpp"]


@dataclass(frozen=True, slots=True)
class DevicePart:
    """One device of a plan: compute in ms a token, and bytes of its shards, as it says itself."""

    name: Name
    compute_ms: Figure
    resident_bytes: Bytes


@dataclass(frozen=True, slots=True)
class Hop:
    """One hop beyond computing, in ms: from the end of computing on a device to its begin on the next.

    `p50_ms` and `p99_ms` are measured by the driver for each step round the swarm, whole less computed, and
    divided by the hops. The parts belong to the median: `wait_ms`, `machine_ms` and `serialise_ms` are what
    the devices measured of themselves, and `wire_ms` is the rest, so it needs no common clock.
    """

    p50_ms: Figure
    p99_ms: Figure
    serialise_ms: Figure
    wire_ms: Figure
    wait_ms: Figure
    machine_ms: Figure


@dataclass(frozen=True, slots=True)
class Way:
    """Where one token's time goes, in ms, as the devices tell it.

    `whole_ms` is a step round the swarm, measured by the driver; `devices` have the compute. `link_ms` is
    what the planner expects of the measured links for all hops. `rest_ms` is the whole without compute: hops,
    and the driver's own work between two steps. `hop` is None without a hop, and in older runs.
    """

    whole_ms: Figure
    compute_ms: Figure
    rest_ms: Figure
    link_ms: Figure
    hops: Count
    devices: Annotated[tuple[DevicePart, ...], Items(2048)]
    hop: Hop | None = None

    @property
    def rest_per_hop_ms(self) -> float:
        """0 without a hop."""
        return self.rest_ms / self.hops if self.hops else 0.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """Several questions at once. `gain`: total speed against one question; `vs_solo`: against one device."""

    requests: Count
    gain: Figure | None
    vs_solo: Figure | None
    total_per_s: Figure
    each_per_s: Figure
    first_ms: Figure
    p50_ms: Figure
    p99_ms: Figure


@dataclass(frozen=True, slots=True)
class Side:
    """One contender's medians. Ratios above 1: faster than the other. `shape`: what its plan is like."""

    name: Name
    kind: Kind
    lane: Name
    shape: Note
    decode_vs_solo: Figure | None
    decode_vs_llama: Figure | None
    prefill_vs_solo: Figure | None
    prefill_vs_llama: Figure | None
    tokens_per_s: Figure
    first_ms: Figure
    p50_ms: Figure
    p99_ms: Figure
    prefill_ms: Figure  # for 256 tokens
    crowds: Annotated[tuple[Crowd, ...], Items(32)] = ()
    way: Way | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `at`: ms since 1970; `where`: "local", or the id of the swarm; `tokens` of an answer."""

    at: Annotated[int, Range(0, 1 << 62)]
    version: Annotated[str, Text(64)]
    where: Annotated[str, Text(64)]
    model: Annotated[str, Text(200)]
    quick: bool
    rounds: Count
    tokens: Count
    sides: Annotated[tuple[Side, ...], Items(16, least=1)]
    notes: Annotated[tuple[Note, ...], Items(64)] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What a contender is, and its turns, one a round; `crowds` by the number of questions at once."""

    name: str
    kind: Kind
    lane: str
    shape: str
    turns: Sequence[Single]
    crowds: Mapping[int, Sequence[Several]]
    way: Way | None


def sides(told: Sequence[Told]) -> tuple[Side, ...]:
    """The medians of all contenders, each beside one device alone and llama.cpp where these took part."""
    solo = next((each for each in told if each.kind == "solo"), None)
    llama = next((each for each in told if each.kind == "llama.cpp"), None)
    return tuple(_side(each, solo, llama) for each in told)


def _side(each: Told, solo: Told | None, llama: Told | None) -> Side:
    found = middle(each.turns)
    return Side(
        each.name,
        each.kind,
        each.lane,
        each.shape,
        _decode_ratio(each, solo),
        _decode_ratio(each, llama),
        _prefill_ratio(each, solo),
        _prefill_ratio(each, llama),
        round(found.tokens_per_s, 3),
        round(found.first_ms, 3),
        round(found.p50_ms, 3),
        round(found.p99_ms, 3),
        round(found.prefill_ms, 3),
        tuple(_crowd(number, each, solo) for number in each.crowds),
        each.way,
    )


def _decode_ratio(each: Told, other: Told | None) -> float | None:
    if other is None or other is each:
        return None
    return _rounded(paired_ratio([t.tokens_per_s for t in each.turns], [t.tokens_per_s for t in other.turns]))


def _prefill_ratio(each: Told, other: Told | None) -> float | None:
    if other is None or other is each:
        return None
    return _rounded(paired_ratio([t.prefill_ms for t in other.turns], [t.prefill_ms for t in each.turns]))


def _crowd(number: int, each: Told, solo: Told | None) -> Crowd:
    found = middle_of_several(each.crowds[number])

    def ratio(other: Told | None, of: int) -> float | None:
        if other is None or of not in other.crowds or (other is each and of == number):
            return None
        return _rounded(_totals_ratio(each.crowds[number], other.crowds[of]))

    return Crowd(
        number,
        ratio(each, 1),
        ratio(solo, number),
        round(found.total_per_s, 3),
        round(found.each_per_s, 3),
        round(found.first_ms, 3),
        round(found.p50_ms, 3),
        round(found.p99_ms, 3),
    )


def _totals_ratio(above: Sequence[Several], below: Sequence[Several]) -> float | None:
    return paired_ratio([t.total_per_s for t in above], [t.total_per_s for t in below])


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)


def shape_of(plan: Plan) -> str:
    """What a plan must share with another one to be compared: devices, stages and pipelines, not the cuts.

    Cuts move by a layer from run to run, as the devices measure themselves a little differently.
    """
    stages = [stage for pipeline in plan.pipelines for stage in pipeline.stages]
    devices = len({member.device for stage in stages for member in stage.members})
    words = [_count(devices, "device"), _count(len(stages), "stage")]
    if len(plan.pipelines) > 1:
        words.append(_count(len(plan.pipelines), "pipeline"))
    return ", ".join(words)


def way_of(plan: Plan, digest: Digest) -> Way | None:
    """Where a token's time goes; None where the driver or a device of the plan does not tell its time.

    A device that has just corrected its profile by what it measured tells none for some tokens.
    """
    if not plan.pipelines or not digest.token_ms:
        return None
    stages = plan.pipelines[0].stages
    order = list(dict.fromkeys(stage.device for stage in stages))
    members = {member.device: member for member in digest.members}
    parts = tuple(
        DevicePart(members[device].name, members[device].stage_ms, members[device].resident_bytes)
        for device in order
        if device in members and members[device].stage_ms
    )
    if len(parts) < len(order):
        return None
    compute = sum(part.compute_ms for part in parts)
    hops = sum(1 for here, there in pairwise(stages) if here.device != there.device)
    return Way(
        digest.token_ms,
        round(compute, 3),
        round(max(digest.token_ms - compute, 0.0), 3),
        round(sum(plan.prediction.hop_ms[: len(stages)]), 3),
        hops,
        parts,
        _hop(digest.beyond, [members[device].hop for device in order], hops),
    )


def _hop(beyond: Beyond, devices: Sequence[HopParts], hops: int) -> Hop | None:
    """None where the driver or a device has told nothing of hops yet."""
    if not hops or not beyond.p50_ms or not all(each.serialise_ms for each in devices):
        return None
    serialise = fmean(each.serialise_ms for each in devices)
    wait = fmean(each.wait_ms for each in devices)
    machine = fmean(each.machine_ms for each in devices)
    middle_ms = beyond.p50_ms / hops
    return Hop(
        round(middle_ms, 3),
        round(beyond.p99_ms / hops, 3),
        round(serialise, 3),
        round(max(middle_ms - serialise - wait - machine, 0.0), 3),
        round(wait, 3),
        round(machine, 3),
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
