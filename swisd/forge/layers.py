"""The graph of each unit: embedding, one transformer layer, head.

The tensor that enters unit i is `h{i}`. Every layer starts with a plain norm of `h{i}` and ends with the
`Add` that makes `h{i+1}`, so a cut between layers changes no node and no bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swisd.core.errors import ModelError
from swisd.forge.architectures import Shape
from swisd.forge.gguf_file import GgufFile
from swisd.forge.graph_parts import CONTRIB, FLOAT, Fragment, Placed
from swisd.forge.quant import F32, Linear, NBits, linear, reorder, stack, stackable, to_float

# Which products read x with 16 bits instead of 8: queries, keys and values in the first third of the layers,
# and the last product of the first tenth. Outliers arise there, and every later layer carries on what 8 bits
# lose of them; elsewhere 16 bits gain nothing that can be measured (docs/log.md, "Which products need fp32").
FINE_ATTENTION, FINE_DOWN = 3, 10


@dataclass(slots=True)
class Source:
    """Reads tensors of the file with their shapes checked."""

    file: GgufFile
    shape: Shape

    def vector(self, name: str, width: int) -> F32:
        tensor = self.file.tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.file.path.name} lacks the tensor {name}")
        if tensor.shape != (width,):
            raise ModelError(f"{self.file.path.name}: {name} has shape {tensor.shape}, ({width},) is needed")
        return to_float(tensor.type, self.file.raw(tensor))

    def matrix(self, name: str, rows: int, columns: int) -> Linear:
        tensor = self.file.tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.file.path.name} lacks the tensor {name}")
        if tensor.shape != (rows, columns):
            raise ModelError(
                f"{self.file.path.name}: {name} has shape {tensor.shape}, ({rows}, {columns}) is needed"
            )
        return linear(tensor.type, self.file.raw(tensor), rows, columns)


def products(
    part: Fragment, x: str, layers: list[Linear], biases: list[F32] | None = None, *, fine: bool = False
) -> list[str]:
    """Several linear layers over the same x: one product where their types allow it.

    Returns one name (all outputs side by side) or one per layer.
    """
    if stackable(layers):
        return [part.linear(x, stack(layers), np.concatenate(biases) if biases else None, fine=fine)]
    every: Sequence[F32 | None] = biases or [None] * len(layers)
    return [part.linear(x, layer, bias, fine=fine) for layer, bias in zip(layers, every, strict=True)]


def split(part: Fragment, joined: list[str], widths: list[int]) -> list[str]:
    if len(joined) == len(widths):
        return joined
    names = [part.name("part") for _ in widths]
    part.node("Split", [joined[0], part.constant(widths)], names, axis=1)
    return names


def among_first(share: int, number: int, n_layers: int) -> bool:
    """Whether layer `number` is in the first 1 / `share` of the layers, rounded up."""
    return number * share < n_layers


def layer(source: Source, number: int) -> Fragment:
    """Unit `number + 1`: transformer layer `number`."""
    shape, unit = source.shape, number + 1
    part = Fragment(f"u{unit}.")

    def gain(label: str, width: int = shape.hidden) -> F32:
        return source.vector(f"blk.{number}.{label}.weight", width)

    def matrix(label: str, rows: int, columns: int) -> Linear:
        return source.matrix(f"blk.{number}.{label}.weight", rows, columns)

    x = part.norm(f"h{unit}", gain("attn_norm"), shape.epsilon)
    attended = _attention(source, part, number, x)
    out = part.linear(attended, matrix("attn_output", shape.hidden, shape.q_width))
    if shape.post_norms:
        out = part.norm(out, gain("post_attention_norm"), shape.epsilon)
    x, middle = part.add_norm(f"h{unit}", out, gain("ffn_norm"), shape.epsilon)
    both = [matrix("ffn_gate", shape.ffn, shape.hidden), matrix("ffn_up", shape.ffn, shape.hidden)]
    gate, up = split(part, products(part, x, both), [shape.ffn, shape.ffn])
    if shape.gelu:
        gate = part.node("FastGelu", [gate], domain=CONTRIB)
    else:
        gate = part.node("QuickGelu", [gate], domain=CONTRIB, alpha=1.0)  # x * sigmoid(x)
    x = part.node("Mul", [gate, up])
    fine = among_first(FINE_DOWN, number, shape.n_layers)
    out = part.linear(x, matrix("ffn_down", shape.hidden, shape.ffn), fine=fine)
    if shape.post_norms:
        out = part.norm(out, gain("post_ffw_norm"), shape.epsilon)
    part.node("Add", [middle, out], [f"h{unit + 1}"])
    return part


def _attention(source: Source, part: Fragment, number: int, x: str) -> str:
    """float32 [rows, hidden] -> [rows, heads * head_size]."""
    shape = source.shape
    widths = [shape.q_width, shape.kv_width, shape.kv_width]
    labels = ("attn_q", "attn_k", "attn_v")
    layers = [
        source.matrix(f"blk.{number}.{label}.weight", width, shape.hidden)
        for label, width in zip(labels, widths, strict=True)
    ]
    biases = None
    if shape.bias:
        biases = [
            source.vector(f"blk.{number}.{label}.bias", width)
            for label, width in zip(labels, widths, strict=True)
        ]
    if shape.interleaved:
        # Rotary pairs (2i, 2i + 1) become (i, i + half), which is faster. Queries and keys are reordered
        # alike, so no score changes.
        layers[0] = reorder(layers[0], _halves(shape.heads, shape.head_size))
        layers[1] = reorder(layers[1], _halves(shape.kv_heads, shape.head_size))
    fine = among_first(FINE_ATTENTION, number, shape.n_layers)
    joined = products(part, x, layers, biases, fine=fine)
    if shape.head_norms:
        q, k, v = split(part, joined, widths)
        q, k = (_head_norm(source, part, number, *item) for item in ((q, "attn_q_norm"), (k, "attn_k_norm")))
        joined = [q, k, v]
    # `steps` = [batch, tokens, -1] is an input of the shard.
    joined = [part.node("Reshape", [name, "steps"]) for name in joined]
    qkv = joined if len(joined) == 3 else [joined[0], "", ""]
    key, key_out = part.kv(f"k{number + 1}", shape.kv_heads, shape.head_size)
    value, value_out = part.kv(f"v{number + 1}", shape.kv_heads, shape.head_size)
    rope, window = shape.rope_of_layer[number], shape.window_of_layer[number]
    attended = part.node(
        "GroupQueryAttention",
        [*qkv, key, value, "seqlens_k", "total_sequence_length", f"cos{rope}", f"sin{rope}"],
        [part.name("attended"), key_out, value_out],
        domain=CONTRIB,
        num_heads=shape.heads,
        kv_num_heads=shape.kv_heads,
        do_rotary=1,
        rotary_interleaved=0,
        scale=shape.scale,
        **({"local_window_size": window} if window else {}),
    )
    return part.node("Reshape", [attended, part.constant([-1, shape.q_width])])


def _halves(heads: int, size: int) -> NDArray[np.intp]:
    """Rows of each head: the even ones, then the odd ones."""
    rows = np.arange(heads * size, dtype=np.intp).reshape(heads, size // 2, 2)
    return rows.transpose(0, 2, 1).reshape(-1)


def _head_norm(source: Source, part: Fragment, number: int, x: str, label: str) -> str:
    shape = source.shape
    gamma = source.vector(f"blk.{number}.{label}.weight", shape.head_size)
    by_head = part.node("Reshape", [x, part.constant([-1, shape.head_size])])
    return part.norm(by_head, gamma, shape.epsilon)


def embed(source: Source) -> tuple[Fragment, Linear]:
    """Unit 0: `ids` int64 [rows] -> `h1`. Rows are gathered as integers and then dequantised, so the table
    stays in the file's mapping and costs almost no memory."""
    shape = source.shape
    table = source.matrix("token_embd.weight", shape.vocab, shape.hidden)
    part = Fragment("u0.")
    if isinstance(table, NBits):
        packed = part.node("Gather", [part.weight("q", table.packed, resident=0), "ids"])
        scales = part.node("Gather", [part.weight("s", table.scales, resident=0), "ids"])
        if table.bits == 4:
            low = part.node("BitwiseAnd", [packed, part.scalar(15, np.uint8)])
            high = part.node("BitShift", [packed, part.scalar(4, np.uint8)], direction="RIGHT")
            pair = [part.node("Unsqueeze", [half, part.constant([3])]) for half in (low, high)]
            both = part.node("Concat", pair, axis=3)
            packed = part.node("Reshape", [both, part.constant([0, 0, table.block])])
        values = part.node("Cast", [packed], to=FLOAT)
        values = part.node("Sub", [values, part.scalar(1 << (table.bits - 1), np.float32)])
        last = part.constant([2])
        rows = part.node("Mul", [values, part.node("Unsqueeze", [scales, last])])
        if table.offsets is not None:
            offsets = part.node("Gather", [part.weight("c", table.offsets, resident=0), "ids"])
            rows = part.node("Add", [rows, part.node("Unsqueeze", [offsets, last])])
        rows = part.node("Reshape", [rows, part.constant([-1, shape.hidden])])
    else:
        rows = part.node("Gather", [part.weight("w", table.weight, resident=0), "ids"])
    factor = part.scalar(shape.embedding_scale, np.float32)
    part.node("Mul", [rows, factor], ["h1"])
    # Pages of the table that prompts touch, and one row a step.
    part.resident += 1 << 20
    part.read += table.shape[1] * 4
    return part, table


def head(source: Source, table: Linear, places: list[Placed]) -> Fragment:
    """Last unit: `h{n-1}`, `rows` int64 [wanted] -> `logits` [wanted, vocab].

    Without `output.weight` the embedding's `table` is used where it lies (`places`).
    """
    shape = source.shape
    unit = shape.n_layers + 1
    part = Fragment(f"u{unit}.")
    wanted = part.node("Gather", [f"h{unit}", "rows"])
    x = part.norm(wanted, source.vector("output_norm.weight", shape.hidden), shape.epsilon)
    if "output.weight" in source.file.tensors:
        part.linear(x, source.matrix("output.weight", shape.vocab, shape.hidden), out="logits")
    else:
        part.shared = [(part.name("tied"), place) for place in places]
        part.resident += sum(place.length for place in places)
        part.linear_with(x, table, [name for name, _ in part.shared], out="logits")
    return part
