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

from tests.tiny_models import describe

LAYERS, HIDDEN, FFN, HEADS, KV_HEADS, VOCAB = 16, 2048, 8192, 32, 8, 32000
DRAWN = 64  # rows of a matrix that are drawn


def write(path: Path, kind: str, seed: int = 0) -> None:
    """A file whose matrices but the embedding are of type `kind`."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    describe(
        writer, layers=LAYERS, context=4096, hidden=HIDDEN, ffn=FFN, heads=HEADS, kv_heads=KV_HEADS,
        vocab=VOCAB, rope_base=10000.0,
    )  # fmt: skip
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCAB)

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
