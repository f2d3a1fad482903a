"""Writes a GGUF file of a llama shape of about 1 B with random 4-bit weights, to measure speed with.

    python -m tests.lab.large large.gguf --kind Q4_1
    swisd models add large.gguf --id large

16 layers, hidden 2048, FFN 8192, 32 and 8 heads, vocabulary 32,000, tied embedding (Q8_0): 1.04 B weights. It
says nothing of meaning. A few rows of each matrix repeat, so that it is made in seconds; layers differ.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

LAYERS, HIDDEN, FFN, HEADS, KV_HEADS, VOCAB = 16, 2048, 8192, 32, 8, 32000
DRAWN = 64  # rows of a matrix that are drawn


def write(path: Path, kind: str, seed: int = 0) -> None:
    """A file whose matrices but the embedding are of type `kind`."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"t{number}" for number in range(VOCAB)])
    writer.add_token_types([1] * VOCAB)
    writer.add_token_merges(["t 1"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def matrix(name: str, rows: int, columns: int, kind: str = kind) -> None:
        quant = gguf.GGMLQuantizationType[kind]
        weights = random.normal(0.0, columns**-0.5, (DRAWN, columns)).astype(np.float32)
        few = gguf.quants.quantize(weights, quant)
        order = random.integers(0, DRAWN, rows)
        writer.add_tensor(name, np.ascontiguousarray(few[order]), raw_dtype=quant)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(HIDDEN, np.float32))

    matrix("token_embd.weight", VOCAB, HIDDEN, "Q8_0")
    for number in range(LAYERS):
        block, narrow = f"blk.{number}.", HIDDEN // HEADS * KV_HEADS
        ones(f"{block}attn_norm.weight")
        for label, rows in (("q", HIDDEN), ("k", narrow), ("v", narrow), ("output", HIDDEN)):
            matrix(f"{block}attn_{label}.weight", rows, HIDDEN)
        ones(f"{block}ffn_norm.weight")
        matrix(f"{block}ffn_gate.weight", FFN, HIDDEN)
        matrix(f"{block}ffn_up.weight", FFN, HIDDEN)
        matrix(f"{block}ffn_down.weight", HIDDEN, FFN)
    ones("output_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--kind", choices=("Q4_0", "Q4_1"), default="Q4_1")
    wish = parser.parse_args()
    write(wish.path, wish.kind)
