"""What was said in a session, and how each of its rows was run: the bits of a row depend on both.

A row runs alone, as a token that was just answered, or together with others, as a part of a prompt. Rows
after a history have the same bits if both are the same, whoever ran it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from swisd.core.types import Units


@dataclass(frozen=True, slots=True)
class History:
    """Token ids, and the spans `[start, end)` of those that run alone: in order, none touches the next."""

    ids: tuple[int, ...]
    alone: tuple[Units, ...] = ()

    def agrees(self, other: "History") -> int:
        """Positions from the first on that are the same in both, and run in the same way."""
        most = same(self.ids, other.ids)
        # How a position runs is told by the edges before it: the first edge of one history alone parts them.
        return min({most, *(_edges(self.alone) ^ _edges(other.alone))})

    def alone_before(self, end: int) -> tuple[Units, ...]:
        """The spans that run alone, as far as they lie before a position."""
        return joined([(start, min(last, end)) for start, last in self.alone])


def history(
    prompt: tuple[int, ...], alone: Sequence[Units], emitted: Sequence[int], *, whole: bool
) -> History:
    """What the caches hold of a session: without its last token, which was not fed, if `whole` is false."""
    ids = (*prompt, *emitted)
    fed = len(ids) - (not whole)
    spans = [(0, 0), *together(len(prompt), alone), (fed, fed)]
    return History(ids[:fed], joined([(before, after) for (_, before), (after, _) in pairwise(spans)]))


def together(length: int, alone: Sequence[Units]) -> list[Units]:
    """Spans of a prompt of this length that run in passes of two and more rows."""
    edges = [0, *(edge for span in alone for edge in span), length]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end - start > 1]


def same(mine: Sequence[int], theirs: Sequence[int]) -> int:
    """How many ids from the first on are the same."""
    pairs = enumerate(zip(mine, theirs, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(mine), len(theirs)))


def joined(spans: Sequence[Units]) -> tuple[Units, ...]:
    """Spans in order with those that touch made one, and empty ones left out."""
    found: list[Units] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return tuple(found)


def _edges(spans: Sequence[Units]) -> set[int]:
    return {edge for span in spans for edge in span}
