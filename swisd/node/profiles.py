"""What this device measured of itself before: a question to a device that is alone need not wait for a probe.

In a swarm the plan depends on today's figures, so there a device always measures itself again.
"""

from dataclasses import dataclass
from typing import Annotated

from swisd.core.checked import Items
from swisd.core.types import Profile
from swisd.node.home import Home

FILE = "profiles.json"
KEPT = 8


@dataclass(frozen=True, slots=True)
class Measurement:
    """A profile, and how many threads were wanted; 0: those that were found to be the best."""

    threads: int
    profile: Profile


@dataclass(frozen=True, slots=True)
class Measurements:
    """The last ones, latest first."""

    items: Annotated[tuple[Measurement, ...], Items(KEPT)] = ()


def remembered(home: Home, model: str, threads: int) -> Profile | None:
    """The last profile of a model (manifest sha256) for such a wish, or None."""
    for item in _read(home).items:
        # Without the head's time it was measured in too little memory: there may be more now.
        whole = item.profile.head_ms is not None and item.profile.threads > 0
        if (item.profile.model, item.threads) == (model, threads) and whole:
            return item.profile
    return None


def remember(home: Home, profile: Profile, threads: int) -> None:
    """Keep a profile for the next time."""
    others = [
        item for item in _read(home).items if (item.profile.model, item.threads) != (profile.model, threads)
    ]
    home.write(FILE, Measurements((Measurement(threads, profile), *others[: KEPT - 1])))


def _read(home: Home) -> Measurements:
    return home.read(FILE, Measurements) or Measurements()
