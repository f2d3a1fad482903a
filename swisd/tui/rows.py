"""What is drawn, as rows of strings and numbers, from the host's digest and the plan."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from swisd.core.costmodel import tokens_ms, tokens_per_s
from swisd.core.types import Plan
from swisd.tui import words
from swisd.wire.messages import Digest, MemberView

Tone = Literal["good", "busy", "bad", "quiet"]
Level = Literal["info", "warning", "error"]
Slots = Mapping[str, int]  # device -> its letter and colour


@dataclass(frozen=True, slots=True)
class DeviceRow:
    device: str
    name: str
    letter: str
    colour: int
    you: bool
    host: bool
    driver: bool
    state: str
    tone: Tone
    role: str  # driver, worker; spare: keeps units of others loaded; standby
    units: str
    layer_ms: float
    predicted_ms: float  # of all its stages; 0 without a plan
    measured_ms: float
    memory_used: int
    memory_offered: int
    rtt_ms: float
    progress: float
    note: str
    left_out: str  # why the plan does without it, in the words of the scheduler

    @property
    def marks(self) -> str:
        """Role and what else is special about it: `driver, host, you`."""
        extra = [word for word, true in (("host", self.host), ("you", self.you)) if true]
        return ", ".join([self.role, *extra])


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A shard in the bar of a pipeline; `share` is its part of the bar's width."""

    pipeline: int
    device: str
    name: str
    letter: str
    colour: int
    start: int
    end: int
    units: str
    share: float
    predicted_ms: float
    trouble: str = ""  # why the shard does not run now: lost, silent, failed, left


@dataclass(frozen=True, slots=True)
class Totals:
    """One token through the swarm, predicted beside measured; 0 where there is no figure yet.

    Of several pipelines it goes through the slowest; `together_per_s` is what all are predicted to give.
    """

    predicted_ms: float = 0.0
    measured_ms: float = 0.0
    links_ms: float = 0.0
    prompt_token_ms: float = 0.0
    tokens_per_s: float = 0.0
    pipelines: int = 0
    together_per_s: float = 0.0

    @property
    def gap(self) -> str:
        """How far the measured figure lies from the predicted one."""
        if self.predicted_ms <= 0 or self.measured_ms <= 0:
            return ""
        return f"{(self.measured_ms / self.predicted_ms - 1) * 100:+.0f} %"


@dataclass(frozen=True, slots=True)
class SessionRow:
    session: str
    short: str
    asker: str
    state: str
    prompt_tokens: int
    tokens: int
    tokens_per_s: float
    history: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class EventRow:
    at: float
    level: Level
    text: str
    times: int = 1


def name_of(device: str, names: Mapping[str, str]) -> str:
    """A device's name; the start of its id where the name is not known."""
    return words.clean(names.get(device) or device[:8])


def names_of(digest: Digest | None) -> dict[str, str]:
    return {member.device: member.name for member in digest.members} if digest else {}


def spans_of(plan: Plan | None) -> dict[str, list[tuple[int, int]]]:
    """Units that each device of the plan runs, stage by stage."""
    spans: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for pipeline in plan.pipelines if plan else ():
        for stage in pipeline.stages:
            for member in stage.members:
                spans[member.device].append((stage.start, stage.end))
    return dict(spans)


def links_of(plan: Plan | None) -> list[float]:
    """Predicted ms that a token travels in each pipeline. The figures of all lie one after another."""
    if plan is None:
        return []
    left = iter(plan.prediction.hop_ms)
    return [sum(next(left, 0.0) for _ in pipeline.stages) for pipeline in plan.pipelines]


def total_units(plan: Plan | None) -> int:
    return max((stage.end for p in (plan.pipelines if plan else ()) for stage in p.stages), default=0)


def predicted_of(plan: Plan | None) -> dict[str, float]:
    """Predicted ms of all the stages of each device. The figures of all pipelines lie one after another."""
    sums: defaultdict[str, float] = defaultdict(float)
    for _, device, _, _, _, predicted in _members(plan):
        sums[device] += predicted
    return dict(sums)


def _members(plan: Plan | None) -> Iterable[tuple[int, str, int, int, float, float]]:
    """Pipeline, device, start, end, its part of the stage and the predicted ms of the stage."""
    if plan is None:
        return
    figures = iter(plan.prediction.stage_ms)
    for number, pipeline in enumerate(plan.pipelines):
        for stage in pipeline.stages:
            predicted = next(figures, 0.0)
            whole = sum(member.share for member in stage.members) or 1.0
            for member in stage.members:
                yield number, member.device, stage.start, stage.end, member.share / whole, predicted


def slots(digest: Digest, plan: Plan | None, you: str, before: Slots) -> dict[str, int]:
    """A letter and colour for each device, kept for as long as the device is known.

    New devices take the lowest that are free: this device first, then in the order of the plan.
    """
    order = {device: number for number, device in enumerate(spans_of(plan))}
    last = len(order)
    present = sorted(
        digest.members, key=lambda m: (m.device != you, order.get(m.device, last), m.name, m.device)
    )
    kept = {m.device: before[m.device] for m in present if m.device in before}
    free = iter(sorted(set(range(len(present))) - set(kept.values())))
    return {m.device: kept[m.device] if m.device in kept else next(free) for m in present}


def device_rows(digest: Digest | None, plan: Plan | None, you: str, letters: Slots) -> tuple[DeviceRow, ...]:
    if digest is None:
        return ()
    spans, predicted, total = spans_of(plan), predicted_of(plan), total_units(plan)
    drivers = {pipeline.driver for pipeline in plan.pipelines} if plan else set()
    out = {v.device: v.reason for v in plan.verdicts if not v.used} if plan and plan.pipelines else {}
    spares = {spare.device for spare in plan.spares} if plan else set()
    same = plan is not None and plan.epoch == digest.epoch
    rows = []
    for member in sorted(digest.members, key=lambda m: letters.get(m.device, len(letters))):
        device, slot = member.device, letters.get(member.device, 0)
        rows.append(
            DeviceRow(
                device=device,
                name=words.clean(member.name) or device[:8],
                letter=words.letter(slot),
                colour=slot,
                you=device == you,
                host=device == digest.host,
                driver=device in drivers,
                state=words.state(member.liveness, member.state, member.progress),
                tone=_tone(member),
                role=(
                    "driver"
                    if device in drivers
                    else "worker"
                    if device in spans
                    else "spare"
                    if device in spares
                    else "standby"
                ),
                units=words.units(spans.get(device, ()), total) or words.NONE,
                layer_ms=member.layer_ms,
                predicted_ms=predicted.get(device, 0.0),
                measured_ms=member.stage_ms if same else 0.0,
                memory_used=member.resident_bytes,
                memory_offered=member.memory_bytes,
                rtt_ms=member.rtt_ms,
                progress=member.progress,
                note=words.clean(member.note),
                left_out=words.clean(out.get(device, "")),
            )
        )
    return tuple(rows)


def _tone(member: MemberView) -> Tone:
    if member.liveness == "dead" or (member.liveness == "alive" and member.state == "failed"):
        return "bad"
    if member.liveness == "left" or (member.liveness == "alive" and member.state == "idle"):
        return "quiet"
    return "good" if member.liveness == "alive" and member.state == "ready" else "busy"


def segment_rows(plan: Plan | None, rows: Sequence[DeviceRow], letters: Slots) -> tuple[SegmentRow, ...]:
    total, names = total_units(plan), {row.device: row.name for row in rows}
    trouble = {row.device: row.state for row in rows if row.state in ("lost", "silent", "failed", "left")}
    return tuple(
        SegmentRow(
            pipeline=number,
            device=device,
            name=name_of(device, names),
            letter=words.letter(letters[device]) if device in letters else "?",
            colour=letters.get(device, -1),
            start=start,
            end=end,
            units=words.units([(start, end)], total),
            share=(end - start) / total * part,
            predicted_ms=predicted,
            trouble=trouble.get(device, ""),
        )
        for number, device, start, end, part, predicted in _members(plan)
        if total
    )


def totals(digest: Digest | None, plan: Plan | None) -> Totals:
    """A figure measured under another epoch says nothing about this plan."""
    same = digest is not None and plan is not None and digest.epoch == plan.epoch
    prediction = plan.prediction if plan and plan.pipelines else None
    return Totals(
        predicted_ms=prediction.token_ms if prediction else 0.0,
        measured_ms=digest.token_ms if digest and same else 0.0,
        links_ms=_slowest_links(plan),
        prompt_token_ms=prediction.prompt_token_ms if prediction else 0.0,
        tokens_per_s=sum(s.tokens_per_s for s in digest.sessions if not s.waiting) if digest else 0.0,
        pipelines=len(plan.pipelines) if plan else 0,
        together_per_s=tokens_per_s(plan.prediction, plan.pipelines) if plan else 0.0,
    )


def _slowest_links(plan: Plan | None) -> float:
    """Predicted ms that a token travels in the pipeline in which it takes longest."""
    if plan is None:
        return 0.0
    times = tokens_ms(plan.prediction, plan.pipelines)
    return max(zip(times, links_of(plan), strict=True), default=(0.0, 0.0))[1]


def session_rows(digest: Digest | None, histories: Mapping[str, tuple[float, ...]]) -> tuple[SessionRow, ...]:
    names = names_of(digest)
    return tuple(
        SessionRow(
            session=s.session,
            short=words.clean(s.session[:6]),
            asker=name_of(s.asker, names),
            state="waiting" if s.waiting else "prompt" if s.tokens == 0 else "running",
            prompt_tokens=s.prompt_tokens,
            tokens=s.tokens,
            tokens_per_s=s.tokens_per_s,
            history=histories.get(s.session, ()),
        )
        for s in (digest.sessions if digest else ())
    )
