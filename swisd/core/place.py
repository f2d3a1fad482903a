"""Where a device stands in its pipeline: what each frame and step asks of a plan, looked up once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from swisd.core.shards import Stages, own_stages
from swisd.core.types import Plan, Stage


@dataclass(frozen=True, slots=True)
class Place:
    """`pipeline` is its number in the plan, None where the device has no part in any.

    `stages` are the device's own, `at` has them by their numbers. `ring` has the device of each stage of the
    pipeline, and `devices` how many of them there are.
    """

    pipeline: int | None = None
    stages: Stages = ()
    at: Mapping[int, Stage] = field(default_factory=dict)
    ring: tuple[str, ...] = ()
    devices: int = 0


def place_of(plan: Plan, device: str) -> Place:
    """The place of a device in a plan."""
    stages = own_stages(plan, device)
    ring = tuple(stage.device for stage in plan.stages_of(device))
    return Place(plan.number_of(device), stages, dict(stages), ring, len(set(ring)))
