"""From a GGUF file to blobs and a manifest."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from swisd.core.errors import BadInput, ModelError
from swisd.core.model import Manifest
from swisd.forge.importer import import_model
from tests.tiny_models import HIDDEN, VOCAB, write_model


def test_every_blob_is_its_name_and_the_manifest_is_one(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    source = write_model(tmp_path / "m.gguf", "llama", "Q4_1")
    manifest, sha = import_model(
        source, tmp_path / "out", model_id="tiny", licence="MIT", progress=lambda *call: calls.append(call)
    )
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == {n: n for n in files}
    assert set(files) == {sha, *(blob.sha256 for blob in manifest.blobs)}
    assert Manifest.from_bytes(files[sha]) == manifest
    assert [unit.kind for unit in manifest.units] == ["embed", "layer", "layer", "head"]
    assert (manifest.hidden, manifest.vocab, manifest.licence) == (HIDDEN, VOCAB, "MIT")
    assert manifest.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert manifest.config["eos_ids"] == [2]
    assert {stage for stage, _, _ in calls} == {"check", "units"}
    assert calls[-1] == ("units", 4, 4)


def test_importing_again_gives_the_same_names_and_writes_nothing_new(tmp_path: Path) -> None:
    source = write_model(tmp_path / "m.gguf")
    first = import_model(source, tmp_path / "out", model_id="tiny", licence=None)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert import_model(source, tmp_path / "out", model_id="tiny", licence=None) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_tied_embeddings_are_one_blob_and_cheap_beside_the_head(tmp_path: Path) -> None:
    def heads(tied: bool) -> Manifest:
        source = write_model(tmp_path / f"{tied}.gguf", "llama", "Q8_0", tied=tied)
        return import_model(source, tmp_path / "out", model_id="tiny", licence=None)[0]

    tied, untied = heads(True), heads(False)
    shared = tied.units[0].blobs[0]
    assert shared in tied.units[-1].blobs
    assert not set(untied.units[0].blobs) & set(untied.units[-1].blobs)
    whole = sum(tied.blobs[index].size for index in tied.blob_indices(0, tied.n_units))
    parts = sum(untied.blobs[index].size for index in untied.blob_indices(0, untied.n_units))
    assert parts - whole >= VOCAB * HIDDEN


def test_only_changed_layers_have_other_blobs(tmp_path: Path) -> None:
    """Moving a boundary or changing a layer moves nothing else: a unit's weights are a blob of their own."""
    manifests = []
    for name, kind in (("a", "Q8_0"), ("b", "Q4_0")):
        source = write_model(
            tmp_path / f"{name}.gguf",
            kind=lambda tensor, kind=kind: kind if tensor.startswith("blk.1.") else "F32",
            seed=7,
        )
        manifests.append(import_model(source, tmp_path / "out", model_id="tiny", licence=None)[0])
    first, second = manifests
    assert first.blobs[first.units[1].blobs[0]] == second.blobs[second.units[1].blobs[0]]
    assert first.blobs[first.units[2].blobs[0]] != second.blobs[second.units[2].blobs[0]]


def test_the_tokenizer_blob(tmp_path: Path) -> None:
    def extra(writer: gguf.GGUFWriter) -> None:
        writer.add_chat_template("{{ messages }}")
        writer.add_eot_token_id(5)
        writer.add_add_bos_token(True)
        writer.add_add_space_prefix(False)

    source = write_model(tmp_path / "m.gguf", extra=extra)
    manifest, _ = import_model(source, tmp_path / "out", model_id="tiny", licence=None)
    table = json.loads((tmp_path / "out" / manifest.blobs[manifest.tokenizer].sha256).read_bytes())
    assert table["model"] == "gpt2"
    assert table["pre"] == "smollm"
    assert len(table["tokens"]) == len(table["token_type"]) == VOCAB
    assert table["merges"] == ["t 1"]
    assert (table["bos_id"], table["eos_id"], table["eot_id"], table["unk_id"]) == (1, 2, 5, None)
    assert (table["add_bos"], table["add_eos"], table["add_space_prefix"]) == (True, None, False)
    assert table["chat_template"] == "{{ messages }}"
    assert manifest.config["eos_ids"] == [2, 5]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN), "rope scaling 'yarn'"),
        (lambda writer: writer.add_rope_dimension_count(32), "rope.dimension_count"),
        (lambda writer: writer.add_expert_count(8), "mixture of experts"),
        (lambda writer: writer.add_unk_token_id(VOCAB), "unknown_token_id"),
        (lambda writer: writer.add_uint32("tokenizer.ggml.add_bos_token", 3), "add_bos_token"),
    ],
)
def test_what_cannot_be_run_is_refused(
    tmp_path: Path, extra: Callable[[gguf.GGUFWriter], None], words: str
) -> None:
    source = write_model(tmp_path / "m.gguf", extra=extra)
    with pytest.raises(ModelError, match=words):
        import_model(source, tmp_path / "out", model_id="tiny", licence=None)


def test_an_output_that_is_no_folder(tmp_path: Path) -> None:
    source = write_model(tmp_path / "m.gguf")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(BadInput, match="cannot write"):
        import_model(source, tmp_path / "out", model_id="tiny", licence=None)
