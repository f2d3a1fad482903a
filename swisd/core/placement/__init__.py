"""Which device runs which units of a model: the optimum of the cost model for up to eight devices.

There is one pipeline, but for throughput there may be several (see `replicas`).

The context wanted is tried first. Only where no plan at all can hold it, whatever the objective, it shrinks
to the largest step of `CONTEXT_STEP` tokens for which a plan exists, not below `Wish.min_context`; it is
never shortened for speed. With the context fixed, the objective decides (see `objectives`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from swisd.core.costmodel import Links, predict
from swisd.core.model import Manifest
from swisd.core.placement.objectives import feasible, solve
from swisd.core.placement.replicas import replicate
from swisd.core.placement.table import Table
from swisd.core.placement.verdicts import plan_problem, verdicts_with_plan, verdicts_without
from swisd.core.types import Capability, DeviceId, Objective, Pipeline, Prediction, Sha, Verdict

CONTEXT_STEP = 256
NOTHING = Prediction(0.0, 0.0, (), ())


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks of a plan; contexts in tokens."""

    context: int
    min_context: int = 512
    objective: Objective = "latency"


@dataclass(frozen=True, slots=True)
class Placement:
    """A plan without its epoch, or the reason why there is none (`problem`, then `pipelines` is empty).

    `verdicts` has one entry per device, sorted by id. `context` is 0 where there is no plan.
    """

    pipelines: tuple[Pipeline, ...]
    context: int
    prediction: Prediction
    verdicts: tuple[Verdict, ...]
    problem: str = ""


def place(
    manifest: Manifest, model: Sha, devices: Sequence[Capability], host: DeviceId, wish: Wish
) -> Placement:
    """Decide who runs what. Equal inputs give equal plans, in whatever order the devices come.

    Of two capabilities with one id the one that booted later counts. Devices without a profile of the model
    are left out until they have measured themselves.
    """
    devices = _one_each(devices)
    links = Links(devices, host)
    table = _roomiest(manifest, model, devices, links, wish)
    if table is not None:
        solution = solve(table, wish.objective)
        if solution is not None:
            solutions = replicate(table, solution) if wish.objective == "throughput" else (solution,)
            pipelines = tuple(table.pipeline(item) for item in solutions)
            prediction = predict(manifest, model, devices, host, pipelines)
            verdicts = verdicts_with_plan(table, solutions, devices, wish.objective, prediction.token_ms)
            return Placement(pipelines, table.context, prediction, verdicts)
    least = min(wish.min_context, wish.context, manifest.context)
    table = Table(manifest, model, devices, links, least)
    problem = plan_problem(manifest, table, devices, model, least)
    return Placement((), 0, NOTHING, verdicts_without(table, devices), problem)


def _one_each(devices: Sequence[Capability]) -> list[Capability]:
    """One capability per device, sorted by id."""
    # repr settles what a device that lies twice with one boot time would leave to the order of the input.
    unique = {device.device: device for device in devices}
    if len(unique) < len(devices):
        devices = sorted(devices, key=lambda device: (device.boot, repr(device)))
        unique = {device.device: device for device in devices}
    return [unique[name] for name in sorted(unique)]


def _roomiest(
    manifest: Manifest, model: Sha, devices: list[Capability], links: Links, wish: Wish
) -> Table | None:
    """The table with the context to plan for; None where even the least does not fit."""
    wanted = min(wish.context, manifest.context)
    least = min(wish.min_context, wanted)

    def fitting(context: int) -> Table | None:
        table = Table(manifest, model, devices, links, context)
        return table if feasible(table) else None

    if (table := fitting(wanted)) is not None or wanted == least:
        return table
    best = fitting(least)
    # Memory grows with the context, so what fits is a prefix of the steps: bisect for its end.
    low, high = least // CONTEXT_STEP, (wanted - 1) // CONTEXT_STEP
    while best is not None and low < high:
        middle = (low + high + 1) // 2
        if (table := fitting(middle * CONTEXT_STEP)) is not None:
            best, low = table, middle
        else:
            high = middle - 1
    return best
