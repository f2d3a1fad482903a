"""Who takes over when devices of a plan are lost, so that all others keep their shards and what they hold.

The cuts stay where they are: a stage's inputs are in the journal of the stage before, so only what is lost is
run again. Where no single device has room for all that one device ran, a new placement is made instead.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from swisd.core.costmodel import Unpriced, predict, profile_of
from swisd.core.model import Manifest
from swisd.core.placement.verdicts import renumbered
from swisd.core.shards import memory_of
from swisd.core.types import Capability, DeviceId, Member, Pipeline, Plan, Spare, Units

MOST_PRICED = 24  # candidates that are compared by what the whole plan would take


def ranges_of(pipelines: Sequence[Pipeline]) -> dict[DeviceId, tuple[Units, ...]]:
    """What each device runs, in order of the pipeline."""
    found: dict[DeviceId, tuple[Units, ...]] = {}
    for pipeline in pipelines:
        for stage in pipeline.stages:
            found[stage.device] = (*found.get(stage.device, ()), stage.units)
    return found


def devices_of(pipelines: Iterable[Pipeline]) -> set[DeviceId]:
    """All that have a part in any of them."""
    return {device for pipeline in pipelines for device in pipeline.devices}


def can_run(device: Capability, manifest: Manifest, model: str, ranges: Collection[Units]) -> bool:
    """Whether a device has measured what these units ask of it."""
    profile = profile_of(device, model)
    if profile is None:
        return False
    return profile.head_ms is not None or all(end < manifest.n_units for _, end in ranges)


def patch(
    plan: Plan,
    lost: Collection[DeviceId],
    devices: Sequence[Capability],
    manifest: Manifest,
    host: DeviceId,
    warm: Mapping[DeviceId, Collection[Units]],
) -> tuple[Pipeline, ...]:
    """The plan's pipelines with each lost device replaced by one of `devices`, without those for which that
    cannot be.

    `warm` says which shards a device has in memory: one that has them goes before one that has to load them,
    then the plan that is predicted to be the fastest.
    """
    pipelines = list(plan.pipelines)
    for number, pipeline in enumerate(plan.pipelines):
        elsewhere = devices_of(pipelines[:number]) | devices_of(pipelines[number + 1 :])
        pool = [item for item in devices if item.device not in lost and item.device not in elsewhere]
        pipelines[number] = _patched(pipeline, plan, lost, pool, devices, manifest, host, warm)
    return tuple(pipeline for pipeline in pipelines if pipeline.stages)


def _patched(
    pipeline: Pipeline,
    plan: Plan,
    lost: Collection[DeviceId],
    pool: Sequence[Capability],
    devices: Sequence[Capability],
    manifest: Manifest,
    host: DeviceId,
    warm: Mapping[DeviceId, Collection[Units]],
) -> Pipeline:
    """One pipeline with devices of `pool` in the place of lost ones; without stages if that cannot be."""
    for gone, ranges in ranges_of([pipeline]).items():
        if gone not in lost:
            continue
        runs = ranges_of([pipeline])
        able = [
            item
            for item in pool
            if can_run(item, manifest, plan.model, ranges)
            and memory_of(manifest, {*runs.get(item.device, ()), *ranges}, plan.context) <= item.memory_bytes
        ]
        ready = [item for item in able if set(ranges) <= set(warm.get(item.device, ()))]
        best: tuple[float, DeviceId] | None = None
        for item in _quickest(ready or able, plan.model):
            tried = _replaced(pipeline, gone, item.device)
            try:
                ms = predict(
                    manifest, plan.model, [*devices, *_stand_ins(devices, lost)], host, [tried]
                ).token_ms
            except Unpriced:
                ms = 1e9  # another lost device is still in it; any figure will do to go on
            if best is None or (ms, item.device) < best:
                best = ms, item.device
        if best is None:
            return Pipeline(())
        pipeline = _replaced(pipeline, gone, best[1])
    return pipeline


def mended(
    plan: Plan,
    lost: Collection[DeviceId],
    devices: Sequence[Capability],
    manifest: Manifest,
    host: DeviceId,
    warm: Mapping[DeviceId, Collection[Units]],
    names: str,
) -> Plan | None:
    """The plan with others in the place of those that are lost, and all else as it is; `names` are theirs."""
    pipelines = patch(plan, lost, devices, manifest, host, warm)
    try:
        prediction = predict(manifest, plan.model, devices, host, pipelines)
    except Unpriced:
        return None
    if not pipelines:
        return None
    runs = ranges_of(pipelines)
    number_of = {device: number for number, item in enumerate(pipelines) for device in item.devices}
    verdicts = tuple(
        replace(item, used=True, reason=f"runs what was lost with {names}")
        if item.device in runs and not item.used
        else replace(item, used=False, reason="left out: it is gone")
        if item.device in lost and item.device not in runs
        else replace(item, used=False, reason="left out: nobody can take the place of what its pipeline lost")
        if item.used and item.device not in runs
        else replace(item, reason=renumbered(item.reason, number_of[item.device], len(pipelines)))
        if item.device in number_of
        else item
        for item in plan.verdicts
    )
    spares = still_kept(replace(plan, pipelines=pipelines), devices, manifest)
    return replace(
        plan, pipelines=pipelines, prediction=prediction, verdicts=verdicts, spares=spares, active=False,
        gentle=False,
    )  # fmt: skip


def _stand_ins(devices: Sequence[Capability], lost: Collection[DeviceId]) -> list[Capability]:
    known = {item.device for item in devices}
    return (
        [replace(devices[0], device=gone, links=()) for gone in lost if gone not in known] if devices else []
    )


def _quickest(devices: Sequence[Capability], model: str) -> list[Capability]:
    def layer_ms(device: Capability) -> float:
        profile = profile_of(device, model)
        return profile.layer_ms if profile is not None else 1e9

    return sorted(devices, key=lambda item: (layer_ms(item), item.device))[:MOST_PRICED]


def _replaced(pipeline: Pipeline, gone: DeviceId, by: DeviceId) -> Pipeline:
    return Pipeline(
        tuple(
            replace(stage, members=(Member(by),)) if stage.device == gone else stage
            for stage in pipeline.stages
        )
    )


def choose_spares(
    plan: Plan, devices: Sequence[Capability], manifest: Manifest
) -> tuple[tuple[Spare, ...], tuple[DeviceId, ...]]:
    """Who keeps whose units loaded, and the devices of the plan that nobody can stand in for.

    Whose loss would cost most, by the bytes that had to be loaded, is covered first; a spare that is there
    already stays, else the device with the most room takes it.
    """
    runs = ranges_of(plan.pipelines)
    held: dict[DeviceId, set[Units]] = {device: set(ranges) for device, ranges in runs.items()}
    before = {(spare.device, spare.units) for spare in plan.spares}
    spares: list[Spare] = []
    uncovered: list[DeviceId] = []
    cost = {
        device: sum(manifest.resident_bytes(*units) for units in ranges) for device, ranges in runs.items()
    }
    for covered in sorted(runs, key=lambda device: (-cost[device], device)):
        ranges = runs[covered]
        best: tuple[bool, int, DeviceId] | None = None
        elsewhere = devices_of(plan.pipelines) - {stage.device for stage in plan.stages_of(covered)}
        for item in devices:
            if item.device == covered or item.device in elsewhere:  # nobody has a part in two pipelines
                continue
            if not can_run(item, manifest, plan.model, ranges):
                continue
            need = memory_of(manifest, {*held.get(item.device, ()), *ranges}, plan.context)
            if need <= item.memory_bytes:
                kept = all((item.device, units) in before for units in ranges)
                key = (not kept, need - item.memory_bytes, item.device)
                best = key if best is None else min(best, key)
        if best is None:
            uncovered.append(covered)
            continue
        spares += [Spare(best[2], *units) for units in ranges]
        held.setdefault(best[2], set()).update(ranges)
    return tuple(spares), tuple(uncovered)


def still_kept(plan: Plan, devices: Sequence[Capability], manifest: Manifest) -> tuple[Spare, ...]:
    """The spares of a plan whose devices are here, and have room for them beside what they run by now."""
    runs = ranges_of(plan.pipelines)
    kept: list[Spare] = []
    for item in devices:
        own = set(runs.get(item.device, ()))
        spares = [spare for spare in plan.spares if spare.device == item.device and spare.units not in own]
        need = memory_of(manifest, {*own, *(spare.units for spare in spares)}, plan.context)
        kept += spares if need <= item.memory_bytes else []
    return tuple(kept)
