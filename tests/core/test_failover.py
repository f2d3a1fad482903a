"""Who takes over what was lost, and who stands by: within the memory, the warm before the cold."""

from dataclasses import replace
from itertools import pairwise

import pytest
from builders import MIB, a_device, a_manifest, a_plan, a_profile, an_id
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.failover import choose_spares, patch, ranges_of, still_kept
from swisd.core.shards import memory_of
from swisd.core.types import Capability, Pipeline, Plan, Spare

quick = settings(deadline=None, derandomize=True, max_examples=80)
MANIFEST = a_manifest(4)  # the embedding 2 MiB, layers of 10, the head 30
RING = a_plan((0, 2, 1), (2, 4, 2), (4, 5, 3), (5, 6, 1))


def device(number: int, memory_mib: float = 200, layer_ms: float = 2.0, **changes: object) -> Capability:
    made = a_device(an_id(number), memory_mib, profile=a_profile(layer_ms))
    return replace(made, **changes)  # type: ignore[arg-type]


def mend(lost: set[int], *devices: Capability, warm: dict[int, list] | None = None) -> list[int]:
    """The ring afterwards, by number; empty if nobody can."""
    known = {an_id(number): units for number, units in (warm or {}).items()}
    pipelines = patch(RING, {an_id(number) for number in lost}, devices, MANIFEST, an_id(1), known)
    return [int(stage.device, 16) for pipeline in pipelines for stage in pipeline.stages]


def test_only_the_lost_device_is_replaced_and_the_cuts_stay():
    devices = [device(1), device(3), device(4)]
    pipelines = patch(RING, {an_id(2)}, devices, MANIFEST, an_id(1), {})
    assert [stage.units for stage in pipelines[0].stages] == [(0, 2), (2, 4), (4, 5), (5, 6)]
    assert mend({2}, *devices)[0] == 1 and mend({2}, *devices)[1] != 2


def test_who_has_it_in_memory_goes_before_who_is_faster():
    slow, fast = device(4, layer_ms=9.0), device(5, layer_ms=1.0)
    assert mend({2}, device(1, 45), device(3, 12), slow, fast) == [1, 5, 3, 1]
    assert mend({2}, device(1, 45), device(3, 12), slow, fast, warm={4: [(2, 4)]}) == [1, 4, 3, 1]
    assert mend({2}, device(1, 45), device(3, 12), slow, fast, warm={4: [(2, 3)]}) == [
        1,
        5,
        3,
        1,
    ]  # only a part


def test_a_driver_is_replaced_in_both_its_stages_by_one_device():
    assert mend({1}, device(2), device(3), device(4), warm={4: [(0, 2), (5, 6)]}) == [4, 2, 3, 4]
    headless = device(4, profiles=(a_profile(head_ms=None),))
    assert mend({1}, device(2, 100), device(3, 60), headless)[0] in (2, 3)


def test_two_losses_at_once():
    assert mend({2, 3}, device(1, 45), device(4, 25), device(5, 15)) == [1, 4, 5, 1]
    assert mend({2, 3}, device(1, 45), device(4, 25)) == []


def test_where_nobody_has_room_there_is_no_patch():
    assert mend({2}, device(1, 45), device(3, 15), device(4, 15)) == []
    assert mend({2}, device(1, 45), device(3, 15), device(4, 25)) == [1, 4, 3, 1]
    assert (
        mend({2}, device(1, 45), device(3, 15), device(4, 200, profiles=())) == []
    )  # has not measured itself
    assert mend({1, 2, 3}) == []


@st.composite
def swarms(draw: st.DrawFn) -> tuple[Plan, list[Capability]]:
    """A plan of 1 to 4 devices, and devices of any memory, most of which it fits."""
    cuts = sorted(draw(st.sets(st.integers(1, 4), max_size=3)))
    bounds = [0, *cuts, 6]
    stages = [(start, end, number) for number, (start, end) in enumerate(pairwise(bounds), 1)]
    if len(stages) > 1:
        start, _, number = stages[-1]
        stages[-1:] = [(start, 5, number), (5, 6, 1)] if start < 5 else [(5, 6, 1)]
    plan = a_plan(*stages)
    devices = []
    for number in range(1, draw(st.integers(len(bounds) - 1, 7)) + 1):
        held = set(ranges_of(plan.pipelines).get(an_id(number), ()))
        least = memory_of(MANIFEST, held, plan.context) / MIB
        head = draw(st.sampled_from((5.0, 5.0, None))) if not any(end == 6 for _, end in held) else 5.0
        profile = a_profile(draw(st.sampled_from((1.0, 2.0, 9.0))), head_ms=head)
        devices.append(replace(device(number, least + draw(st.integers(0, 120))), profiles=(profile,)))
    before = draw(st.booleans())
    return (replace(plan, spares=choose_spares(plan, devices, MANIFEST)[0]) if before else plan), devices


def used(plan: Plan, pipelines: tuple[Pipeline, ...], spares: tuple[Spare, ...], item: Capability) -> int:
    ranges = set(ranges_of(pipelines).get(item.device, ()))
    return memory_of(
        MANIFEST, ranges | {spare.units for spare in spares if spare.device == item.device}, plan.context
    )


@quick
@given(swarms(), st.randoms(use_true_random=False))
def test_spares_fit_cover_others_and_do_not_depend_on_the_order(swarm: tuple[Plan, list[Capability]], random):
    plan, devices = swarm
    spares, uncovered = choose_spares(plan, devices, MANIFEST)
    runs = ranges_of(plan.pipelines)
    for item in devices:
        assert used(plan, plan.pipelines, spares, item) <= item.memory_bytes
        for spare in spares:  # nobody stands by for itself
            assert spare.device != item.device or spare.units not in runs.get(item.device, ())
    for covered, ranges in runs.items():
        by = {spare.device for spare in spares if spare.units in ranges}
        whole = [name for name in by if {s.units for s in spares if s.device == name} >= set(ranges)]
        assert bool(whole) == (covered not in uncovered)
    mixed = list(devices)
    random.shuffle(mixed)
    assert choose_spares(plan, mixed, MANIFEST) == (spares, uncovered)


@quick
@given(swarms())
def test_spares_that_are_loaded_stay_where_they_are(swarm: tuple[Plan, list[Capability]]):
    plan, devices = swarm
    kept = replace(plan, spares=choose_spares(plan, devices, MANIFEST)[0])
    assert choose_spares(kept, devices, MANIFEST)[0] == kept.spares


@quick
@given(swarms(), st.data())
def test_a_patch_fits_and_leaves_the_others_alone(swarm: tuple[Plan, list[Capability]], data: st.DataObject):
    plan, devices = swarm
    ring = {stage.device for stage in plan.pipelines[0].stages}
    lost = data.draw(st.sets(st.sampled_from(sorted(ring)), min_size=1))
    here = [item for item in devices if item.device not in lost]
    warm = {spare.device: [spare.units] for spare in plan.spares}
    pipelines = patch(plan, lost, here, MANIFEST, an_id(1), warm)
    mixed = data.draw(st.permutations(here))
    assert patch(plan, lost, mixed, MANIFEST, an_id(1), warm) == pipelines
    if not pipelines:
        return
    for before, after in zip(plan.pipelines[0].stages, pipelines[0].stages, strict=True):
        assert before.units == after.units and after.device not in lost
        assert before.device in lost or before.device == after.device
    spares = still_kept(replace(plan, pipelines=pipelines), here, MANIFEST)
    for item in here:
        assert used(plan, pipelines, (), item) <= item.memory_bytes
        assert used(plan, pipelines, spares, item) <= item.memory_bytes
    assert all(spare in plan.spares for spare in spares)


@pytest.mark.parametrize(("memory", "kept"), [(85, True), (55, False)])
def test_a_spare_goes_where_its_device_has_to_run_more(memory: float, kept: bool):
    plan = replace(RING, spares=(Spare(an_id(4), 0, 2), Spare(an_id(4), 5, 6)))
    devices = [device(1), device(3), device(4, memory)]
    then = replace(plan, pipelines=patch(plan, {an_id(2)}, [device(4, 200)], MANIFEST, an_id(1), {}))
    assert ranges_of(then.pipelines)[an_id(4)] == ((2, 4),)
    assert still_kept(then, devices, MANIFEST) == (plan.spares if kept else ())
