"""A stream of tokens beside the undisturbed one: where it differs, and how long it paused."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

WINDOW = 8  # tokens that must agree again behind a gap or a repeat


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a stream is not the expected one.

    `gap`: `count` tokens are missing there; `repeat`: `count` tokens come again; `short` and `long`: the end
    is missing, or there is more; `other`: other tokens.
    """

    at: int
    kind: Literal["gap", "repeat", "short", "long", "other"]
    count: int = 0

    def __str__(self) -> str:
        words = {
            "gap": f"{self.count} token(s) missing before it",
            "repeat": f"{self.count} token(s) come again",
            "short": f"the last {self.count} token(s) never came",
            "long": f"{self.count} token(s) too many",
            "other": "another token than undisturbed",
        }
        return f"token {self.at}: {words[self.kind]}"


def first_difference(expected: Sequence[int], got: Sequence[int]) -> Difference | None:
    """Compare index by index; None if the streams are the same."""
    shared = min(len(expected), len(got))
    at = next((index for index in range(shared) if expected[index] != got[index]), shared)
    if at == shared:
        if len(got) == len(expected):
            return None
        missing = len(expected) - len(got)
        return Difference(at, "short", missing) if missing > 0 else Difference(at, "long", -missing)
    window = list(got[at : at + WINDOW])
    for count in range(1, len(expected)):
        if list(expected[at + count : at + count + len(window)]) == window:
            return Difference(at, "gap", count)
        if count <= at and list(expected[at - count : at - count + len(window)]) == window:
            return Difference(at, "repeat", count)
    return Difference(at, "other")


def longest_pause(times: Sequence[float], since: float) -> tuple[float, float]:
    """The longest time between two tokens that ended after `since`, and when it ended; zeros if none did.

    `times` says when each token came, in order.
    """
    pauses = [(later - earlier, later) for earlier, later in _pairs(times) if later >= since]
    return max(pauses, default=(0.0, 0.0))


def median_time(times: Sequence[float]) -> float:
    """Median time between two tokens; 0 for fewer than two."""
    steps = [later - earlier for earlier, later in _pairs(times)]
    return median(steps) if steps else 0.0


def _pairs(times: Sequence[float]) -> list[tuple[float, float]]:
    return list(pairwise(times))
