"""Every architecture and tensor type against a plain float64 forward pass."""

from collections.abc import Callable
from typing import Any

import gguf
import numpy as np
import pytest

from swisd.runtime.shard import Slot
from tests.tiny_models import BLOCKED, VOCAB, forward

IDS = np.random.default_rng(3).integers(0, VOCAB, 24)


def error(model: Any) -> float:
    """Larger relative error of one pass and of one-token steps."""
    (shard,) = model.shards()
    expected = forward(model.gguf, list(IDS))
    at_once = shard.run([Slot("a", 0, 24, 24)], IDS)
    steps = [shard.run([Slot("b", i, 1, 1)], IDS[i : i + 1]) for i in range(24)]
    return max(
        float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
        for got in (at_once, np.concatenate(steps))
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_float_models_agree_closely(imported: Callable[..., Any], architecture: str, kind: str) -> None:
    """Also shows the sliding window (8 of 24 tokens) and the two rotary bases of Gemma 3."""
    assert error(imported(architecture, kind)) < 1e-5


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("kind", BLOCKED)
def test_quantised_models_agree_within_int8_activations(
    imported: Callable[..., Any], architecture: str, kind: str
) -> None:
    assert error(imported(architecture, kind)) < (0.003 if not kind.endswith("_K") else 0.03)


def mixed(name: str) -> str:
    """As in mixed K-quants: v and down of other types than their neighbours."""
    return {"attn_v": "Q6_K", "ffn_down": "Q5_0", "token_embd": "Q8_0"}.get(name.split(".")[-2], "Q4_K")


def test_mixed_types_and_an_untied_head(imported: Callable[..., Any]) -> None:
    assert error(imported("qwen2", mixed, tied=False)) < 0.03


def linear(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def llama3(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("rope_freqs.weight", np.linspace(1, 8, 32).astype(np.float32))


@pytest.mark.parametrize("extra", [linear, llama3])
def test_rope_scaling(imported: Callable[..., Any], extra: Callable[..., None]) -> None:
    assert error(imported("llama", "F32", extra=extra, seed=1 + (extra is linear))) < 1e-5
