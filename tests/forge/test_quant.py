"""Every tensor type: the arrays for MatMulNBits say exactly what the file says."""

import gguf
import numpy as np
import pytest

from swisd.core.errors import ModelError
from swisd.forge import quant
from tests.tiny_models import BLOCKED, random_blocks


@pytest.mark.parametrize("kind", BLOCKED)
@pytest.mark.parametrize("random", ["weights", "bits"])
def test_integers_and_scales_say_what_gguf_says(kind: str, random: str) -> None:
    rng = np.random.default_rng(1)
    raw = random_blocks(rng, kind, 24, 512)
    if random == "bits":  # every bit pattern of the integers, not only those of a quantiser
        size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
        blocks = raw.reshape(-1, size)
        body = slice(0, 208) if kind == "Q6_K" else slice(4 if kind.endswith(("1", "K")) else 2, size)
        blocks[:, body] = rng.integers(0, 256, blocks[:, body].shape, np.uint8)
    layer = quant.linear(kind, raw.reshape(-1), 24, 512)
    assert isinstance(layer, quant.NBits)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    np.testing.assert_allclose(layer.dequantise(), expected, rtol=2e-6, atol=2e-6 * np.abs(expected).max())
    assert layer.shape == (24, 512)
    assert (layer.offsets is not None) == (kind in quant.MINIMA)
    assert layer.packed.shape == (24, 512 // layer.block, layer.block * layer.bits // 8)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_floats_stay_what_they_are(kind: str) -> None:
    weights = np.random.default_rng(2).normal(0, 1, (4, 64)).astype(np.float32)
    quantised = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[kind])
    layer = quant.linear(kind, np.ascontiguousarray(quantised).view(np.uint8).reshape(-1), 4, 64)
    assert np.array_equal(
        layer.dequantise(), gguf.quants.dequantize(quantised, gguf.GGMLQuantizationType[kind])
    )


def test_a_large_table_is_converted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = random_blocks(np.random.default_rng(3), "Q4_1", 37, 64).reshape(-1)
    whole = quant.linear("Q4_1", raw, 37, 64).dequantise()
    monkeypatch.setattr(quant, "PIECE", 64 * 5)
    assert np.array_equal(quant.linear("Q4_1", raw, 37, 64).dequantise(), whole)


def test_layers_of_one_kind_are_stacked_and_others_are_not() -> None:
    rng = np.random.default_rng(4)

    def make(kind: str) -> quant.Linear:
        return quant.linear(kind, random_blocks(rng, kind, 8, 256).reshape(-1), 8, 256)

    same = [make("Q4_K"), make("Q4_K"), make("Q4_1")]
    assert quant.stackable(same)
    assert np.array_equal(
        quant.stack(same).dequantise(), np.concatenate([part.dequantise() for part in same])
    )
    assert not quant.stackable([make("Q4_K"), make("Q6_K")])
    assert not quant.stackable([make("Q4_0"), make("Q4_1")])


def test_a_hollow_layer_keeps_shapes_and_sizes() -> None:
    raw = random_blocks(np.random.default_rng(5), "Q5_1", 8, 64).reshape(-1)
    layer = quant.linear("Q5_1", raw, 8, 64)
    hollow = quant.hollow(layer)
    assert isinstance(layer, quant.NBits)
    assert isinstance(hollow, quant.NBits)
    assert hollow.shape == layer.shape
    assert hollow.scales.nbytes == layer.scales.nbytes


@pytest.mark.parametrize("size", [16, 32])
def test_the_identity_is_one(size: int) -> None:
    assert np.array_equal(quant.identity(size).dequantise(), np.eye(size))


def test_a_blocked_vector_is_refused() -> None:
    with pytest.raises(ModelError, match="Q4_0"):
        quant.to_float("Q4_0", np.zeros(18, np.uint8))
