"""Shards: the same bits for any cut, chunk and capacity; clear refusals; memory given back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.core.errors import ModelError
from swisd.runtime import kv, opening, shard
from swisd.runtime.kv import KvStore
from swisd.runtime.shard import Shard, Slot
from tests.shards import generate, through
from tests.tiny_models import HIDDEN, VOCAB

CUTS = [(1,), (2,), (4,), (1, 4), (2, 3), (1, 2, 3, 4)]


@pytest.mark.parametrize("kind", ["Q4_1", "Q6_K", "F32"])
@pytest.mark.parametrize("cuts", CUTS)
def test_any_cut_gives_the_same_bits(imported: Callable[..., Any], kind: str, cuts: tuple[int, ...]) -> None:
    model = imported("llama", kind)
    whole = generate(model.shards(), [20], 12)
    assert np.array_equal(generate(model.shards(*cuts), [20], 12), whole)


def test_any_cut_gives_the_same_bits_with_windows(imported: Callable[..., Any]) -> None:
    model = imported("gemma3", "Q5_0")
    whole = generate(model.shards(), [20], 12)
    for cuts in ((3,), (6, 7), (1, 8)):
        assert np.array_equal(generate(model.shards(*cuts), [20], 12), whole)


@pytest.mark.parametrize("chunks", [[10, 10], [2] * 10, [17, 3], [3, 5, 12]])
def test_a_prompt_can_be_replayed_in_any_chunks(imported: Callable[..., Any], chunks: list[int]) -> None:
    model = imported()
    assert np.array_equal(generate(model.shards(2), chunks, 5), generate(model.shards(), [20], 5))


@pytest.mark.parametrize("step", [8, 32, 300])
def test_the_capacity_of_the_cache_changes_no_bits(
    imported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    model = imported()
    expected = generate(model.shards(), [20], 20)
    monkeypatch.setattr(kv, "STEP", step)
    assert np.array_equal(generate(model.shards(), [20], 20), expected)


@pytest.mark.parametrize("rows", [2, 7, 8, 19])
def test_long_inputs_run_in_passes_with_the_same_bits(
    imported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    model = imported()
    ids = np.random.default_rng(1).integers(0, VOCAB, 22)
    slot = Slot("s", 0, 22, 13)
    expected = through(model.shards(), slot, ids)
    monkeypatch.setattr(shard, "PASS_ROWS", rows)
    assert np.array_equal(through(model.shards(), slot, ids), expected)
    assert np.array_equal(through(model.shards(2, 4), slot, ids), expected)


def test_a_repeated_step_truncates_and_gives_the_same_answer(imported: Callable[..., Any]) -> None:
    shards = imported().shards(2)
    first = generate(shards, [20], 6)
    token = first[2].argmax()
    again = through(shards, Slot("s", 22, 1, 1), np.array([token]))
    assert np.array_equal(again[0], first[3])
    assert np.array_equal(generate(shards, [20], 6), first)  # from the very beginning


def test_sessions_do_not_see_each_other(imported: Callable[..., Any]) -> None:
    shards = imported().shards(3)
    alone = generate(shards, [12], 4, "a")
    a, b = np.arange(12), np.arange(40, 57)
    through(shards, Slot("b", 0, 17, 1), b)
    assert np.array_equal(through(shards, Slot("c", 0, 12, 1), a), through(shards, Slot("d", 0, 12, 1), a))
    both = np.concatenate([[5], [7]])
    x = both.astype(np.int64)
    for part in shards:
        x = part.run([Slot("b", 17, 1, 1), Slot("c", 12, 1, 1)], x)
    assert np.array_equal(x[1:], through(shards, Slot("d", 12, 1, 1), np.array([7])))
    assert np.array_equal(generate(shards, [12], 4, "e"), alone)


def test_only_wanted_rows_go_to_the_head(imported: Callable[..., Any]) -> None:
    model = imported()
    body, head = model.shards(4)
    ids = np.arange(10)
    hidden = body.run([Slot("s", 0, 10, 3)], ids)
    assert hidden.shape == (3, HIDDEN)
    assert head.run([Slot("s", 0, 10, 3)], hidden).shape == (3, VOCAB)
    none = body.run([Slot("t", 0, 10, 0)], ids)
    assert none.shape == (0, HIDDEN)
    assert head.run([Slot("t", 0, 10, 0)], none).shape == (0, VOCAB)
    (whole,) = model.shards()
    assert whole.run([Slot("t", 0, 10, 0)], ids).shape == (0, VOCAB)
    embed, *_ = model.shards(1)
    assert embed.run([Slot("s", 0, 10, 1)], ids).shape == (10, HIDDEN)


def test_results_do_not_change_afterwards(imported: Callable[..., Any]) -> None:
    (whole,) = imported().shards()
    first = whole.run([Slot("s", 0, 1, 1)], np.array([3]))
    kept = first.copy()
    whole.run([Slot("s", 1, 1, 1)], np.array([4]))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("cuts", [(), (4,)])
def test_logits_can_be_read_where_they_lie(imported: Callable[..., Any], cuts: tuple[int, ...]) -> None:
    model = imported()
    *body, head = model.shards(*cuts)
    x = np.array([3])
    for part in body:
        x = part.run([Slot("s", 0, 1, 1)], x)
    right = head.run([Slot("s", 0, 1, 1)], x)
    assert np.array_equal(head.read(Slot("s", 0, 1, 1), x, np.copy), right)
    none = x if head.layers else x[:0]  # the head alone takes the wanted rows
    assert head.read(Slot("s", 0, 1, 0), none, np.shape) == (0, VOCAB)
    with pytest.raises(ModelError, match="not float64"):
        head.read(Slot("s", 0, 1, 1), x.astype(np.float64), np.copy)


@pytest.mark.parametrize(
    ("slots", "x", "words"),
    [
        ([], np.zeros(0, np.int64), "one or more slots"),
        ([Slot("s", 0, 2, 1)], np.zeros(3, np.int64), r"take int64 \(2,\), not int64 \(3,\)"),
        ([Slot("s", 0, 2, 1)], np.zeros(2, np.int32), "not int32"),
        ([Slot("s", 0, 2, 1)], np.zeros((2, HIDDEN), np.float32), "not float32"),
        ([Slot("s", 0, 2, 3)], np.zeros(2, np.int64), "3 logits"),
        ([Slot("s", 5, 1, 1)], np.zeros(1, np.int64), "a step at 5, but only 0 tokens"),
        ([Slot("s", 0, 513, 1)], np.zeros(513, np.int64), "allows 512"),
        ([Slot("s", 0, 1, 1)], np.array([VOCAB]), "token ids outside"),
        ([Slot("s", 0, 1, 1)], np.array([-1]), "token ids outside"),
        ([Slot("s", 0, 1, 1)] * 2, np.zeros(2, np.int64), "each of another session"),
    ],
)
def test_steps_that_do_not_fit_are_refused(
    imported: Callable[..., Any], slots: list[Slot], x: np.ndarray, words: str
) -> None:
    (whole,) = imported().shards()
    with pytest.raises(ModelError, match=words):
        whole.run(slots, x)
    assert np.isfinite(whole.run([Slot("s", 0, 1, 1)], np.array([1]))).all()


def test_kv_memory_is_counted_and_given_back(imported: Callable[..., Any]) -> None:
    model = imported()
    (body, head), store = model.shards(4), KvStore(model.manifest, 512)
    body.close()
    body = model.shard(0, 4, store)
    hidden = body.run([Slot("s", 0, 10, 1)], np.arange(10))
    head.run([Slot("s", 0, 10, 1)], hidden)
    assert store.nbytes() == kv.STEP * model.manifest.kv_bytes_per_token(0, 4)
    assert head.store.nbytes() == 0
    store.drop("s")
    store.drop("never seen")
    assert store.nbytes() == 0
    with pytest.raises(ModelError, match="only 0 tokens"):
        body.run([Slot("s", 10, 1, 1)], np.array([1]))
    body.close()
    with pytest.raises(ModelError, match="closed"):
        body.run([Slot("s", 0, 1, 1)], np.array([1]))


def test_a_missing_or_cut_blob_is_named(imported: Callable[..., Any], tmp_path: Path) -> None:
    model = imported()
    for path in model.blobs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    victim = model.manifest.blobs[model.manifest.units[2].blobs[0]].sha256
    (tmp_path / victim).write_bytes(b"short")
    with pytest.raises(ModelError, match=victim[:12]):
        Shard.load(model.manifest, 2, 3, tmp_path, threads=1, store=KvStore(model.manifest, 64))
    # What it does not need it does not miss.
    Shard.load(model.manifest, 3, 4, tmp_path, threads=1, store=KvStore(model.manifest, 64)).close()


def test_a_damaged_graph_and_damaged_settings_are_one_clear_line(
    imported: Callable[..., Any], tmp_path: Path
) -> None:
    model = imported()
    manifest = model.manifest
    for path in model.blobs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    graph = manifest.blobs[manifest.graph]
    (tmp_path / graph.sha256).write_bytes(bytes(graph.size))
    with pytest.raises(ModelError, match="cannot load units 0 to 5"):
        Shard.load(manifest, 0, 5, tmp_path, threads=1, store=KvStore(model.manifest, 64))
    for config in ({}, {**manifest.config, "common": 3}, {**manifest.config, "opset": {"": "new"}}):
        with pytest.raises(ModelError, match="damaged"):
            Shard.load(
                replace(manifest, config=config),
                0,
                5,
                model.blobs,
                threads=1,
                store=KvStore(model.manifest, 64),
            )
    for start, end in ((0, 6), (3, 3), (-1, 2)):
        with pytest.raises(ModelError, match="do not exist"):
            Shard.load(manifest, start, end, model.blobs, threads=1, store=KvStore(model.manifest, 64))


def test_an_old_onnxruntime_is_refused_by_name(
    imported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 1.24 sliding windows were one position too wide: better no answer than a wrong one."""
    monkeypatch.setattr(opening.ort, "__version__", "1.23.2")
    imported("llama").shards()
    with pytest.raises(ModelError, match=r"needs ONNX Runtime 1\.24"):
        imported("gemma3", "Q5_0").shards()
