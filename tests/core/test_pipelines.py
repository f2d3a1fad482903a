"""Plans of several pipelines: each session stays in one, and a loss in one is no matter of the others."""

from collections import Counter
from dataclasses import replace

import pytest
from builders import a_device, a_manifest, a_plan, a_profile, an_id
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.asker import Asker
from swisd.core.choice import Crowd, choose
from swisd.core.effects import Publish
from swisd.core.events import Received, Started
from swisd.core.failover import choose_spares, mended, patch
from swisd.core.messages import Ask, Digest, MemberView, Out
from swisd.core.moving import owners
from swisd.core.request import Request
from swisd.core.types import Capability, Pipeline, Plan, Prediction, SamplingParams, Verdict

MANIFEST = a_manifest(4)  # the embedding 2 MiB, layers of 10, the head 30
quick = settings(deadline=None, derandomize=True, max_examples=60)


def several(*pipelines: tuple[tuple[int, int, int], ...], **changes: object) -> Plan:
    """A plan of these pipelines, each given by its cuts as `a_plan` takes them."""
    made = tuple(a_plan(*cuts).pipelines[0] for cuts in pipelines)
    return replace(a_plan(*pipelines[0], objective="throughput"), pipelines=made, **changes)  # type: ignore[arg-type]


def priced(plan: Plan, *stage_ms: float) -> Plan:
    return replace(plan, prediction=Prediction(sum(stage_ms), 1.0, stage_ms, (0.0,) * len(stage_ms)))


ALONE, PAIR = ((0, 6, 1),), ((0, 3, 2), (3, 5, 3), (5, 6, 2))
PLAN = several(ALONE, PAIR, epoch=3)
EQUAL = priced(several(((0, 6, 1),), ((0, 6, 2),), ((0, 6, 3),), epoch=3), 10.0, 10.0, 10.0)


def test_a_device_knows_its_own_pipeline():
    assert [PLAN.number_of(an_id(number)) for number in (1, 2, 3, 4)] == [0, 1, 1, None]
    assert PLAN.drivers == (an_id(1), an_id(2))
    assert PLAN.driver_of(an_id(3)) == an_id(2) and PLAN.driver_of(an_id(4)) is None
    assert [stage.units for stage in PLAN.stages_of(an_id(3))] == [(0, 3), (3, 5), (5, 6)]
    assert PLAN.stages_of(an_id(4)) == ()
    assert owners(PLAN.stages_of(an_id(3)), MANIFEST) == {1: an_id(2), 2: an_id(2), 3: an_id(3), 4: an_id(3)}


# --- which pipeline a session is brought to ----------------------------------------------------------


def session(number: int) -> str:
    return f"{number:014x}00"


def test_sessions_of_one_client_share_out_over_equal_pipelines():
    crowd = Crowd()
    for number in range(9):
        crowd.join(choose(EQUAL, crowd.beside(None), session(number)))
    assert set(crowd.beside(None).values()) == {3}
    crowd.leave(an_id(2))
    assert choose(EQUAL, crowd.beside(None), session(77)) == an_id(2)


def test_clients_who_know_nothing_of_each_other_do_not_all_choose_the_same():
    chosen = Counter(choose(EQUAL, {}, session(number)) for number in range(300))
    assert set(chosen) == set(EQUAL.drivers) and min(chosen.values()) == 100
    first = choose(EQUAL, {}, session(5))
    assert choose(EQUAL, {}, session(5)[:14] + "07") == first  # a further try keeps its turn


def test_a_faster_pipeline_gets_more_sessions_and_all_while_that_is_quicker():
    uneven = priced(PLAN, 5.0, 20.0, 10.0, 5.0)  # 5 ms alone; a pair of 35 ms, its driver busy for 25 of them
    crowd = Crowd()
    order = []
    for number in range(8):
        order.append(choose(uneven, crowd.beside(None), session(number)))
        crowd.join(order[-1])
    assert order[:6] == [an_id(1)] * 6 and an_id(2) in order
    assert choose(uneven, {an_id(1): 7}, session(1)) == an_id(2)


def test_what_a_digest_tells_counts_too():
    members = tuple(
        MemberView(an_id(number), "a", "alive", "ready", (), 0, number, True, 0, sessions=count)
        for number, count in ((1, 4), (2, 0), (3, 1))
    )
    digest = Digest(an_id(1), 3, 1, members)
    assert choose(EQUAL, Crowd().beside(digest), session(0)) == an_id(2)
    own = Crowd()
    own.join(an_id(2))
    own.join(an_id(2))
    assert choose(EQUAL, own.beside(digest), session(0)) == an_id(3)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 40))
@quick
def test_no_pipeline_is_left_idle_while_another_would_take_longer(times: list[int], sessions: int):
    plan = several(*(((0, 6, number),) for number in range(1, len(times) + 1)))
    plan = priced(plan, *(float(ms) for ms in times))
    crowd = Crowd()
    for number in range(sessions):
        loads = crowd.beside(None)
        chosen = choose(plan, loads, session(number))
        cost = {d: ms * (loads.get(d, 0) + 1) for d, ms in zip(plan.drivers, times, strict=True)}
        assert cost[chosen] == min(cost.values())
        crowd.join(chosen)


def test_an_asker_goes_on_with_another_driver_when_its_own_drives_nothing_any_more():
    asker = Asker(Request(session(1), "f" * 16, (1, 2, 3), 5, SamplingParams(), 9, (0,)))
    asker.handle(Started(), 1.0)

    def asked(event: object, now: float) -> list[tuple[str, Ask]]:
        effects = asker.handle(event, now)
        return [
            (effect.to or "", effect.message)
            for effect in effects
            if isinstance(effect, Publish) and isinstance(effect.message, Ask)
        ]

    ((driver, start),) = asked(Received(an_id(1), EQUAL), 1.0)
    assert driver in EQUAL.drivers and not start.again
    other = next(device for device in EQUAL.drivers if device != driver)
    said = Out(asker.session, 0, 3, (50,), 0)
    assert asked(Received(other, said), 1.1) == [] and asker._answer.tokens == []  # not its driver's word
    asker.handle(Received(driver, said), 1.1)
    assert asker._answer.tokens == [50]
    # A plan that keeps its driver changes nothing for it.
    pipelines = tuple(item for item in EQUAL.pipelines if item.driver in (driver, other))
    ((to, renewed),) = asked(Received(an_id(1), replace(EQUAL, epoch=4, pipelines=pipelines)), 1.2)
    assert to == driver and renewed.op == "renew"
    left = tuple(item for item in EQUAL.pipelines if item.driver != driver)
    ((to, again),) = asked(Received(an_id(1), replace(EQUAL, epoch=5, pipelines=left)), 1.3)
    assert to != driver and again.op == "start" and again.again and again.emitted == (50,)


# --- losses --------------------------------------------------------------------------------------------


def device(number: int, memory_mib: float = 200) -> Capability:
    return a_device(an_id(number), memory_mib, profile=a_profile(2.0))


def rings(pipelines: tuple[Pipeline, ...]) -> list[list[int]]:
    return [[int(stage.device, 16) for stage in pipeline.stages] for pipeline in pipelines]


def mend(lost: set[int], *devices: Capability) -> list[list[int]]:
    return rings(patch(PLAN, {an_id(number) for number in lost}, devices, MANIFEST, an_id(1), {}))


def test_a_lost_device_is_replaced_by_one_of_its_pipeline_or_one_that_has_no_part_in_any():
    assert mend({3}, device(1), device(2), device(4)) in ([[1], [2, 2, 2]], [[1], [2, 4, 2]])
    assert mend({3}, device(1), device(2, 40), device(4)) == [[1], [2, 4, 2]]
    assert mend({3}, device(1), device(2, 80)) == [[1], [2, 2, 2]]


def test_a_pipeline_whose_loss_nobody_can_stand_in_for_ends_and_the_others_go_on():
    assert mend({3}, device(1), device(2, 40)) == [[1]]
    assert mend({1}, device(2), device(3)) == [[2, 3, 2]]
    assert mend({1, 3}, device(2, 40), device(4, 20)) == []
    assert mend({1, 3}, device(2, 40), device(4)) in ([[4], [2, 4, 2]], [[4]])
    assert mend({1, 3}, device(2, 40), device(4)) == [[4]]  # one device is not taken for two


def test_the_plan_says_why_devices_of_a_pipeline_that_ended_have_nothing_to_do():
    devices = [device(1), device(2, 40)]
    found = mended(PLAN, {an_id(3)}, devices, MANIFEST, an_id(1), {}, "cyd")
    assert found is not None and rings(found.pipelines) == [[1]]
    assert found.prediction.stage_ms and len(found.prediction.stage_ms) == 1


def test_verdicts_number_the_pipelines_that_are_left():
    verdicts = tuple(
        Verdict(an_id(number), True, f"runs the whole model in pipeline {number} of 3: 8.5 ms per token")
        for number in (1, 2, 3)
    )
    devices = [device(number) for number in (1, 2, 3)]
    plan = replace(EQUAL, verdicts=verdicts)
    two = mended(plan, {an_id(1)}, devices[1:], MANIFEST, an_id(2), {}, "ann")
    assert two is not None
    assert [item.reason for item in two.verdicts] == [
        "left out: it is gone",
        "runs the whole model in pipeline 1 of 2: 8.5 ms per token",
        "runs the whole model in pipeline 2 of 2: 8.5 ms per token",
    ]
    one = mended(two, {an_id(2)}, devices[2:], MANIFEST, an_id(3), {}, "bob")
    assert one is not None and one.verdicts[2].reason == "runs the whole model: 8.5 ms per token"


def test_spares_are_kept_within_a_pipeline_or_by_who_has_no_part_in_any():
    spares, uncovered = choose_spares(PLAN, [device(1, 500), device(2, 40), device(3, 30)], MANIFEST)
    assert spares == () and set(uncovered) == {an_id(1), an_id(2), an_id(3)}
    spares, uncovered = choose_spares(PLAN, [device(1), device(2), device(3), device(4)], MANIFEST)
    pairs = {(int(spare.device, 16), spare.units) for spare in spares}
    assert not uncovered and {who for who, units in pairs if units == (0, 6)} == {4}
    assert {who for who, units in pairs if units == (3, 5)} <= {2, 4}


def test_choosing_needs_a_pipeline():
    assert choose(EQUAL, {}, session(1)) in EQUAL.drivers
    with pytest.raises(ValueError, match="without pipelines"):
        choose(replace(EQUAL, pipelines=()), {}, session(1))
