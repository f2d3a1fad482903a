"""The probe needs only manifest and graph, keeps to its memory, and leaves nothing behind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swisd.core.errors import DoesNotFit, ModelError, SwisdError
from swisd.runtime import probe as probing
from swisd.runtime.probe import probe


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "SECONDS", 0.01)


def graph_only(model: Any, tmp_path: Path) -> Path:
    name = model.manifest.blobs[model.manifest.graph].sha256
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / name).write_bytes((model.blobs / name).read_bytes())
    return tmp_path / "blobs"


@pytest.mark.parametrize(("architecture", "kind"), [("llama", "Q4_1"), ("gemma3", "Q5_0")])
def test_a_device_is_measured_before_it_has_any_weights(
    imported: Callable[..., Any], tmp_path: Path, architecture: str, kind: str
) -> None:
    model = imported(architecture, kind)
    blobs, scratch = graph_only(model, tmp_path), tmp_path / "scratch"
    result = probe(model.manifest, blobs, threads=(1,), memory_limit=1 << 30, scratch=scratch)
    assert result.layer_ms > 0
    assert result.layer_row_ms > 0
    assert result.embed_ms > 0
    assert result.run_ms >= 0
    assert result.head_ms is not None
    assert result.head_ms > 0
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("counts", "took", "best", "tried"),
    [
        ((8, 4, 2, 1), {8: 9.0, 4: 6.0, 2: 5.0, 1: 8.0}, 2, [8, 4, 2, 1]),
        ((8, 4, 2, 1), {8: 5.0, 4: 4.9, 2: 1.0}, 8, [8, 4]),  # a little faster does not make up for prompts
        ((4,), {}, 4, []),
    ],
)
def test_fewer_threads_are_taken_where_they_are_clearly_faster(
    imported: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    counts: tuple[int, ...], took: dict[int, float], best: int, tried: list[int],
) -> None:  # fmt: skip
    model, seen = imported("llama", "Q4_1"), list[int]()

    def token(_: object, shard: Any, position: int) -> float:
        seen.append(shard.threads)
        return took.get(shard.threads, 3.0)

    monkeypatch.setattr(probing._Probe, "_token", token)
    scratch = tmp_path / "scratch"
    blobs = graph_only(model, tmp_path)
    result = probe(model.manifest, blobs, threads=counts, memory_limit=1 << 30, scratch=scratch)
    assert result.threads == best
    assert seen == [*tried, best, best]  # then one layer, and all, with the best


def test_a_head_that_does_not_fit_is_left_out(imported: Callable[..., Any], tmp_path: Path) -> None:
    model = imported("llama", "Q4_1")
    layer, head = model.manifest.units[1], model.manifest.units[-1]
    limit = layer.resident_bytes + layer.kv_bytes_per_token * 256
    manifest = model.manifest
    units = (*manifest.units[:-1], type(head)("head", head.blobs, head.fragment, limit + 1, 0, 0))
    small = type(manifest)(**{**{f: getattr(manifest, f) for f in manifest.__slots__}, "units": units})
    blobs = graph_only(model, tmp_path)
    result = probe(small, blobs, threads=(1,), memory_limit=limit, scratch=tmp_path / "scratch")
    assert result.head_ms is None
    assert result.layer_ms > 0
    with pytest.raises(DoesNotFit, match="one layer of"):
        probe(small, blobs, threads=(1,), memory_limit=limit - 1, scratch=tmp_path / "scratch")


def test_without_the_graph_there_is_nothing_to_measure(imported: Callable[..., Any], tmp_path: Path) -> None:
    model = imported()
    with pytest.raises(ModelError, match="is not here yet"):
        probe(model.manifest, tmp_path, threads=(1,), memory_limit=1 << 30, scratch=tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_full_disk_is_said_before_anything_is_written(
    imported: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = imported()
    blobs, scratch = graph_only(model, tmp_path), tmp_path / "scratch"
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(probing.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        SwisdError, match=r"disk is full: measuring takes \d+ MiB .* 0 MiB are free in .*scratch"
    ):
        probe(model.manifest, blobs, threads=(1,), memory_limit=1 << 30, scratch=scratch)
    assert list(scratch.iterdir()) == []
