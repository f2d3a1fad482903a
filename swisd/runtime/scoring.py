"""How well a model predicts a given text: log-probabilities, perplexity, divergence.

All logarithms are natural; probabilities are computed in double precision whatever the logits' type.
"""

from collections.abc import Sequence
from math import exp, fsum, inf, isfinite, log

import numpy as np
from numpy.typing import NDArray

from swisd.core.errors import SessionFailed
from swisd.core.types import Scores
from swisd.runtime.sampling import largest_ids


def score(logits: NDArray[np.floating], next_ids: Sequence[int | None], top: int) -> Scores:
    """Teacher-forced scores of `[rows, vocab]` logits.

    For each row: the `top` most probable ids (descending, the lower id first among equals) with their
    log-probabilities, and the log-probability of the token that really follows, `next_ids[row]`, or None
    where that is None. One row at a time, so that memory stays at a few vocabularies.

    Raises `SessionFailed` if a row is no distribution (NaN or +inf in it, or -inf throughout).
    """
    if logits.ndim != 2 or len(next_ids) != logits.shape[0]:
        raise ValueError(f"{len(next_ids)} next ids for logits of shape {logits.shape}")
    top_ids: list[tuple[int, ...]] = []
    top_logprobs: list[tuple[float, ...]] = []
    next_logprobs: list[float | None] = []
    for number, (row, next_id) in enumerate(zip(logits, next_ids, strict=True)):
        if next_id is not None and not 0 <= next_id < row.size:
            raise ValueError(f"next id {next_id} of row {number} is outside the vocabulary of {row.size}")
        normaliser = _log_sum_exp(row, number)
        ids = largest_ids(row, top)
        ids = ids[np.argsort(-row[ids], kind="stable")]
        top_ids.append(tuple(ids.tolist()))
        top_logprobs.append(tuple((row[ids].astype(np.float64) - normaliser).tolist()))
        next_logprobs.append(None if next_id is None else float(row[next_id]) - normaliser)
    return Scores(tuple(top_ids), tuple(top_logprobs), tuple(next_logprobs))


def logprobs_at(logits: NDArray[np.floating], ids: Sequence[Sequence[int]]) -> list[list[float]]:
    """Log-probabilities of the given ids in each row of `[rows, vocab]` logits; errors as `score`."""
    if logits.ndim != 2 or len(ids) != logits.shape[0]:
        raise ValueError(f"{len(ids)} lists of ids for logits of shape {logits.shape}")
    return [
        (row[list(wanted)].astype(np.float64) - _log_sum_exp(row, number)).tolist()
        for number, (row, wanted) in enumerate(zip(logits, ids, strict=True))
    ]


def perplexity(logprobs: Sequence[float | None]) -> float:
    """exp of the mean negative log-probability of the tokens that are known; `ValueError` if none is."""
    known = [value for value in logprobs if value is not None]
    if not known:
        raise ValueError("perplexity of no tokens")
    return exp(-fsum(known) / len(known))


def mean_kl(reference: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """Mean over rows of KL(reference || other) in nats, from the log-probabilities of the same ids in both.

    The mass outside the given ids counts as one further outcome. That makes each row's value a divergence
    of two whole distributions: never negative, and never more than the divergence over the full vocabulary
    (the data-processing inequality).
    """
    if not reference or len(reference) != len(other):
        raise ValueError(f"{len(reference)} rows of reference and {len(other)} rows to compare")
    return fsum(_row_kl(p, q) for p, q in zip(reference, other, strict=True)) / len(reference)


def _row_kl(reference: Sequence[float], other: Sequence[float]) -> float:
    terms = [exp(p) * (p - q) for p, q in zip(reference, other, strict=True) if p > -inf]
    rest, other_rest = _log_rest(reference), _log_rest(other)
    return max(0.0, fsum((*terms, exp(rest) * (rest - other_rest))))


def _log_rest(logprobs: Sequence[float]) -> float:
    """log(1 - sum of exp): the mass of all other ids. What is below 1e-12 is rounding and counts as that."""
    return log(max(1.0 - fsum(map(exp, logprobs)), 1e-12))


def _log_sum_exp(row: NDArray[np.floating], number: int) -> float:
    largest = float(row.max())
    if not isfinite(largest):
        raise SessionFailed(
            f"the model's output in row {number} is not a distribution (largest logit {largest}): "
            "a device computes wrongly or the model file is damaged"
        )
    return largest + log(float(np.exp(row.astype(np.float64) - largest).sum()))
