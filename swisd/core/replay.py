"""Which rows must be computed again so that every stage holds a session up to a position. Pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

from swisd.core.messages import Held

STATELESS = 1 << 30  # length of a stage without layers: there is nothing to rebuild


@dataclass(frozen=True, slots=True)
class Span:
    """Stages `[first, until]` run positions `[start, end)` again.

    The inputs come from the journal of the stage before `first`, or from the tokens where `first` is 0.
    """

    first: int
    until: int
    start: int
    end: int


def reachable(held: Sequence[Held], wanted: int) -> int:
    """Up to which position the caches can be brought without running any pass for the first time.

    No stage is ahead of what was fed, so the one that is furthest tells.
    """
    lengths = [item.length for item in held if item.length != STATELESS]
    return min(wanted, max(lengths, default=0))


def spans(held: Sequence[Held], end: int) -> list[Span]:
    """What to run again so that each stage holds `end` positions; `held` has one entry a stage, in order.

    A stage that lacks rows gets them from the journal of the one before. Where that does not reach back far
    enough, the one before runs them again too, which changes nothing there.
    """
    found: list[Span] = []
    until = len(held) - 1
    while until >= 0:
        if held[until].length >= end:
            until -= 1
            continue
        first, start = until, held[until].length
        while first > 0:
            before = held[first - 1]
            if before.kept_from <= start and before.made >= end and before.length >= end:
                break
            first -= 1
            start = min(start, held[first].length)
        found.append(Span(first, until, start, end))
        until = first - 1
    return found[::-1]
