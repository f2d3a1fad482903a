"""What differs between the architectures: read from GGUF metadata into one description.

Sources: llama.cpp (llama-arch.cpp, the graph builders of llama, qwen2 and gemma3) for key names, the
meaning of tensors, and what is fixed by the architecture and not written in the file.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from swisd.core.errors import ModelError
from swisd.forge.gguf_file import GgufFile
from swisd.forge.quant import F32, to_float

ARCHITECTURES = ("llama", "qwen2", "gemma3")
GEMMA3_PERIOD = 6  # every sixth layer of Gemma 3 attends globally
GEMMA3_LOCAL_BASE = 10000.0
ROPE_FINE = 256
MAX_CONTEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary angles: `position / factor * base ** (-2 i / head_size) / divisors[i]`."""

    base: float
    factor: float = 1.0
    divisors: tuple[float, ...] = ()

    def table(self, head_size: int, positions: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Coarse and fine cosines and sines, float64 [2 * (coarse + fine), head_size / 2].

        A full table of a long context is tens of megabytes. Position `a * ROPE_FINE + b` needs only row a
        of the coarse and row b of the fine part: cos(A + B) = cos A cos B - sin A sin B, computed by every
        device in float64 and rounded to float32, so all have the same bits (`swisd.runtime.rope`).
        """
        half = head_size // 2
        rates = self.base ** (-np.arange(half, dtype=np.float64) / half) / self.factor
        if self.divisors:
            rates = rates / np.array(self.divisors, np.float64)
        coarse = np.arange(-(-positions // ROPE_FINE), dtype=np.float64)[:, None] * ROPE_FINE * rates
        fine = np.arange(ROPE_FINE, dtype=np.float64)[:, None] * rates
        return np.concatenate([np.cos(coarse), np.sin(coarse), np.cos(fine), np.sin(fine)])


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's dimensions and habits; one layer builder serves all architectures with it."""

    architecture: str
    n_layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_size: int
    vocab: int
    context: int
    epsilon: float
    ropes: tuple[Rope, ...]
    rope_of_layer: tuple[int, ...]
    window_of_layer: tuple[int, ...]  # 0: attends to everything
    interleaved: bool
    scale: float
    gelu: bool
    embedding_scale: float
    bias: bool
    head_norms: bool
    post_norms: bool

    @property
    def q_width(self) -> int:
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_size


class _Keys:
    """Typed, bounded access to the metadata; a missing or odd value is one clear line."""

    def __init__(self, file: GgufFile, architecture: str) -> None:
        self.file, self.architecture = file, architecture

    def whole(self, key: str, high: int, default: int | None = None) -> int:
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= high:
            raise self._bad(key, value, f"a whole number from 1 to {high}")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise self._bad(key, value, "a number")
        if not 0 < value < 1e12:
            raise self._bad(key, value, "a number above 0")
        return float(value)

    def text(self, key: str, default: str) -> str:
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        if not isinstance(value, str):
            raise self._bad(key, value, "a text")
        return value

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.file.metadata

    def _bad(self, key: str, value: object, wanted: str) -> ModelError:
        shown = "missing" if value is None else f"{str(value)[:40]!r}"
        return ModelError(f"{self.file.path.name}: {self.architecture}.{key} is {shown}; {wanted} is needed")


def read_shape(file: GgufFile) -> Shape:
    """The description of the model in `file`; `ModelError` if it is none that can be built."""
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{file.path.name} has architecture {str(architecture)[:60]!r}; "
            f"{', '.join(ARCHITECTURES)} can be run"
        )
    keys = _Keys(file, architecture)
    gemma = architecture == "gemma3"
    n_layers = keys.whole("block_count", 1024)
    hidden = keys.whole("embedding_length", 1 << 16)
    heads = keys.whole("attention.head_count", 1 << 10)
    kv_heads = keys.whole("attention.head_count_kv", 1 << 10, heads)
    head_size = keys.whole("attention.key_length", 1 << 10, hidden // heads)
    context = min(keys.whole("context_length", 1 << 32), MAX_CONTEXT)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelError(f"{file.path.name} lacks the tensor token_embd.weight")
    _check_heads(keys, heads, kv_heads, head_size)
    ropes, rope_of_layer = _ropes(keys, head_size, n_layers)
    windows = (0,) * n_layers
    if gemma:
        window = keys.whole("attention.sliding_window", 1 << 24, 512)
        windows = tuple(0 if _is_global(layer) else window for layer in range(n_layers))
    return Shape(
        architecture=architecture,
        n_layers=n_layers,
        hidden=hidden,
        ffn=keys.whole("feed_forward_length", 1 << 18),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        vocab=embedding.shape[0],
        context=context,
        epsilon=keys.real("attention.layer_norm_rms_epsilon"),
        ropes=ropes,
        rope_of_layer=rope_of_layer,
        window_of_layer=windows,
        interleaved=architecture == "llama",
        # The 27B Gemma 3 scales by hidden / heads, which is not its head size; all others by head size.
        scale=1 / math.sqrt(hidden / heads if gemma and n_layers == 62 else head_size),
        gelu=gemma,
        embedding_scale=math.sqrt(hidden) if gemma else 1.0,
        bias=architecture == "qwen2",
        head_norms=gemma,
        post_norms=gemma,
    )


def _is_global(layer: int) -> bool:
    return layer % GEMMA3_PERIOD == GEMMA3_PERIOD - 1


def _check_heads(keys: _Keys, heads: int, kv_heads: int, head_size: int) -> None:
    name = keys.file.path.name
    if heads % kv_heads or head_size % 8:
        raise ModelError(f"{name}: {heads} heads of size {head_size} over {kv_heads} KV heads cannot be run")
    for key in ("attention.value_length", "rope.dimension_count"):
        if keys.whole(key, 1 << 10, head_size) != head_size:
            raise ModelError(
                f"{name}: {keys.architecture}.{key} differs from the head size {head_size}: not run"
            )
    if keys.file.metadata.get(f"{keys.architecture}.expert_count"):
        raise ModelError(f"{name} is a mixture of experts, which cannot be run yet")
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if keys.has(key):
            raise ModelError(f"{name}: {keys.architecture}.{key} is set, which cannot be run yet")


def _ropes(keys: _Keys, head_size: int, n_layers: int) -> tuple[tuple[Rope, ...], tuple[int, ...]]:
    scaling = keys.text("rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ModelError(
            f"{keys.file.path.name}: rope scaling {scaling[:40]!r} cannot be run; linear and none can"
        )
    factor = keys.real("rope.scaling.factor", 1.0) if scaling == "linear" else 1.0
    main = Rope(keys.real("rope.freq_base", 10000.0), factor, _divisors(keys.file, head_size))
    if keys.architecture != "gemma3":
        return (main,), (0,) * n_layers
    local = Rope(keys.real("rope.freq_base_swa", GEMMA3_LOCAL_BASE))
    return (main, local), tuple(0 if _is_global(layer) else 1 for layer in range(n_layers))


def _divisors(file: GgufFile, head_size: int) -> tuple[float, ...]:
    """`rope_freqs.weight`, which Llama 3 files carry for their long context."""
    tensor = file.tensors.get("rope_freqs.weight")
    if tensor is None:
        return ()
    values: F32 = to_float(tensor.type, file.raw(tensor))
    if values.size != head_size // 2 or not np.isfinite(values).all() or (values <= 0).any():
        raise ModelError(f"{file.path.name}: rope_freqs.weight does not fit the head size {head_size}")
    return tuple(float(value) for value in values)
