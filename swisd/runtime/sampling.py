"""Choosing the next token from a row of logits.

The order is that of llama.cpp's default chain: repetition penalty, top-k, top-p, min-p, temperature, draw.
So the filters look at the model's own distribution, and temperature only flattens what they leave.

The draw is a function of (seed, position) alone, so a stream can be continued on any device at any token.
"""

from collections.abc import Sequence
from math import isfinite, log
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from swisd.core.errors import SessionFailed


class Sampling(Protocol):
    """The fields of `swisd.core.types.SamplingParams` that are read here; their ranges are checked there."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def top_p(self) -> float: ...
    @property
    def min_p(self) -> float: ...
    @property
    def repetition_penalty(self) -> float: ...
    @property
    def looks_back(self) -> int: ...


def sample(
    logits: NDArray[np.floating], params: Sampling, *, seed: int, position: int, history: Sequence[int]
) -> int:
    """The id of the token that follows.

    `logits` is one row (`[vocab]`; -inf excludes a token), `seed` a whole number from 0 to 2**128 - 1,
    `position` the absolute position of the token that is chosen, `history` the ids before it, newest last
    (prompt included), of which the last `repetition_window` are penalised. Temperature 0 takes the largest
    logit, the lowest id among equals.

    Raises `SessionFailed` if the logits are no distribution (NaN, +inf, or -inf throughout).
    """
    if logits.ndim != 1:
        raise ValueError(f"one row of logits is wanted, not shape {logits.shape}")
    values = _penalised(logits, params, history)
    if params.temperature == 0:
        best = int(values.argmax())
        _check_largest(float(values[best]), position)
        return best
    largest = float(values.max())
    _check_largest(largest, position)
    ids = _candidates(values, largest, params)
    # Candidates stand in the order of their ids: a filter that removes nothing cannot change the draw.
    with np.errstate(over="ignore"):
        weights = np.exp((values[ids].astype(np.float64) - largest) / params.temperature)
    cumulative = np.cumsum(weights)
    chosen = int(np.searchsorted(cumulative, uniform(seed, position) * cumulative[-1], side="right"))
    # Rounding may bring the product up to the total itself, past the last candidate.
    return int(ids[min(chosen, int(np.flatnonzero(weights)[-1]))])


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments.

    The upper 53 bits of the first word of Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as
    1, 2, 3", SC11) with key `seed` and counter `position + 1`; numpy promises this stream for all versions.
    """
    raw = np.random.Philox(key=seed, counter=position).random_raw()
    return (int(raw) >> 11) * 2.0**-53


def largest_ids(values: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """Ids of the `count` largest values in ascending order of id; of equal values the lowest ids.

    Partial selection: O(n), for the vocabulary is large and `count` small.
    """
    if count >= values.size:
        return np.arange(values.size)
    if count <= 0:
        return np.arange(0)
    threshold = np.partition(values, values.size - count)[values.size - count]
    ids = np.flatnonzero(values >= threshold)
    surplus = ids.size - count
    if surplus:
        ids = np.delete(ids, np.flatnonzero(values[ids] == threshold)[-surplus:])
    return ids


def _penalised(
    logits: NDArray[np.floating], params: Sampling, history: Sequence[int]
) -> NDArray[np.floating]:
    """Logits of tokens seen lately, pushed down once each, however often they were seen.

    Positive ones are divided by the penalty and negative ones multiplied (Keskar et al., "CTRL", 2019,
    section 4.1, with the sign rule that HF and llama.cpp share).
    """
    if not params.looks_back or not len(history):
        return logits
    seen = np.unique(np.asarray(history[-params.looks_back :], dtype=np.int64))
    if seen[0] < 0 or seen[-1] >= logits.size:
        raise ValueError(f"history holds a token outside the vocabulary of {logits.size}")
    values = logits.astype(np.float64)
    old = values[seen]
    values[seen] = np.where(old > 0, old / params.repetition_penalty, old * params.repetition_penalty)
    return values


def _candidates(values: NDArray[np.floating], largest: float, params: Sampling) -> NDArray[np.intp]:
    """Ids that top-k, top-p and min-p leave, ascending; never none.

    Each filter sees the distribution renormalised over what the one before left. top-p keeps the smallest
    set of most probable tokens whose probability reaches `top_p` (Holtzman et al., 2020); min-p those at
    least `min_p` times as probable as the best (Nguyen et al., 2024).
    """
    ids = largest_ids(values, params.top_k) if params.top_k > 0 else np.arange(values.size)
    if params.top_p < 1:
        weights = np.exp(values[ids].astype(np.float64) - largest)
        total = float(weights.sum())
        # All tokens below this bound together weigh less than 1 - top_p, so none of them is needed to
        # reach top_p: only the few above it have to be sorted.
        above = np.flatnonzero(weights >= (1 - params.top_p) * total / weights.size)
        descending = above[np.argsort(-weights[above], kind="stable")]
        reached = np.searchsorted(np.cumsum(weights[descending]), params.top_p * total)
        ids = np.sort(ids[descending[: int(reached) + 1]])
    if params.min_p > 0:
        ids = ids[values[ids].astype(np.float64) >= largest + log(params.min_p)]
    return ids


def _check_largest(largest: float, position: int) -> None:
    if not isfinite(largest):
        raise SessionFailed(
            f"the model's output at position {position} is not a distribution (largest logit {largest}): "
            "a device computes wrongly or the model file is damaged"
        )
