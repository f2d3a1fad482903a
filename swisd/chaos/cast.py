"""Who plays which role in a swarm, read from its plan and digest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from swisd.core.messages import Digest
from swisd.core.types import Plan, Units

Role = Literal["worker", "driver", "host", "host-driver", "spare"]


@dataclass(frozen=True, slots=True)
class Part:
    """A device's part in the swarm. `units` are those that it runs; `warm`: a spare of each is in memory."""

    device: str
    name: str
    role: Role
    units: tuple[Units, ...]
    memory_bytes: int
    warm: bool = False


def cast(plan: Plan, digest: Digest) -> dict[str, Part]:
    """Every living device and its part, by name. `spare`: neither in the plan nor the host."""
    stages = [stage for pipeline in plan.pipelines for stage in pipeline.stages]
    loaded = {member.device: member.warm for member in digest.members}
    parts: dict[str, Part] = {}
    for member in digest.members:
        if member.liveness in ("dead", "left"):
            continue
        units = tuple(stage.units for stage in stages if stage.device == member.device)
        role = _role(member.device, bool(units), member.device in plan.drivers, digest.host)
        warm = bool(units) and all(_covered(span, member.device, plan, loaded) for span in units)
        parts[member.name] = Part(member.device, member.name, role, units, member.memory_bytes, warm)
    return parts


def _role(device: str, runs: bool, drives: bool, host: str) -> Role:
    if device == host:
        return "host-driver" if drives else "host"
    if drives:
        return "driver"
    return "worker" if runs else "spare"


def _covered(span: Units, owner: str, plan: Plan, loaded: Mapping[str, Sequence[Units]]) -> bool:
    """Whether each of these units lies in a spare of another device that has it in memory."""
    warm = [
        spare.units
        for spare in plan.spares
        if spare.device != owner
        and any(start <= spare.start and spare.end <= end for start, end in loaded.get(spare.device, ()))
    ]
    return all(any(start <= unit < end for start, end in warm) for unit in range(*span))


def all_warm(parts: Mapping[str, Part]) -> bool:
    """Whether no device's loss would cost a load."""
    return all(part.warm for part in parts.values() if part.units)
