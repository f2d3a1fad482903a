"""Tiny random GGUF files of every architecture and tensor type, and a plain float64 forward pass over them.

The pass is written from the papers and shares no code with swisd: weights come from `gguf.quants.dequantize`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

VOCAB, HIDDEN, FFN, HEADS, KV_HEADS = 96, 256, 256, 4, 2
WINDOW = 8
BLOCKED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")


def random_blocks(rng: np.random.Generator, kind: str, rows: int, columns: int) -> np.ndarray:
    """Valid bytes of a quantised matrix with weights of about 0.05."""
    quant = gguf.GGMLQuantizationType[kind]
    if not kind.endswith("_K"):
        weights = rng.normal(0.01, 0.05, (rows, columns)).astype(np.float32)
        return gguf.quants.quantize(weights, quant)
    per_block, size = gguf.GGML_QUANT_SIZES[quant]
    blocks = rng.integers(0, 256, (rows * columns // per_block, size), np.uint8)
    if kind == "Q6_K":
        scale = rng.uniform(1e-5, 3e-5, len(blocks)).astype(np.float16)
        blocks[:, 208:210] = scale.view(np.uint8).reshape(-1, 2)
    else:
        levels = 15 if kind == "Q4_K" else 31
        scale = rng.uniform(0.5, 1.0, len(blocks)) * 0.1 / 63 / levels
        pair = np.stack([scale, scale * levels / 2], axis=1).astype(np.float16)
        blocks[:, 0:4] = pair.view(np.uint8)
    return blocks.reshape(rows, -1)


def describe(
    writer: gguf.GGUFWriter, *, layers: int, context: int, hidden: int, ffn: int, heads: int, kv_heads: int,
    vocab: int, rope_base: float,
) -> None:  # fmt: skip
    """What a file says of a model's shape, and of a tokenizer that knows `vocab` tokens t0, t1 and so on."""
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(rope_base)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"t{number}" for number in range(vocab)])
    writer.add_token_types([1] * vocab)
    writer.add_token_merges(["t 1"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def write_model(
    path: Path,
    architecture: str = "llama",
    kind: str | Callable[[str], str] = "F32",
    *,
    layers: int = 2,
    tied: bool = True,
    seed: int = 0,
    extra: Callable[[gguf.GGUFWriter], None] | None = None,
) -> Path:
    """A GGUF file; `kind` is the type of all matrices, or says it for a tensor's name."""
    rng = np.random.default_rng(seed)
    gemma = architecture == "gemma3"
    head = 128 if gemma else HIDDEN // HEADS
    writer = gguf.GGUFWriter(path, architecture)
    describe(
        writer, layers=layers, context=2048, hidden=HIDDEN, ffn=FFN, heads=HEADS, kv_heads=KV_HEADS,
        vocab=VOCAB, rope_base=50000.0,
    )  # fmt: skip
    if gemma:
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_sliding_window(WINDOW)
    if extra:
        extra(writer)

    def matrix(name: str, rows: int, columns: int) -> None:
        chosen = kind if isinstance(kind, str) else kind(name)
        if chosen in BLOCKED:
            data = random_blocks(rng, chosen, rows, columns)
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[chosen])
            return
        weights = rng.normal(0, 0.05, (rows, columns)).astype(np.float32)
        quant = gguf.GGMLQuantizationType[chosen]
        writer.add_tensor(name, gguf.quants.quantize(weights, quant), raw_dtype=quant)

    def vector(name: str, width: int, centre: float) -> None:
        writer.add_tensor(name, rng.normal(centre, 0.1, width).astype(np.float32))

    matrix("token_embd.weight", VOCAB, HIDDEN)
    for number in range(layers):
        block = f"blk.{number}."
        sizes = {"q": HEADS * head, "k": KV_HEADS * head, "v": KV_HEADS * head}
        vector(f"{block}attn_norm.weight", HIDDEN, 1)
        for label, size in sizes.items():
            matrix(f"{block}attn_{label}.weight", size, HIDDEN)
            if architecture == "qwen2":
                vector(f"{block}attn_{label}.bias", size, 0)
        matrix(f"{block}attn_output.weight", HIDDEN, HEADS * head)
        vector(f"{block}ffn_norm.weight", HIDDEN, 1)
        matrix(f"{block}ffn_gate.weight", FFN, HIDDEN)
        matrix(f"{block}ffn_up.weight", FFN, HIDDEN)
        matrix(f"{block}ffn_down.weight", HIDDEN, FFN)
        if gemma:
            for label in ("q", "k"):
                vector(f"{block}attn_{label}_norm.weight", head, 1)
            vector(f"{block}post_attention_norm.weight", HIDDEN, 1)
            vector(f"{block}post_ffw_norm.weight", HIDDEN, 1)
    vector("output_norm.weight", HIDDEN, 1)
    if not tied:
        matrix("output.weight", VOCAB, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def forward(path: Path, ids: list[int]) -> np.ndarray:
    """Logits float64 [tokens, vocab] of a file of `write_model`."""
    reader = gguf.GGUFReader(path)
    tensors = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
        for tensor in reader.tensors
    }
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields["general.architecture"]
    gemma = architecture == "gemma3"

    def key(name: str, default: Any = None) -> Any:
        return fields.get(f"{architecture}.{name}", default)

    head = key("attention.key_length", HIDDEN // HEADS)
    x = tensors["token_embd.weight"][ids]
    if gemma:
        x = x * math.sqrt(HIDDEN)
    for number in range(key("block_count")):
        block = {
            name.removeprefix(f"blk.{number}."): value
            for name, value in tensors.items()
            if name.startswith(f"blk.{number}.")
        }
        is_global = not gemma or number % 6 == 5
        base = key("rope.freq_base") if is_global else 10000.0
        rates = base ** (-np.arange(0, head, 2) / head) / key("rope.scaling.factor", 1.0)
        if "rope_freqs.weight" in tensors:
            rates = rates / tensors["rope_freqs.weight"]
        attended = _attention(
            _norm(x, block["attn_norm.weight"]),
            block,
            head,
            rates,
            interleaved=architecture == "llama",
            window=None if is_global else WINDOW,
        )
        out = attended @ block["attn_output.weight"].T
        x = x + (_norm(out, block["post_attention_norm.weight"]) if gemma else out)
        y = _norm(x, block["ffn_norm.weight"])
        gate, up = y @ block["ffn_gate.weight"].T, y @ block["ffn_up.weight"].T
        if gemma:
            gate = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
        else:
            gate = gate / (1 + np.exp(-gate))
        out = (gate * up) @ block["ffn_down.weight"].T
        x = x + (_norm(out, block["post_ffw_norm.weight"]) if gemma else out)
    table = tensors.get("output.weight", tensors["token_embd.weight"])
    return _norm(x, tensors["output_norm.weight"]) @ table.T


def _norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain


def _rotate(x: np.ndarray, rates: np.ndarray, interleaved: bool) -> np.ndarray:
    """x: [tokens, heads, size]."""
    angles = np.arange(len(x))[:, None, None] * rates
    cos, sin = np.cos(angles), np.sin(angles)
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    out = np.empty_like(x)
    first, second = a * cos - b * sin, b * cos + a * sin
    if interleaved:
        out[..., 0::2], out[..., 1::2] = first, second
    else:
        out[..., :half], out[..., half:] = first, second
    return out


def _attention(
    x: np.ndarray,
    block: dict[str, np.ndarray],
    head: int,
    rates: np.ndarray,
    *,
    interleaved: bool,
    window: int | None,
) -> np.ndarray:
    tokens = len(x)
    q, k, v = (
        (x @ block[f"attn_{label}.weight"].T + block.get(f"attn_{label}.bias", 0.0)).reshape(tokens, -1, head)
        for label in "qkv"
    )
    if "attn_q_norm.weight" in block:
        q, k = _norm(q, block["attn_q_norm.weight"]), _norm(k, block["attn_k_norm.weight"])
    q, k = _rotate(q, rates, interleaved), _rotate(k, rates, interleaved)
    k, v = (np.repeat(part, HEADS // KV_HEADS, axis=1) for part in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(head)
    distance = np.arange(tokens)[:, None] - np.arange(tokens)[None, :]
    visible = (distance >= 0) & (distance < (window or tokens))
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", weights, v).reshape(tokens, -1)
