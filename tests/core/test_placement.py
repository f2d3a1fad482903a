"""Placement: the optimum against brute force, what always holds, and the words for owners."""

import random
from dataclasses import replace

import pytest
from brute import Plan, all_plans
from builders import MIB, MODEL, a_device, a_manifest, a_profile, check_pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.costmodel import Links, predict
from swisd.core.model import Manifest
from swisd.core.placement import Placement, Wish, place
from swisd.core.placement.exact import search_exact
from swisd.core.placement.large import search_large
from swisd.core.placement.objectives import solve
from swisd.core.placement.table import Table
from swisd.core.types import Capability, Objective, Pipeline

CONTEXT = 1024
MS = st.integers(1, 40).map(lambda quarters: quarters / 4)  # coarse, so that ties happen
HEAD_MIB, EMBED_MIB = 30, 2


@st.composite
def manifests(draw: st.DrawFn, most: int = 5) -> Manifest:
    count = draw(st.integers(1, most))
    if draw(st.booleans()):
        return a_manifest(count)
    return a_manifest([draw(st.sampled_from([8, 10, 13])) * MIB for _ in range(count)])


@st.composite
def swarms(draw: st.DrawFn, most: int = 4) -> list[Capability]:
    """Mostly swarms that can run something: all but every seventh have a first device that may drive."""
    names = [f"{number:016x}" for number in range(most - draw(st.integers(0, most - 1)))]
    able = draw(st.integers(0, 6)) < 6
    devices = []
    for name in names:
        peers = [peer for peer in names if peer != name and draw(st.booleans())]
        links = {
            peer: (draw(st.sampled_from([0.0, 0.5, 2.0, 13.0])), draw(st.sampled_from([5.0, 100.0])))
            for peer in peers
        }
        drives = able and name == names[0]
        head = draw(MS if drives else st.one_of(MS, MS, st.none()))
        profile = a_profile(
            draw(MS), head_ms=head, embed_ms=0.1, run_ms=draw(st.sampled_from([0.0, 0.25, 1.0]))
        )
        memory = draw(st.sampled_from([33, 44, 55] if drives else [5, 12, 20, 25, 33, 36, 44, 55, 120]))
        measured = drives or draw(st.integers(0, 9)) < 9
        devices.append(a_device(name, memory, profile=profile, measured=measured, links=links))
    return devices


def ring_of(pipeline: Pipeline) -> tuple[str, ...]:
    """The devices in the order of the ring, the driver first."""
    stages = pipeline.stages
    return tuple(stage.device for stage in (stages if len(stages) == 1 else stages[:-1]))


def the_plan(pipeline: Pipeline, plans: list[Plan]) -> Plan:
    """The same plan among all plans of brute force."""
    stages = pipeline.stages
    counts = tuple(stage.end - stage.start for stage in (stages if len(stages) == 1 else stages[:-1]))
    first = counts[0] - (2 if len(stages) == 1 else 1)
    key = (ring_of(pipeline), (first, *counts[1:]))
    return next(plan for plan in plans if (plan.ring, plan.counts) == key)


def random_swarm(count: int, seed: int, low: float, high: float) -> list[Capability]:
    dice = random.Random(seed)
    names = [f"{number:016x}" for number in range(count)]
    devices = []
    for name in names:
        links = (
            {}
            if name == names[0]
            else {names[0]: (dice.choice([0.3, 3.0, 20.0]), dice.choice([10.0, 900.0]))}
        )
        for peer in dice.sample(names, min(7, count)):
            if peer != name:
                links.setdefault(peer, (dice.uniform(0.3, 20.0), dice.uniform(10, 900)))
        profile = a_profile(
            dice.uniform(0.5, 8.0), head_ms=dice.uniform(2, 20), run_ms=dice.uniform(0.05, 1.0)
        )
        devices.append(
            a_device(name, dice.uniform(low, high), profile=profile, links=dict(list(links.items())[:8]))
        )
    return devices


# The optimum


@settings(max_examples=250, deadline=None, derandomize=True)
@given(manifest=manifests(), devices=swarms(5), host=st.integers(0, 3))
def test_up_to_eight_devices_the_plan_is_the_optimum_of_brute_force(manifest, devices, host):
    host = devices[host % len(devices)].device
    plans = list(all_plans(manifest, devices, host, CONTEXT))
    goals = {
        "latency": lambda plan: (plan.token, len(plan.ring)),
        "spread": lambda plan: (-len(plan.ring), plan.longest, plan.token),
    }
    for objective, goal in goals.items():
        wish = Wish(CONTEXT, CONTEXT, objective)
        placement = place(manifest, MODEL, devices, host, wish)
        if not plans:
            assert placement.pipelines == () and placement.problem
            continue
        assert placement.problem == ""
        (pipeline,) = placement.pipelines
        check_pipeline(manifest, pipeline, devices, CONTEXT)
        chosen = the_plan(pipeline, plans)
        assert goal(chosen) == min(map(goal, plans))
        assert placement.prediction.token_ms == pytest.approx(chosen.token / 1e6, abs=1e-4)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(manifest=manifests(), devices=swarms(5), host=st.integers(0, 3))
def test_a_single_pipeline_for_throughput_is_the_optimum_of_brute_force(manifest, devices, host):
    host = devices[host % len(devices)].device
    plans = list(all_plans(manifest, devices, host, CONTEXT))
    table = Table(manifest, MODEL, devices, Links(devices, host), CONTEXT)
    solution = solve(table, "throughput")
    if solution is None:
        assert not plans
        return
    pipeline = table.pipeline(solution)
    check_pipeline(manifest, pipeline, devices, CONTEXT)

    def goal(plan: Plan) -> tuple[int, int, int]:
        return plan.bottleneck, plan.token, len(plan.ring)

    assert goal(the_plan(pipeline, plans)) == min(map(goal, plans))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", [[10, 10, 10, 10], [13, 8, 10, 13]])
def test_eight_devices_against_brute_force(seed, sizes):
    manifest = a_manifest([size * MIB for size in sizes])
    devices = random_swarm(8, seed, 15, 45)
    best = min(plan.token for plan in all_plans(manifest, devices, devices[0].device, CONTEXT))
    placement = place(manifest, MODEL, devices, devices[0].device, Wish(CONTEXT))
    assert placement.prediction.token_ms == pytest.approx(best / 1e6, abs=1e-4)


def by_subsets(table: Table) -> int:
    """The least latency by dynamic programming over (devices used, last device, layers placed)."""
    count, layers, free = len(table), table.layers, table.free()
    hop = table.hops(range(count), free)
    best = min(table.alone(row, free) for row in range(count))
    for driver in range(count):
        state = {}
        for own in range(table.driver_reach(driver, free) + 1):
            state[1 << driver, driver, own] = table.driving(driver) + own * table.layer[driver]
        for _ in range(count - 1):
            after: dict[tuple[int, int, int], int] = {}
            for (used, last, start), cost in state.items():
                for row in range(count):
                    if used >> row & 1:
                        continue
                    for end in range(start + 1, layers + 1):
                        if table.before[end] - table.before[start] > table.memory[row]:
                            break
                        paid = cost + hop[last][row] + table.run[row] + (end - start) * table.layer[row]
                        key = (used | 1 << row, row, end)
                        after[key] = min(paid, after.get(key, paid))
            ends = (cost + hop[last][driver] for (_, last, end), cost in after.items() if end == layers)
            best = min(best, *ends, best)
            state = after
    return best


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", [[10] * 6, [13, 8, 8, 10, 13, 9]])
def test_eight_devices_against_dynamic_programming(seed, sizes):
    manifest = a_manifest([size * MIB for size in sizes])
    devices = random_swarm(8, seed + 20, 9, 42)
    table = Table(manifest, MODEL, devices, Links(devices, devices[0].device), CONTEXT)
    solution = search_exact(table, list(range(8)), table.free())
    assert solution is not None
    assert solution.cost_ns == by_subsets(table) == table.cost(solution.order, solution.ends, table.free())


# What always holds


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    manifest=manifests(8),
    devices=swarms(7),
    objective=st.sampled_from(["latency", "throughput", "spread"]),
    dice=st.randoms(use_true_random=False),
)
def test_the_order_of_the_input_does_not_matter_and_no_offer_is_exceeded(manifest, devices, objective, dice):
    wish = Wish(4096, 512, objective)
    first = place(manifest, MODEL, devices, devices[0].device, wish)
    shuffled = devices.copy()
    dice.shuffle(shuffled)
    assert place(manifest, MODEL, shuffled, devices[0].device, wish) == first
    assert [verdict.device for verdict in first.verdicts] == sorted(device.device for device in devices)
    used = {verdict.device for verdict in first.verdicts if verdict.used}
    assert all(verdict.reason for verdict in first.verdicts)
    if first.pipelines:
        assert 512 <= first.context <= 4096
        for pipeline in first.pipelines:
            check_pipeline(manifest, pipeline, devices, first.context)
        assert sorted(used) == sorted(device for pipeline in first.pipelines for device in ring_of(pipeline))
    else:
        assert first.problem and not used and first.context == 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(manifest=manifests(8), devices=swarms(6))
def test_one_more_device_never_makes_a_token_slower(manifest, devices):
    wish = Wish(CONTEXT, CONTEXT)
    host = devices[0].device
    fewer = devices[:-1]
    without = place(manifest, MODEL, fewer, host, wish)
    if without.pipelines:
        # A newcomer also brings measurements of links, so the plan without it is priced with them.
        before = predict(manifest, MODEL, devices, host, without.pipelines)
        after = place(manifest, MODEL, devices, host, wish)
        assert after.prediction.token_ms <= before.token_ms + 1e-4


@settings(max_examples=40, deadline=None, derandomize=True)
@given(manifest=manifests(4), devices=swarms(3))
def test_the_context_shrinks_only_as_far_as_memory_asks(manifest, devices):
    host = devices[0].device
    manifest = replace(
        manifest,
        units=tuple(
            replace(unit, kv_bytes_per_token=4096 if unit.kind == "layer" else 0) for unit in manifest.units
        ),
    )
    placement = place(manifest, MODEL, devices, host, Wish(4000, 300))
    steps = [4000, *range(3840, 300, -256), 300]
    fitting = (step for step in steps if next(all_plans(manifest, devices, host, step), None) is not None)
    assert placement.context == next(fitting, 0)


def test_the_model_limits_the_context():
    placement = place(a_manifest(2, context=700), MODEL, [a_device("a")], "a", Wish(4096, 1024))
    assert placement.context == 700


def test_of_two_capabilities_of_one_device_the_later_boot_counts():
    old, new = a_device("a", 10, boot=1), a_device("a", 500, boot=2)
    for devices in ([old, new], [new, old]):
        placement = place(a_manifest(2), MODEL, devices, "a", Wish(CONTEXT))
        assert len(placement.verdicts) == 1 and placement.pipelines


# Many devices


@pytest.mark.parametrize("objective", ["latency", "throughput", "spread"])
@pytest.mark.parametrize("sizes", [[10] * 16, [13, 10, 10, 8] * 4])
def test_a_thousand_devices_get_a_valid_plan(objective: Objective, sizes):
    manifest = a_manifest([size * MIB for size in sizes])
    devices = random_swarm(1000, 1, 14, 60)
    placement = place(manifest, MODEL, devices, devices[0].device, Wish(CONTEXT, CONTEXT, objective))
    for pipeline in placement.pipelines:
        check_pipeline(manifest, pipeline, devices, placement.context)
    assert len(placement.verdicts) == 1000
    if objective == "spread":
        assert len(ring_of(placement.pipelines[0])) == 17  # a driver and a device for each layer


@pytest.mark.parametrize("seed", range(4))
def test_many_devices_are_never_worse_than_the_best_alone(seed):
    manifest = a_manifest(16)
    devices = random_swarm(40, seed, 30, 260)
    host = devices[0].device
    placement = place(manifest, MODEL, devices, host, Wish(CONTEXT))
    for device in devices:
        alone = place(manifest, MODEL, [device], host, Wish(CONTEXT, CONTEXT))
        if alone.pipelines:
            assert placement.prediction.token_ms <= alone.prediction.token_ms + 1e-4


@pytest.mark.parametrize("sizes", [[10] * 12, [13, 8, 10, 10] * 3])
def test_the_search_for_many_devices_is_close_to_the_optimum(sizes):
    manifest = a_manifest([size * MIB for size in sizes])
    compared = 0
    for seed in range(12):
        devices = random_swarm(10, seed, *((30, 60), (20, 200), (60, 120))[seed % 3])
        table = Table(manifest, MODEL, devices, Links(devices, devices[0].device), CONTEXT)
        best = search_exact(table, list(range(10)), table.free())
        found = search_large(table, table.free())
        if best is None:
            assert found is None
            continue
        assert found is not None
        assert best.cost_ns <= found.cost_ns <= 1.1 * best.cost_ns
        assert found.cost_ns == table.cost(found.order, found.ends, table.free())
        compared += 1
    assert compared > 6


def test_memory_that_only_just_suffices_is_found_among_many():
    # Every one of the twelve is needed: ten hold one layer each, one the embedding and the head.
    devices = [a_device(f"{number:016x}", 11) for number in range(11)]
    devices.append(a_device("f" * 16, HEAD_MIB + EMBED_MIB, profile=a_profile(9.0)))
    placement = place(a_manifest(11), MODEL, devices, "f" * 16, Wish(512))
    assert placement.pipelines[0].driver == "f" * 16
    assert len(ring_of(placement.pipelines[0])) == 12


def test_layers_that_fit_in_one_order_only_are_found_among_many():
    # The large layer comes first, so the only device that holds it must come first in the ring.
    devices = [a_device(f"{number:016x}", 6, profile=a_profile(1.0)) for number in range(9)]
    devices.append(a_device("e" * 16, 21, profile=a_profile(9.0)))
    devices.append(a_device("f" * 16, HEAD_MIB + EMBED_MIB))
    manifest = a_manifest([20 * MIB, *[5 * MIB] * 9])
    placement = place(manifest, MODEL, devices, "f" * 16, Wish(512))
    check_pipeline(manifest, placement.pipelines[0], devices, 512)
    assert ring_of(placement.pipelines[0])[:2] == ("f" * 16, "e" * 16)


def test_a_model_of_very_many_uneven_layers_is_planned():
    manifest = a_manifest([(8 + number % 3) * MIB for number in range(400)])
    devices = random_swarm(5, 3, 700, 1400)
    placement = place(manifest, MODEL, devices, devices[0].device, Wish(512))
    check_pipeline(manifest, placement.pipelines[0], devices, 512)


# Words


def words(placement: Placement) -> dict[str, str]:
    return {verdict.device: verdict.reason for verdict in placement.verdicts}


def test_words_for_a_model_that_runs_on_one_device():
    lan = {"a": (26.0, 100.0)}
    devices = [
        a_device("a", 500, profile=a_profile(2.0)),
        a_device("b", 500, profile=a_profile(1.5, head_ms=9.0), links=lan),
        a_device("c", 500, measured=False),
        a_device("d", 9.0),
        a_device("e", 500, profile=a_profile(60.0, run_ms=40.0, head_ms=80.0), links={"a": (0.0, 1e6)}),
        a_device("f", 500, profile=a_profile(2.0, run_ms=0.0, head_ms=50.0), links={"a": (0.0, 1e6)}),
    ]
    placement = place(a_manifest(4), MODEL, devices, "a", Wish(CONTEXT))
    assert words(placement) == {
        "a": "runs the whole model: fastest on one device (13.6 ms per token)",
        "b": "left out: using it would make each token 25.4 ms slower (its link costs 26.4 ms)",
        "c": "left out: still measuring itself",
        "d": "left out: offers 9.0 MiB, one layer needs 11.0 MiB",
        "e": (
            "left out: using it would make each token 98.5 ms slower "
            "(a layer takes it 60.0 ms, the fastest 2.0 ms)"
        ),
        "f": "left out: using it would make each token 0.5 ms slower (one more stage costs 0.5 ms)",
    }
    assert placement.problem == ""


def test_words_for_a_model_on_several_devices():
    near = {"a": (1.0, 900.0), "b": (1.0, 900.0)}
    devices = [
        a_device("a", 45, profile=a_profile(3.0)),
        a_device("b", 46, profile=a_profile(2.0, head_ms=None), links=near),
        a_device("c", 30, profile=a_profile(4.0, head_ms=None), links=near),
    ]
    placement = place(a_manifest(6), MODEL, devices, "a", Wish(CONTEXT))
    assert words(placement) == {
        "a": "runs the embedding, layer 1 and the head: as many as its 45.0 MiB hold (3.0 ms per layer)",
        "b": "runs layers 2-5: fastest per layer (2.0 ms)",
        "c": "runs layer 6: 4.0 ms per layer",
    }


def test_words_for_a_driver_without_layers_and_for_the_other_objectives():
    near = {"a": (1.0, 900.0)}
    devices = [
        a_device("a", 33, profile=a_profile(3.0)),
        a_device("b", 60, profile=a_profile(2.0, head_ms=None), links=near),
        a_device("c", 60, profile=a_profile(90.0, head_ms=None), links=near),
    ]
    placement = place(a_manifest(2), MODEL, devices, "a", Wish(CONTEXT, CONTEXT, "throughput"))
    assert words(placement) == {
        "a": "runs the embedding and the head: drives the others",
        "b": "runs layers 1-2: fastest per layer (2.0 ms)",
        "c": "left out: using it would not make the slowest stage faster",
    }
    spread = place(a_manifest(1), MODEL, devices, "a", Wish(CONTEXT, CONTEXT, "spread"))
    assert words(spread)["b"] == "runs layer 1: fastest per layer (2.0 ms)"
    assert words(spread)["c"] == "left out: more devices than layers to share, and the others are faster"


def test_words_where_joining_makes_no_noticeable_difference():
    near = {"a": (0.0, 1e6)}
    devices = [
        a_device("a", 100, profile=a_profile(2.0, run_ms=0.0)),
        a_device("b", 100, profile=a_profile(2.0, run_ms=0.0, head_ms=9.0), links=near),
    ]
    placement = place(a_manifest(4), MODEL, devices, "a", Wish(CONTEXT))
    assert words(placement)["b"] == "left out: not needed, the model fits on fewer, faster devices"


def test_a_swarm_too_small_is_told_what_is_missing():
    devices = [a_device("a", 40), a_device("b", 20), a_device("c", 500, measured=False), a_device("d", 3)]
    placement = place(a_manifest(6, kv=2048), MODEL, devices, "a", Wish(4096, 512))
    assert placement.problem == (
        "swarm offers 63.0 MiB, model needs 98.0 MiB (weights 92.0 MiB, KV 6.0 MiB at context 512): "
        "35.0 MiB missing; 1 device is still measuring"
    )
    assert words(placement) == {
        "a": "waiting: the swarm cannot hold the model yet",
        "b": "waiting: the swarm cannot hold the model yet",
        "c": "left out: still measuring itself",
        "d": "left out: offers 3.0 MiB, one layer needs 11.0 MiB",
    }


def test_no_room_for_embedding_and_head_is_told():
    devices = [a_device(name, 31) for name in "abcd"]
    problem = place(a_manifest(4), MODEL, devices, "a", Wish(CONTEXT)).problem
    assert problem == (
        "no device can hold embedding and head together, which need 32.0 MiB: largest offer is 31.0 MiB"
    )


def test_a_head_nobody_measured_is_told():
    devices = [a_device("a", 400, profile=a_profile(head_ms=None))]
    problem = place(a_manifest(4), MODEL, devices, "a", Wish(CONTEXT)).problem
    assert problem == "no device with room for embedding and head has measured the head"


def test_memory_in_pieces_too_small_is_told():
    devices = [a_device("a", 40), *(a_device(name, 18) for name in "bcd")]
    problem = place(a_manifest(4), MODEL, devices, "a", Wish(1024)).problem
    assert problem == (
        "swarm offers 94.0 MiB and model needs 74.0 MiB at context 512, but in pieces that do not hold whole "
        "layers of up to 10.5 MiB beside embedding and head on one device (32.0 MiB)"
    )


def test_a_swarm_without_measurements_is_told():
    assert place(a_manifest(2), MODEL, [], "a", Wish(CONTEXT)).problem.startswith(
        "no device has measured itself"
    )
    problem = place(a_manifest(2), MODEL, [a_device("a", measured=False)], "a", Wish(CONTEXT)).problem
    assert problem == "no device has measured itself with this model yet; 1 device is still measuring"
