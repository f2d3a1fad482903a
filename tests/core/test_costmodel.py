"""The cost model: links measured or estimated, stages, hops, totals."""

import pytest
from builders import MODEL, a_device, a_manifest, a_profile

from swisd.core.costmodel import (
    DEFAULT_LINK,
    FRAME_BYTES,
    LEAST_MBIT_S,
    PROMPT_ROWS,
    Links,
    Unpriced,
    bottlenecks_ms,
    explain,
    predict,
    together_ms,
    token_bytes,
    tokens_per_s,
    unit_bytes,
)
from swisd.core.types import Member, PeerLink, Pipeline, Prediction, Stage


def a_pipeline(*stages: tuple[int, int, str]) -> Pipeline:
    return Pipeline(tuple(Stage(start, end, (Member(device),)) for start, end, device in stages))


def test_a_link_measured_by_one_end_holds_for_both():
    links = Links([a_device("a", links={"b": (4.0, 100.0)}), a_device("b")], "a")
    assert links.between("a", "b") == links.between("b", "a")
    assert links.between("a", "b").rtt_ms == 4.0
    assert links.between("a", "b").measured


def test_of_two_measurements_the_worse_figures_count():
    one, two = a_device("a", links={"b": (4.0, 100.0)}), a_device("b", links={"a": (6.0, 300.0)})
    for devices in ([one, two], [two, one]):
        link = Links(devices, "a").between("b", "a")
        assert (link.rtt_ms, link.mbit_s) == (6.0, 100.0)


def test_of_several_lanes_to_a_peer_the_quicker_counts():
    device = a_device("a")
    lanes = (PeerLink("b", 9.0, 10.0, "mqtt"), PeerLink("b", 2.0, 90.0), PeerLink("b", 3.0, 900.0))
    device = type(device)(**{name: getattr(device, name) for name in device.__slots__} | {"links": lanes})
    assert Links([device], "a").between("b", "a").mbit_s == 90.0


def test_an_unmeasured_pair_is_estimated_by_way_of_the_host():
    devices = [
        a_device("a", links={"h": (4.0, 100.0)}),
        a_device("b"),
        a_device("h", links={"b": (10.0, 30.0)}),
    ]
    link = Links(devices, "h").between("a", "b")
    assert (link.rtt_ms, link.mbit_s, link.measured) == (14.0, 30.0, False)
    # 1 ms of 30 Mbit/s is 30,000 bits
    assert link.hop_ms(3750) == pytest.approx(7.0 + 1.0)


def test_a_pair_nobody_knows_gets_the_cautious_default():
    devices = [a_device("a", links={"h": (4.0, 100.0)}), a_device("b"), a_device("h")]
    links = Links(devices, "h")
    assert links.between("a", "b") == links.between("b", "h") == DEFAULT_LINK
    assert 12 < DEFAULT_LINK.hop_ms(token_bytes(a_manifest())) < 14
    assert links.between("b", "b").hop_ms(1 << 20) < 0.1


def test_a_bandwidth_of_nothing_is_not_an_infinite_cost():
    links = Links([a_device("a", links={"b": (4.0, 0.0)})], "a")
    assert links.between("a", "b").mbit_s == LEAST_MBIT_S


def test_a_device_alone_has_one_stage_and_no_hop():
    manifest = a_manifest(4)
    device = a_device("a", profile=a_profile(2.0, head_ms=5.0, embed_ms=0.25, run_ms=0.5, layer_row_ms=1.0))
    prediction = predict(manifest, MODEL, [device], "a", [a_pipeline((0, 6, "a"))])
    assert prediction.token_ms == pytest.approx(0.5 + 4 * 2.0 + 0.25 + 5.0)
    assert prediction.stage_ms == (prediction.token_ms,)
    assert prediction.hop_ms == (0.0,)
    assert prediction.prompt_token_ms == pytest.approx((0.5 + PROMPT_ROWS * 4 * 1.0) / PROMPT_ROWS)


def test_a_ring_pays_every_stage_and_every_hop():
    manifest = a_manifest(4, hidden=1000)
    one = a_device(
        "a", profile=a_profile(2.0, head_ms=5.0, embed_ms=0.25, run_ms=0.5), links={"b": (3.0, 8.0)}
    )
    two = a_device("b", profile=a_profile(1.0, head_ms=None, run_ms=0.125))
    pipeline = a_pipeline((0, 2, "a"), (2, 5, "b"), (5, 6, "a"))
    prediction = predict(manifest, MODEL, [one, two], "a", [pipeline])
    hop = 1.5 + (4000 + FRAME_BYTES) / 1000
    assert prediction.stage_ms == pytest.approx((0.5 + 0.25 + 2.0, 0.125 + 3.0, 0.5 + 5.0))
    assert prediction.hop_ms == pytest.approx((hop, hop, 0.0))
    assert prediction.token_ms == pytest.approx(sum(prediction.stage_ms) + 2 * hop)
    rows = 2 * (1.5 + PROMPT_ROWS * 4.0) + 2 * 0.5 + 0.125 + PROMPT_ROWS * 4 * 1.0
    assert prediction.prompt_token_ms == pytest.approx(rows / PROMPT_ROWS)


def test_of_several_pipelines_the_slowest_is_told():
    manifest = a_manifest(4)
    devices = [a_device("a", profile=a_profile(1.0)), a_device("b", profile=a_profile(3.0))]
    pipelines = [a_pipeline((0, 6, "a")), a_pipeline((0, 6, "b"))]
    both = predict(manifest, MODEL, devices, "a", pipelines)
    slow = predict(manifest, MODEL, devices, "a", pipelines[1:])
    assert both.token_ms == slow.token_ms
    assert len(both.stage_ms) == 2


def test_of_each_pipeline_the_busiest_device_limits_the_tokens():
    ring, solo = a_pipeline((0, 2, "a"), (2, 5, "b"), (5, 6, "a")), a_pipeline((0, 6, "c"))
    prediction = Prediction(12.0, 1.0, (3.0, 4.0, 2.0, 10.0), (1.5, 1.5, 0.0, 0.0))
    assert bottlenecks_ms(prediction, [ring, solo]) == [5.0, 10.0]
    assert tokens_per_s(prediction, [ring, solo]) == pytest.approx(200.0 + 100.0)
    assert together_ms(prediction, [ring, solo]) == pytest.approx(1000 / 300)


def test_what_pipelines_give_together_is_unknown_without_figures():
    ring = a_pipeline((0, 2, "a"), (2, 5, "b"), (5, 6, "a"))
    for prediction, pipelines in (
        (Prediction(0.0, 0.0, (), ()), [ring]),
        (Prediction(1.0, 1.0, (3.0, 4.0, 2.0), ()), [ring, ring]),
        (Prediction(1.0, 1.0, (3.0,), ()), []),
    ):
        assert tokens_per_s(prediction, pipelines) == together_ms(prediction, pipelines) == 0.0


def test_a_plan_for_devices_that_cannot_run_it_has_no_price():
    manifest = a_manifest(4)
    whole = [a_pipeline((0, 6, "a"))]
    for device in (
        a_device("b"),
        a_device("a", measured=False),
        a_device("a", profile=a_profile(model="cd" * 32)),
    ):
        with pytest.raises(Unpriced, match="device a has no measurements"):
            predict(manifest, MODEL, [device], "a", whole)
    with pytest.raises(Unpriced, match="has not measured the head"):
        predict(manifest, MODEL, [a_device("a", profile=a_profile(head_ms=None))], "a", whole)


def test_memory_is_weights_and_cache():
    manifest = a_manifest(3, layer_bytes=100, embed_bytes=7, head_bytes=50, kv=2)
    assert unit_bytes(manifest, 0, 5, 10) == 7 + 300 + 50 + 3 * 2 * 10
    assert unit_bytes(manifest, 1, 2, 10) == 120


def test_totals_are_explained_in_one_line():
    text = explain(Prediction(25.0, 3.0, (10.0, 8.0, 2.0), (2.5, 2.5, 0.0)))
    assert text == (
        "25.0 ms per token (40.0 tokens/s): computing 20.0 ms in 3 stages, travelling 5.0 ms in 2 hops, "
        "slowest stage 10.0 ms; 3.0 ms per prompt token"
    )
    several = explain(
        Prediction(25.0, 3.0, (20.0, 25.0), (0.0, 0.0)), [a_pipeline((0, 6, name)) for name in "ab"]
    )
    assert several == (
        "2 pipelines, together 90.0 tokens/s; in the slowest 25.0 ms per token (40.0 tokens/s) "
        "and 3.0 ms per prompt token"
    )
    assert "1 stage," in explain(Prediction(10.0, 1.0, (10.0,), (0.0,)))
    assert explain(Prediction(0.0, 0.0, (), ())) == "nothing is planned"
    assert "no measurable time" in explain(Prediction(0.0, 0.0, (0.0,), (0.0,)))
