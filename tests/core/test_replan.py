"""When a plan is replaced."""

from dataclasses import replace

from builders import a_plan, an_id

from swisd.core.failover import devices_of
from swisd.core.replan import WORTH, broken, worthwhile
from swisd.core.types import Prediction

PLAN = a_plan((0, 2, 1), (2, 4, 2), (4, 6, 1))
OTHER = a_plan((0, 2, 1), (2, 4, 3), (4, 6, 1)).pipelines
HERE = [an_id(1), an_id(2), an_id(3)]


def a_price(token_ms: float, *stage_ms: float) -> Prediction:
    return Prediction(token_ms, 1.0, stage_ms, ())


def test_a_plan_breaks_when_one_of_its_devices_is_gone_or_failed():
    assert broken(PLAN, HERE, {}) == ""
    assert broken(PLAN, HERE[:2], {an_id(3): "failed"}) == ""
    assert broken(PLAN, [an_id(1), an_id(3)], {}) == f"device {an_id(2)} is gone"
    banned = {an_id(2): "could not load its shard"}
    assert broken(PLAN, HERE, banned) == f"device {an_id(2)} could not load its shard"


def test_the_devices_of_a_plan():
    assert devices_of(PLAN.pipelines) == {an_id(1), an_id(2)}
    assert devices_of(()) == set()


def test_the_same_pipelines_are_never_worth_a_change():
    assert worthwhile(a_price(100.0), PLAN, a_price(1.0), PLAN.pipelines, 1 << 20) == ""


def test_a_change_must_promise_clearly_less_time():
    assert worthwhile(a_price(100.0), PLAN, a_price(100 * WORTH + 0.1), OTHER, PLAN.context) == ""
    better = worthwhile(a_price(100.0), PLAN, a_price(85.0), OTHER, PLAN.context)
    assert better == "85.0 ms instead of 100.0 ms"
    assert worthwhile(a_price(100.0), PLAN, a_price(300.0), OTHER, PLAN.context) == ""


def test_twice_the_context_is_worth_a_change():
    assert worthwhile(a_price(1.0), PLAN, a_price(2.0), OTHER, 2 * PLAN.context - 1) == ""
    assert "instead of 1024" in worthwhile(a_price(1.0), PLAN, a_price(2.0), OTHER, 2 * PLAN.context)


def test_throughput_looks_at_the_busiest_device_with_all_its_stages():
    plan = replace(PLAN, objective="throughput")
    now = a_price(10.0, 3.0, 4.0, 2.0)  # the driver runs the first and the last stage: 5 ms
    assert worthwhile(now, plan, a_price(1.0, 1.0, 5.0, 0.0), OTHER, 1) == ""
    assert worthwhile(now, plan, a_price(1.0, 4.0, 4.0, 1.0), OTHER, 1) == ""
    better = worthwhile(now, plan, a_price(99.0, 3.0, 4.0, 1.0), OTHER, 1)
    assert better == "250.0 tokens/s together instead of 200.0"


def test_throughput_counts_all_pipelines_together():
    one = replace(a_plan((0, 6, 1)), objective="throughput")
    two = (*one.pipelines, *a_plan((0, 6, 2)).pipelines)
    alone, both = a_price(5.0, 5.0), a_price(10.0, 5.0, 10.0)
    assert worthwhile(alone, one, both, two, 1) == "300.0 tokens/s together instead of 200.0"
    # And back, when a device of one of them has become slow.
    assert worthwhile(both, replace(one, pipelines=two), alone, one.pipelines, 1) == ""
    slow = a_price(100.0, 100.0, 10.0)
    assert worthwhile(slow, replace(one, pipelines=two), alone, one.pipelines, 1).startswith("200.0 tokens/s")
    little = a_price(50.0, 5.0, 50.0)
    assert worthwhile(alone, one, little, two, 1) == ""


def test_figures_that_are_missing_are_no_reason_for_a_change():
    plan = replace(PLAN, objective="throughput")
    assert worthwhile(a_price(0.0), plan, a_price(1.0, 1.0), OTHER, 1) == ""
    assert worthwhile(a_price(9.0, 9.0), plan, a_price(0.0), OTHER, 1) == ""


def test_spread_follows_the_set_of_devices():
    plan = replace(PLAN, objective="spread")
    assert worthwhile(a_price(1.0), plan, a_price(9.0), OTHER, 1) == "the set of devices changed"
    moved = a_plan((0, 3, 1), (3, 4, 2), (4, 6, 1)).pipelines
    assert worthwhile(a_price(1.0), plan, a_price(1.0), moved, 1) == ""
