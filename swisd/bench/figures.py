"""What is measured of one contender, and the medians that a report tells. Pure: values in, values out.

Ratios are taken round by round and their median is told: a machine that is slower for a while is slower for
all contenders of that round.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

PREFILL = 256  # prefill is told in ms for so many tokens


@dataclass(frozen=True, slots=True)
class Stream:
    """One answered question. `began` and `ended` (its last token) in s on one clock, the rest in ms.

    `prompt_ms` is the driver's figure for the prompt; `gaps_ms` has one entry between each two tokens: 0 for
    tokens that came in one message. Where the contender tells no times of single tokens it is empty.
    """

    prompt_tokens: int
    prompt_ms: float
    first_ms: float
    gaps_ms: tuple[float, ...]
    tokens: int
    began: float
    ended: float

    @property
    def tokens_per_s(self) -> float:
        """Speed behind the first token; 0 for fewer than two tokens."""
        span_ms = (self.ended - self.began) * 1000.0 - self.first_ms
        return (self.tokens - 1) / span_ms * 1000.0 if self.tokens > 1 and span_ms > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Single:
    """One contender's turn in a round with one question at a time: ms, and tokens/s."""

    prefill_ms: float
    first_ms: float
    p50_ms: float
    p99_ms: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Several:
    """One contender's turn with several questions at once.

    `total_per_s` counts tokens from the first question to the last token of all; the rest is of one stream.
    """

    total_per_s: float
    each_per_s: float
    first_ms: float
    p50_ms: float
    p99_ms: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that `percent` % of all do not exceed; 0 if there are none."""
    if not values:
        return 0.0
    place = math.ceil(percent / 100.0 * len(values)) - 1
    return sorted(values)[min(max(place, 0), len(values) - 1)]


def prefill_ms(stream: Stream) -> float:
    """Milliseconds of a prompt, scaled to 256 tokens."""
    return stream.prompt_ms / stream.prompt_tokens * PREFILL


def single(prefill: Stream, decode: Stream) -> Single:
    """A turn from its two answers: a long prompt with one token, a short prompt with many."""
    return Single(
        prefill_ms(prefill),
        decode.first_ms,
        percentile(decode.gaps_ms, 50),
        percentile(decode.gaps_ms, 99),
        decode.tokens_per_s,
    )


def several(streams: Sequence[Stream]) -> Several:
    """A turn of questions that were asked at once."""
    span = max(stream.ended for stream in streams) - min(stream.began for stream in streams)
    gaps = [gap for stream in streams for gap in stream.gaps_ms]
    return Several(
        sum(stream.tokens for stream in streams) / span if span > 0 else 0.0,
        median(stream.tokens_per_s for stream in streams),
        median(stream.first_ms for stream in streams),
        percentile(gaps, 50),
        percentile(gaps, 99),
    )


def middle(turns: Sequence[Single]) -> Single:
    """The median of each figure."""
    return Single(
        median(turn.prefill_ms for turn in turns),
        median(turn.first_ms for turn in turns),
        median(turn.p50_ms for turn in turns),
        median(turn.p99_ms for turn in turns),
        median(turn.tokens_per_s for turn in turns),
    )


def middle_of_several(turns: Sequence[Several]) -> Several:
    """The median of each figure."""
    return Several(
        median(turn.total_per_s for turn in turns),
        median(turn.each_per_s for turn in turns),
        median(turn.first_ms for turn in turns),
        median(turn.p50_ms for turn in turns),
        median(turn.p99_ms for turn in turns),
    )


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> float | None:
    """The median of the ratios of the rounds that both took part in; None if there are none."""
    ratios = [a / b for a, b in zip(above, below, strict=False) if a > 0 and b > 0]
    return median(ratios) if ratios else None
