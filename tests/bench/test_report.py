"""Who stands beside whom, and what is read from plan and digest."""

from dataclasses import replace

import pytest

from swisd.bench.report import Hop, Report, shape_of, sides, way_of
from swisd.core.checked import from_json, to_json
from swisd.core.messages import Digest
from swisd.core.types import Beyond, HopParts
from tests.bench.reports import a_report, told
from tests.chaos.swarms import TOGETHER, a_member
from tests.core.builders import a_plan, an_id


def test_everybody_stands_beside_one_device_and_llama() -> None:
    solo, swarm, llama = sides([
        told("one device", "solo", 50.0, 40.0, 60.0), told("two", "swarm", 25.0, 40.0, 30.0),
        told("llama.cpp", "llama.cpp", 100.0, 80.0, 120.0),
    ])  # fmt: skip
    assert (solo.decode_vs_solo, solo.decode_vs_llama) == (None, 0.5)
    assert (swarm.decode_vs_solo, swarm.prefill_vs_solo) == (0.5, 1.0)
    assert (llama.decode_vs_solo, llama.decode_vs_llama, llama.crowds) == (2.0, None, ())
    assert [(crowd.requests, crowd.gain, crowd.vs_solo) for crowd in swarm.crowds] == [
        (1, None, 0.5), (4, 2.0, 0.5),
    ]  # fmt: skip
    assert [(crowd.gain, crowd.vs_solo) for crowd in solo.crowds] == [(None, None), (2.0, None)]


def test_a_swarm_without_anybody_beside_it_has_no_ratios() -> None:
    (swarm,) = sides([told("the swarm", "swarm", 20.0)])
    assert swarm.decode_vs_solo is None and swarm.decode_vs_llama is None


def test_a_report_survives_as_a_line() -> None:
    report = a_report(notes=("a note",))
    assert from_json(Report, to_json(report)) == report


def test_the_shape_of_a_plan_is_not_where_it_is_cut() -> None:
    plan = a_plan(*TOGETHER)
    assert shape_of(plan) == "3 devices, 4 stages"
    assert shape_of(a_plan((0, 1, 1), (1, 4, 3), (4, 5, 2), (5, 6, 1))) == shape_of(plan)
    assert shape_of(a_plan((0, 6, 1))) == "1 device, 1 stage"
    assert shape_of(replace(plan, pipelines=plan.pipelines * 2)) == "3 devices, 8 stages, 2 pipelines"


def test_a_tokens_way_is_what_the_devices_tell() -> None:
    plan = a_plan(*TOGETHER)
    members = tuple(a_member(number, stage_ms=float(number), resident_bytes=number) for number in range(1, 5))
    digest = Digest(an_id(1), 1, 1, members, token_ms=9.0)
    way = way_of(plan, digest)
    assert way is not None
    assert [(part.name, part.compute_ms, part.resident_bytes) for part in way.devices] == [
        ("ann", 1.0, 1), ("cyd", 3.0, 3), ("bob", 2.0, 2),
    ]  # fmt: skip
    assert (way.whole_ms, way.compute_ms, way.rest_ms, way.hops) == (9.0, 6.0, 3.0, 3)
    assert way.rest_per_hop_ms == pytest.approx(1.0)


def test_a_hops_wire_is_what_its_devices_leave_of_it() -> None:
    plan = a_plan(*TOGETHER)
    hop = HopParts(wait_ms=0.2, machine_ms=0.1, serialise_ms=0.05)
    members = tuple(a_member(number, stage_ms=float(number), hop=hop) for number in range(1, 5))
    digest = Digest(an_id(1), 1, 1, members, token_ms=9.0, beyond=Beyond(1.5, 3.0))
    way = way_of(plan, digest)
    assert way is not None and way.hop == Hop(0.5, 1.0, 0.05, 0.15, 0.2, 0.1)
    silent = (*members[:-2], a_member(3, stage_ms=3.0), members[-1])
    assert (way := way_of(plan, replace(digest, members=silent))) is not None and way.hop is None


def test_no_way_is_told_before_a_token_was_timed() -> None:
    assert way_of(a_plan(*TOGETHER), Digest(an_id(1), 1, 1, ())) is None


def test_no_way_is_told_while_a_device_keeps_its_time_to_itself() -> None:
    members = tuple(a_member(number, stage_ms=float(number % 3)) for number in range(1, 4))
    assert way_of(a_plan(*TOGETHER), Digest(an_id(1), 1, 1, members, token_ms=9.0)) is None
