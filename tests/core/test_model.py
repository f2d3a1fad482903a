"""Manifests: what a device checks before it trusts a model's description."""

from dataclasses import replace

import pytest
from builders import MIB, a_manifest

from swisd.core.errors import ModelError
from swisd.core.model import Blob, Manifest, Unit


def test_a_manifest_is_read_back_and_named_by_equal_bytes():
    manifest = a_manifest(3)
    body = manifest.to_bytes()
    assert Manifest.from_bytes(body) == manifest
    assert Manifest.from_bytes(body).to_bytes() == body


def test_units_are_an_embedding_layers_and_a_head():
    manifest = a_manifest(3)
    embed, layer, head = manifest.units[0], manifest.units[1], manifest.units[-1]
    for units in ((), (embed, head), (layer, layer, head), (embed, layer, layer), (embed, head, head)):
        with pytest.raises(ValueError, match="embed, one or more layers, head"):
            replace(manifest, units=units)


def test_what_points_outside_its_blobs_is_refused():
    manifest = a_manifest(3)
    count = len(manifest.blobs)
    for change in ({"graph": count}, {"tokenizer": count}):
        with pytest.raises(ValueError, match="not listed"):
            replace(manifest, **change)
    outside = Unit("layer", (count,), (0, 0), 1, 1, 1)
    too_long = Unit("layer", (0,), (50, 51), 1, 1, 1)
    for unit in (outside, too_long):
        with pytest.raises(ValueError, match="unit 2"):
            replace(manifest, units=(*manifest.units[:2], unit, *manifest.units[3:]))


@pytest.mark.parametrize("name", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"])
def test_a_blob_is_named_by_a_sha256(name: str):
    with pytest.raises(ValueError, match="sha256"):
        Blob(name, 1)


def test_memory_of_a_range_adds_up():
    manifest = a_manifest([1 * MIB, 2 * MIB, 4 * MIB], embed_bytes=8 * MIB, head_bytes=16 * MIB, kv=10)
    assert (manifest.n_units, manifest.n_layers) == (5, 3)
    assert manifest.resident_bytes(0, 5) == 31 * MIB
    assert manifest.resident_bytes(1, 3) == 3 * MIB
    assert manifest.kv_bytes_per_token(0, 3) == 20


def test_a_blob_shared_by_two_units_is_listed_once():
    manifest = a_manifest(2)
    assert manifest.units[0].blobs == manifest.units[-1].blobs
    assert manifest.blob_indices(0, manifest.n_units) == [0, 1, 2]
    assert manifest.blob_indices(2, 4) == [2, 0]


def test_a_manifest_that_cannot_be_used_says_why():
    body = a_manifest(2).to_bytes()
    with pytest.raises(ModelError, match="not JSON"):
        Manifest.from_bytes(body[:-1])
    with pytest.raises(ModelError, match="hidden"):
        Manifest.from_bytes(body.replace(b'"hidden":576', b'"hidden":0'))
    with pytest.raises(ModelError, match="version 2, this swisd reads 1: update the older device"):
        Manifest.from_bytes(body.replace(b'"version":1', b'"version":2'))
