"""Several pipelines for throughput: against every partition, what always holds, what people expect."""

from dataclasses import replace

import pytest
from brute import Plan, all_plans
from builders import MIB, MODEL, a_device, a_manifest, a_profile, check_pipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from test_placement import CONTEXT, manifests, random_swarm, ring_of, swarms, the_plan, words

from swisd.core.costmodel import Links
from swisd.core.model import Manifest
from swisd.core.placement import Placement, Wish, place, replicas
from swisd.core.placement.bottleneck import Bottlenecks
from swisd.core.placement.groups import Worth, _exact, _Search, partition
from swisd.core.placement.objectives import solve
from swisd.core.placement.table import Table
from swisd.core.types import Capability

NEAR_OPTIMUM = 0.95
FAST_LINK = (0.0, 1e6)
X = a_device("x", 200, profile=a_profile(2.0, head_ms=10.0))
WISH = Wish(CONTEXT, CONTEXT, "throughput")


def planned(manifest: Manifest, devices: list[Capability], wish: Wish = WISH) -> Placement:
    return place(manifest, MODEL, devices, devices[0].device, wish)


def sets(placement: Placement) -> list[tuple[str, ...]]:
    """The rings of all pipelines, in the order of the plan."""
    return [ring_of(pipeline) for pipeline in placement.pipelines]


def equals(count: int, memory: float, layer_ms: float = 2.0) -> list[Capability]:
    """Devices that do not differ but in their names, on one quick network."""
    names = [f"{number:02}" for number in range(count)]
    links = {names[0]: (1.0, 900.0)}
    return [
        a_device(name, memory, profile=a_profile(layer_ms), links=links if number else {})
        for number, name in enumerate(names)
    ]


@st.composite
def roomy(draw: st.DrawFn, most: int) -> list[Capability]:
    """Swarms in which some devices hold a model alone."""
    devices = draw(swarms(most))
    sizes = st.sampled_from([20, 44, 55, 70, 120, 200])
    return [replace(device, memory_bytes=draw(sizes) * MIB) for device in devices]


def best_partition(plans: list[Plan]) -> float:
    """The greatest rate that disjoint plans can have together, in tokens per ns."""
    rates: dict[frozenset[str], float] = {}
    for plan in plans:
        ring = frozenset(plan.ring)
        rates[ring] = max(rates.get(ring, 0.0), 1 / plan.bottleneck)

    def best(left: list[frozenset[str]]) -> float:
        return max(
            (
                rates[ring] + best([other for other in left[place + 1 :] if not ring & other])
                for place, ring in enumerate(left)
            ),
            default=0.0,
        )

    return best(sorted(rates, key=sorted))


# Against every partition


@settings(max_examples=150, deadline=None, derandomize=True)
@given(manifest=manifests(4), devices=st.one_of(roomy(5), roomy(4), swarms(5)))
def test_few_devices_give_nearly_as_much_as_the_best_partition(manifest, devices):
    plans = list(all_plans(manifest, devices, devices[0].device, CONTEXT))
    placement = planned(manifest, devices)
    rate = sum(1 / the_plan(pipeline, plans).bottleneck for pipeline in placement.pipelines)
    assert rate >= NEAR_OPTIMUM * best_partition(plans)
    # And never less than the best single pipeline gives.
    assert rate >= max((1 / plan.bottleneck for plan in plans), default=0.0) * (1 - 1e-9)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(manifest=manifests(4), devices=roomy(4), data=st.data())
def test_a_bottleneck_is_never_below_its_bound_and_equal_layers_meet_it(manifest, devices, data):
    host = devices[0].device
    table = Table(manifest, MODEL, devices, Links(devices, host), CONTEXT)
    bottlenecks = Bottlenecks(table)
    rows = data.draw(st.sets(st.sampled_from(range(len(table))), min_size=1)) if len(table) else set()
    names = {table.ids[row] for row in rows}
    plans = all_plans(manifest, devices, host, CONTEXT)
    true = min((plan.bottleneck for plan in plans if set(plan.ring) <= names), default=None)
    place = bottlenecks.least(sorted(rows))
    if true is None:
        assert place == len(bottlenecks.values) or not table.uniform
    else:
        bound = bottlenecks.values[place]
        transfers = max((table.transfer(one, other) for one in rows for other in rows), default=0)
        assert bound <= true
        assert bound == true or not table.uniform or bound < transfers


@pytest.mark.parametrize("sizes", [[10] * 12, [13, 8, 10, 10] * 3])
@pytest.mark.parametrize(("low", "high"), [(33, 80), (60, 150), (20, 200), (100, 250)])
def test_groups_of_many_are_close_to_the_best(sizes, low, high):
    manifest = a_manifest([size * MIB for size in sizes])
    for seed in range(4):
        devices = random_swarm(9, seed, low, high)
        table = Table(manifest, MODEL, devices, Links(devices, devices[0].device), CONTEXT)
        worth = Worth(Bottlenecks(table))
        rows = list(range(9))
        best = sum(map(worth.of, _exact(worth, rows)))
        found = _Search(worth, rows).run()
        assert partition(worth, rows) == found
        assert sum(map(worth.of, found)) >= 0.9 * best


# What always holds


@settings(max_examples=100, deadline=None, derandomize=True)
@given(manifest=manifests(8), devices=roomy(11), dice=st.randoms(use_true_random=False))
def test_no_device_is_in_two_pipelines_and_the_order_of_the_input_does_not_matter(manifest, devices, dice):
    wish = Wish(4096, 512, "throughput")
    placement = planned(manifest, devices, wish)
    shuffled = devices.copy()
    dice.shuffle(shuffled)
    assert place(manifest, MODEL, shuffled, devices[0].device, wish) == placement
    for pipeline in placement.pipelines:
        check_pipeline(manifest, pipeline, devices, placement.context)
    used = [device for ring in sets(placement) for device in ring]
    assert len(set(used)) == len(used)
    assert {verdict.device for verdict in placement.verdicts if verdict.used} == set(used)
    stages = [stage for pipeline in placement.pipelines for stage in pipeline.stages]
    assert len(placement.prediction.stage_ms) == len(stages)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(manifest=manifests(8), devices=roomy(11))
def test_several_pipelines_never_give_less_than_one_and_one_is_the_best_there_is(manifest, devices):
    placement = planned(manifest, devices)
    table = Table(manifest, MODEL, devices, Links(devices, devices[0].device), CONTEXT)
    single = solve(table, "throughput")
    assert (single is None) == (not placement.pipelines)
    if single is None:
        return
    if len(placement.pipelines) == 1:
        assert placement.pipelines == (table.pipeline(single),)
        return
    chosen = replicas.replicate(table, single)
    assert tuple(map(table.pipeline, chosen)) == placement.pipelines
    of = Bottlenecks(table).of
    assert sum(1 / of(item) for item in chosen) >= 1 / of(single) * (1 - 1e-9)
    assert [of(item) for item in chosen] == sorted(of(item) for item in chosen)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(manifest=manifests(6), devices=roomy(6))
def test_the_context_is_that_of_one_pipeline_over_all_devices(manifest, devices):
    units = tuple(
        replace(unit, kv_bytes_per_token=8192 if unit.kind == "layer" else 0) for unit in manifest.units
    )
    manifest = replace(manifest, units=units)
    found = planned(manifest, devices, Wish(4096, 512, "throughput"))
    assert found.context == planned(manifest, devices, Wish(4096, 512)).context


@pytest.mark.parametrize(("low", "high"), [(14, 60), (33, 40), (100, 250)])
def test_a_thousand_devices_get_disjoint_pipelines(low, high):
    manifest = a_manifest(16)
    devices = random_swarm(1000, 3, low, high)
    placement = planned(manifest, devices)
    assert 2 <= len(placement.pipelines) <= 64
    for pipeline in placement.pipelines:
        check_pipeline(manifest, pipeline, devices, placement.context)
    used = [device for ring in sets(placement) for device in ring]
    assert len(set(used)) == len(used)
    assert len(placement.prediction.stage_ms) <= 1024


# What people would expect


def test_equal_devices_that_hold_the_model_alone_run_it_alone():
    placement = planned(a_manifest(8), equals(3, 200))
    assert sets(placement) == [("00",), ("01",), ("02",)]
    assert words(placement)["01"] == "runs the whole model in pipeline 2 of 3: 21.6 ms per token"


def test_devices_with_room_for_half_of_it_pair_up():
    placement = planned(a_manifest(8), equals(6, 66))
    assert [len(ring) for ring in sets(placement)] == [2, 2, 2]
    driver, worker = sets(placement)[1]
    assert words(placement)[driver] == (
        "runs the embedding, layers 1-3 and the head in pipeline 2 of 3: fastest per layer (2.0 ms)"
    )
    assert words(placement)[worker] == "runs layers 4-8 in pipeline 2 of 3: fastest per layer (2.0 ms)"


def test_devices_that_hold_it_only_together_run_one_pipeline():
    placement = planned(a_manifest(8), equals(3, 55))
    assert [len(ring) for ring in sets(placement)] == [3]
    assert all(" pipeline" not in reason for reason in words(placement).values())


@pytest.mark.parametrize("objective", ["latency", "spread"])
def test_other_objectives_run_one_pipeline(objective):
    assert len(planned(a_manifest(8), equals(3, 200), Wish(CONTEXT, CONTEXT, objective)).pipelines) == 1


def a_strong_and(weak: float, memory: float) -> list[Capability]:
    """One device that is `weak` times as fast as two others, which offer `memory` MiB each."""
    profile = a_profile(weak, head_ms=5.0 * weak, run_ms=0.5 * weak)
    links = {"strong": (1.0, 900.0)}
    return [
        a_device("strong", 400, profile=a_profile(1.0)),
        a_device("weak 1", memory, profile=profile, links=links),
        a_device("weak 2", memory, profile=profile, links=links),
    ]


def test_weak_devices_run_pipelines_of_their_own_beside_a_strong_one():
    assert sets(planned(a_manifest(8), a_strong_and(4.0, 200))) == [("strong",), ("weak 1",), ("weak 2",)]


def test_weak_devices_share_a_pipeline_beside_a_strong_one():
    first, second = sets(planned(a_manifest(8), a_strong_and(4.0, 70)))
    assert first == ("strong",) and set(second) == {"weak 1", "weak 2"}


def test_devices_that_would_hold_others_up_are_left_out():
    # They have room for two layers each, which would take longer than all of the model on the strong one.
    placement = planned(a_manifest(8), [*a_strong_and(20.0, 25), X])
    assert sets(placement) == [("strong",), ("x",)]
    assert words(placement)["weak 1"] == (
        "left out: it cannot hold the model by itself, and no pipeline would be much faster with it"
    )


def test_a_pipeline_of_its_own_that_would_be_far_too_slow_is_left_out():
    placement = planned(a_manifest(8), [*a_strong_and(70.0, 200), X])
    assert sets(placement) == [("strong",), ("x",)]
    assert words(placement)["weak 1"] == (
        "left out: by itself it would take 945.1 ms per token, the fastest pipeline takes 13.6 ms, and none "
        "would be much faster with it"
    )


def test_a_device_without_room_for_its_caches_is_no_replica():
    # Each holds the model with 1024 tokens; with the 4096 that both together have room for it does not.
    manifest = a_manifest(8, kv=2048)
    memory = 112 + 16 * 2
    short, long = (planned(manifest, equals(2, memory), Wish(n, 512, "throughput")) for n in (1024, 4096))
    assert (len(short.pipelines), short.context) == (2, 1024)
    assert (len(long.pipelines), long.context) == (1, 4096)


def two_that_share_well(head_ms: float) -> list[Capability]:
    """Alone 24.1 ms and a little more with a slower head; together a token each 12.1 ms."""
    return [
        a_device("a", 200, profile=a_profile(2.0, head_ms=8.0, run_ms=0.0)),
        a_device("b", 200, profile=a_profile(2.0, head_ms=head_ms, run_ms=0.0), links={"a": FAST_LINK}),
    ]


def test_at_about_equal_rate_shorter_tokens_decide():
    # 0.4 % more tokens, each as long: no hop is the better choice.
    assert sets(planned(a_manifest(8), two_that_share_well(8.0))) == [("a",), ("b",)]
    # 0.2 % more tokens, but those of the slower replica take longer.
    assert sets(planned(a_manifest(8), two_that_share_well(8.1))) == [("a", "b")]
    # Fewer tokens.
    assert sets(planned(a_manifest(8), two_that_share_well(12.0))) == [("a", "b")]


def test_more_devices_than_pipelines_may_be():
    assert len(planned(a_manifest(2), equals(70, 200)).pipelines) == 64
    slow = a_device("slow", 200, profile=a_profile(run_ms=30.0))
    placement = planned(a_manifest(2), [*equals(64, 200), slow])
    assert len(placement.pipelines) == 64
    assert words(placement)["slow"] == (
        "left out: there are 64 pipelines already, and none would be much faster with it"
    )


def test_no_more_stages_than_a_prediction_has_figures_for(monkeypatch):
    monkeypatch.setattr(replicas, "MOST_STAGES", 8)
    assert [len(ring) for ring in sets(planned(a_manifest(8), equals(6, 66)))] == [2, 2]


def test_a_device_that_hardly_helps_a_pipeline_is_left_out():
    # To drive another costs a run more, which is nearly what the one layer took that it would give away.
    profile = a_profile(1.0, run_ms=0.9)
    devices = [a_device(name, 200, profile=profile, links={"a": FAST_LINK}) for name in "ab"]
    devices.append(a_device("c", 12, profile=profile, links={"a": FAST_LINK}))
    assert sets(planned(a_manifest(8), devices)) == [("a",), ("b",)]


def test_a_group_whose_layers_fit_in_no_order_is_found_out():
    # Each worker could hold three layers somewhere, but two of them never hold all five: it takes three.
    manifest = a_manifest([20 * MIB, 5 * MIB, 20 * MIB, 5 * MIB, 20 * MIB], kv=0)
    devices = [a_device("a", 44), *(a_device(name, 30) for name in "bcd"), a_device("e", 200)]
    placement = planned(manifest, devices)
    assert sorted(map(sorted, sets(placement))) == [["a", "b", "c", "d"], ["e"]]
    for pipeline in placement.pipelines:
        check_pipeline(manifest, pipeline, devices, CONTEXT)
