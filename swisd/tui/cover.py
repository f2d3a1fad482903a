"""Who stands in for whom: who keeps the units of another, whether they are there, and who has nobody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from swisd.core.types import Plan
from swisd.tui import words
from swisd.tui.rows import name_of, names_of, spans_of, total_units
from swisd.wire.messages import Digest, MemberView

CoverState = Literal["loaded", "loading", "silent", "nobody"]


@dataclass(frozen=True, slots=True)
class CoverRow:
    """What becomes of the units of `device` when it is lost.

    `by` has them loaded, still loads them, or is silent itself; nobody has room for them if it is empty.
    """

    device: str
    name: str
    units: str
    ranges: tuple[tuple[int, int], ...]
    by: str
    by_name: str
    state: CoverState


def cover_rows(plan: Plan | None, digest: Digest | None) -> tuple[CoverRow, ...]:
    """One row for each device of an active plan, in its order, once the host has chosen spares.

    Empty where there is nobody else in the swarm, or where the host was told to keep no spares.
    """
    if plan is None or digest is None or not plan.active:
        return ()
    members = {member.device: member for member in digest.members if member.liveness in ("alive", "suspect")}
    if len(members) < 2:
        return ()
    names, total = names_of(digest), total_units(plan)
    uncovered = digest.uncovered if digest.epoch == plan.epoch else ()
    rows = []
    for device, ranges in spans_of(plan).items():
        by = _stand_in(plan, device, ranges)
        if not by and device not in uncovered:
            continue  # not chosen yet
        rows.append(
            CoverRow(
                device=device,
                name=name_of(device, names),
                units=words.units(ranges, total),
                ranges=tuple(ranges),
                by=by,
                by_name=name_of(by, names) if by else "",
                state=_state(members.get(by), ranges) if by else "nobody",
            )
        )
    return tuple(rows)


def _stand_in(plan: Plan, device: str, ranges: Sequence[tuple[int, int]]) -> str:
    """The device that keeps all of these units; part of them would not help."""
    kept: dict[str, set[tuple[int, int]]] = {}
    for spare in plan.spares:
        if spare.device != device:
            kept.setdefault(spare.device, set()).add(spare.units)
    return next((other for other, units in kept.items() if units >= set(ranges)), "")


def _state(member: MemberView | None, ranges: Sequence[tuple[int, int]]) -> CoverState:
    if member is None or member.liveness != "alive":
        return "silent"
    return "loaded" if set(ranges) <= set(member.warm) else "loading"


def cover_line(rows: Sequence[CoverRow], letters: Mapping[str, int]) -> str:
    """All rows in a few words, devices by their letters: `D for A, C for B (loading), nobody for C`."""

    def letter(device: str) -> str:
        return words.letter(letters[device]) if device in letters else "?"

    parts = []
    for row in rows:
        doubt = "" if row.state in ("loaded", "nobody") else f" ({row.state})"
        parts.append(f"{letter(row.by) if row.by else 'nobody'} for {letter(row.device)}{doubt}")
    return ", ".join(parts)


def gap_line(rows: Sequence[CoverRow]) -> str:
    """What it means that nobody covers some devices, and what to do; empty if all are covered."""
    bare = [row for row in rows if not row.by]
    if not bare:
        return ""
    what = "; ".join(f"{words.units_spoken(row.units)} of {row.name}" for row in bare)
    who = bare[0].name if len(bare) == 1 else "one of them"
    return (
        f"Nobody has room for {what}: if {who} is lost, its part is loaded anew. "
        "Offer more memory on another device."
    )
