"""When a new plan is worth its price: every change of plan costs loading and a replay of running sessions."""

from collections.abc import Mapping, Sequence

from swisd.core.costmodel import together_ms
from swisd.core.failover import devices_of, ranges_of
from swisd.core.model import Manifest
from swisd.core.shards import memory_of
from swisd.core.types import Capability, Pipeline, Plan, Prediction

JUMP = 1 << 32  # epochs go up one by one: what is further away was never made by a host
WORTH = 0.85  # a new plan must promise at most this part of the current one's time


def broken(plan: Plan, present: Sequence[str], banned: Mapping[str, str]) -> str:
    """Why a plan can no longer run, in words; empty while it can."""
    for device in sorted(devices_of(plan.pipelines)):
        if device in banned:
            return f"device {device} {banned[device]}"
        if device not in present:
            return f"device {device} is gone"
    return ""


def believable(epoch: int, known: int) -> bool:
    """Whether a host can have come to this epoch. An absurd one would outrank every plan to come."""
    return epoch <= known + JUMP


def worthwhile(
    current: Prediction, plan: Plan, candidate: Prediction, pipelines: Sequence[Pipeline], context: int
) -> str:
    """Why the candidate should replace the plan, in words; empty if it should not.

    `current` is what the cost model says of the plan now, with today's figures.
    """
    if tuple(pipelines) == plan.pipelines:
        return ""
    if context >= 2 * plan.context:
        return f"room for {context} tokens instead of {plan.context}"
    if plan.objective == "spread" and devices_of(pipelines) != devices_of(plan.pipelines):
        return "the set of devices changed"
    if plan.objective == "throughput":
        old, new = together_ms(current, plan.pipelines), together_ms(candidate, pipelines)
        if new > 0 and new <= WORTH * old:
            return f"{1000 / new:.1f} tokens/s together instead of {1000 / old:.1f}"
        return ""
    if candidate.token_ms <= WORTH * current.token_ms:
        return f"{candidate.token_ms:.1f} ms instead of {current.token_ms:.1f} ms"
    return ""


def tidier(plan: Plan, pipelines: Sequence[Pipeline]) -> str:
    """Why a plan that was mended gives way to the one that would be made now, once no session runs."""
    return "what a loss left is shared out anew" if tuple(pipelines) != plan.pipelines else ""


def fits_beside(
    current: Plan,
    candidate: Sequence[Pipeline],
    context: int,
    devices: Sequence[Capability],
    manifest: Manifest,
) -> bool:
    """Whether each device has room for its shards of both plans: one is loaded beside the other."""
    now, then = ranges_of(current.pipelines), ranges_of(candidate)
    for item in devices:
        ranges = {*now.get(item.device, ()), *then.get(item.device, ())}
        if ranges and memory_of(manifest, ranges, max(context, current.context)) > item.memory_bytes:
            return False
    return True
