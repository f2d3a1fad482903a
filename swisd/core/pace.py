"""How long one token takes in a device's stages, as measured, and as its profile says."""

from collections import deque
from statistics import median

from swisd.core.events import StepDone
from swisd.core.model import Manifest
from swisd.core.rows import Activation
from swisd.core.shards import Stages
from swisd.core.types import Profile

MAX_PARTS = 256  # tokens under way of which the first stage is done


class Pace:
    """Times of one-token steps; those of a device's several stages of a pipeline are added up."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=32)
        self._parts: dict[tuple[str, int], float] = {}

    @property
    def stage_ms(self) -> float:
        """Median time in ms that one token takes in this device's stages."""
        return median(self._times) if self._times else 0.0

    @property
    def samples(self) -> int:
        return len(self._times)

    def forget(self) -> None:
        self._times.clear()
        self._parts.clear()

    def note(self, event: StepDone, activation: Activation, stages: Stages) -> None:
        """Take the time of a step of one stage."""
        slots = activation.slots
        if len(slots) != 1 or slots[0].rows != 1 or event.shared > 1:
            return  # a pass for several tells nothing of one
        key = (slots[0].session, slots[0].step)
        spent = self._parts.pop(key, 0.0) + event.compute_ms
        last = max((number for number, _ in stages), default=activation.stage)
        if activation.stage == last:
            self._times.append(spent)
        else:
            if len(self._parts) > MAX_PARTS:
                self._parts.clear()
            self._parts[key] = spent


def expected_ms(profile: Profile | None, manifest: Manifest | None, stages: Stages) -> float:
    """What a profile says of stages for one token, in ms; 0 if it says nothing."""
    if profile is None or manifest is None:
        return 0.0
    head = manifest.n_units - 1
    total = 0.0
    for _, stage in stages:
        layers = min(stage.end, head) - max(stage.start, 1)
        total += profile.run_ms + max(layers, 0) * profile.layer_ms
        total += profile.embed_ms if stage.start == 0 else 0.0
        total += (profile.head_ms or 0.0) if stage.end > head else 0.0
    return total
