import hashlib
from pathlib import Path

import pytest

from swisd.core.errors import BadInput, ModelError
from swisd.core.model import Blob, Manifest, Unit
from swisd.store.disk import BlobStore
from swisd.store.models import ModelEntry, ModelIndex


@pytest.fixture
def index(tmp_path: Path, store: BlobStore) -> ModelIndex:
    return ModelIndex(tmp_path / "models", store)


def model(store: BlobStore, model_id: str, own: bytes, shared: bytes = b"shared") -> tuple[Manifest, str]:
    """Four layers; blobs 0 to 5 are graph, tokenizer, `shared` (embed and head), and three for the layers."""
    pieces = [b"graph" + own, b"tok" + own, shared, own + b"0", own + b"1", own + b"2"]
    blobs = tuple(Blob(store.put(piece), len(piece)) for piece in pieces)

    def unit(kind: str, *indices: int) -> Unit:
        return Unit(kind, indices, (0, 1), 10, 1, 10)  # type: ignore[arg-type]

    units = (unit("embed", 2), unit("layer", 3), unit("layer", 4), unit("layer", 4, 5), unit("layer", 5))
    manifest = Manifest(
        model_id, "llama", "MIT", "0" * 64, 8, 8, 8, blobs, (*units, unit("head", 2)), 0, 1
    )  # fmt: skip
    return manifest, store.put(manifest.to_bytes())


def test_add_list_get(store: BlobStore, index: ModelIndex) -> None:
    assert index.list() == []
    manifest, sha = model(store, "tiny-1.0", b"a")
    entry = index.add(sha, imported=True, source="/tmp/x.gguf")
    assert entry == ModelEntry("tiny-1.0", sha, True, "/tmp/x.gguf")
    assert index.list() == [entry] and index.get("tiny-1.0") == entry
    assert index.manifest("tiny-1.0") == manifest
    assert ModelIndex(index.root, store).list() == [entry]
    assert {path.name for path in index.root.iterdir()} == {"tiny-1.0.json"}


def test_remove_keeps_what_another_model_needs(store: BlobStore, index: ModelIndex) -> None:
    _, one = model(store, "one", b"a")
    other, two = model(store, "two", b"b")
    stray = store.put(b"of no model")
    index.add(one)
    index.add(two)
    assert index.remove("one") > 0
    assert set(store.blobs()) == {two, stray, *(blob.sha256 for blob in other.blobs)}
    assert index.needed() == {two, *(blob.sha256 for blob in other.blobs)}
    index.remove("two")
    assert store.blobs() == [stray] and index.list() == []
    with pytest.raises(ModelError, match="known here: none"):
        index.remove("two")


def test_holding(store: BlobStore, index: ModelIndex) -> None:
    manifest, _ = model(store, "tiny", b"a")
    assert index.holding(manifest) == [(0, 6)]
    store.remove(manifest.blobs[3].sha256)
    assert index.holding(manifest) == [(0, 1), (2, 6)]
    store.remove(manifest.blobs[5].sha256)
    assert index.holding(manifest) == [(0, 1), (2, 3), (5, 6)]
    store.remove(manifest.blobs[2].sha256)
    store.remove(manifest.blobs[4].sha256)
    assert index.holding(manifest) == []


def test_a_model_is_whole_with_all_its_units(store: BlobStore, index: ModelIndex) -> None:
    (one, sha), (_, other) = model(store, "one", b"a"), model(store, "two", b"b")
    index.add(sha)
    index.add(other)
    assert index.whole() == ["one", "two"] and index.has_all(one)
    store.remove(one.blobs[4].sha256)
    store.remove(other)  # the manifest itself
    assert index.whole() == [] and not index.has_all(one)


@pytest.mark.parametrize(
    "model_id", ["", ".", "..", "../x", "a/b", "a\\b", "x.", ".hidden", "a" * 101, "a\n", "é"]
)
def test_ids_that_are_no_file_names_are_refused(store: BlobStore, index: ModelIndex, model_id: str) -> None:
    with pytest.raises(BadInput):
        index.get(model_id)
    _, sha = model(store, model_id, b"a")
    with pytest.raises(BadInput):
        index.add(sha)
    assert list(index.root.iterdir()) == []


def test_files_that_are_no_entries_are_left_out(store: BlobStore, index: ModelIndex) -> None:
    entry = index.add(model(store, "good", b"a")[1])
    (index.root / "junk.json").write_bytes(b"\xff{")
    (index.root / "renamed.json").write_bytes((index.root / "good.json").read_bytes())
    (index.root / "bad.json").write_text('{"model_id": "bad", "manifest": "../../etc/passwd"}')
    assert index.list() == [entry]
    with pytest.raises(ModelError, match="import it again"):
        index.get("bad")


def test_a_manifest_that_is_none(store: BlobStore, index: ModelIndex) -> None:
    with pytest.raises(ModelError):
        index.add(store.put(b"not a manifest"))
    with pytest.raises(ModelError):
        index.add(hashlib.sha256(b"absent").hexdigest())
