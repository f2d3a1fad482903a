"""GGUF tensor types as arrays for `MatMulNBits`: the integers of the file, kept as they are.

Every quantised type is `w = scale * (q - zero) + offset` per block. `MatMulNBits` with its default zero
point (8 for 4 bits, 128 for 8) gives the first term exactly, with fp32 scales. Where a type has minima the
second term is a product with the block sums of x: `y = MatMulNBits(x) + block_sums(x) @ offsets.T`.
Integers are centred on the zero point, so that the rounding of x to 8 bits inside `MatMulNBits` is
multiplied by the smallest possible numbers.

Block layouts: ggml-quants.c of ggml; the tests compare each with `gguf.quants.dequantize`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swisd.core.errors import ModelError

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
# Rows are converted in pieces of about this many weights, so that a large vocabulary costs little memory.
PIECE = 1 << 22


@dataclass(slots=True)
class NBits:
    """A linear layer for `MatMulNBits`.

    `packed` is uint8 [N, K/block, block*bits/8] (for 4 bits the even weight is the low nibble), `scales`
    float32 [N, K/block], `offsets` float32 [N, K/block] or None where the type has no minima.
    """

    bits: int
    block: int
    packed: U8
    scales: F32
    offsets: F32 | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.packed.shape[0], self.packed.shape[1] * self.block

    def dequantise(self) -> F32:
        """float32 [N, K]; for tests and for checks."""
        packed = self.packed
        if self.bits == 4:
            packed = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], self.block)
        centred = packed.astype(np.float32) - (1 << (self.bits - 1))
        weights = centred * self.scales[:, :, None]
        if self.offsets is not None:
            weights += self.offsets[:, :, None]
        return weights.reshape(self.shape)


@dataclass(slots=True)
class Dense:
    """A linear layer that stays float: `weight` float32 [N, K]."""

    weight: F32

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1]

    def dequantise(self) -> F32:
        return self.weight


Linear = NBits | Dense


def f16(raw: U8) -> F32:
    """Two bytes at the end of the last axis -> float32 with that axis of length 1."""
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)


def _nibbles(quants: U8) -> U8:
    """[..., n] bytes -> [..., 2n]: all low nibbles, then all high ones (the order of ggml's blocks)."""
    both: U8 = np.concatenate([quants & np.uint8(15), quants >> np.uint8(4)], axis=-1)
    return both


def _pack4(values: U8) -> U8:
    """[..., 32] values below 16 -> [..., 16] bytes, even weight in the low nibble."""
    packed: U8 = values[..., 0::2] | (values[..., 1::2] << np.uint8(4))
    return packed


def _high_bits(raw: U8) -> U8:
    """[..., 4] bytes -> [..., 32] bits of the little-endian word, as 0 or 16."""
    bits: U8 = np.unpackbits(raw, axis=-1, bitorder="little")
    bits <<= 4
    return bits


Parts = tuple[U8, F32, F32 | None]  # packed [n, blob], scales [n], offsets [n] for n blocks


def _q4_0(blocks: U8) -> Parts:
    return _pack4(_nibbles(blocks[:, 2:])), f16(blocks[:, :2])[:, 0], None


def _q4_1(blocks: U8) -> Parts:
    scale, low = f16(blocks[:, :2])[:, 0], f16(blocks[:, 2:4])[:, 0]
    return _pack4(_nibbles(blocks[:, 4:])), scale, low + 8 * scale


def _q5_0(blocks: U8) -> Parts:
    values: U8 = _nibbles(blocks[:, 6:]) | _high_bits(blocks[:, 2:6])
    values += np.uint8(128 - 16)
    return values, f16(blocks[:, :2])[:, 0], None


def _q5_1(blocks: U8) -> Parts:
    scale, low = f16(blocks[:, :2])[:, 0], f16(blocks[:, 2:4])[:, 0]
    values: U8 = _nibbles(blocks[:, 8:]) | _high_bits(blocks[:, 4:8])
    values += np.uint8(128 - 16)
    return values, scale, low + 16 * scale


def _q8_0(blocks: U8) -> Parts:
    return blocks[:, 2:] ^ np.uint8(128), f16(blocks[:, :2])[:, 0], None


def _scales_and_minima(raw: U8) -> tuple[F32, F32]:
    """The 12 bytes of 6-bit scales and minima of Q4_K and Q5_K -> two float32 [n, 8]."""
    low, mid, high = raw[:, 0:4], raw[:, 4:8], raw[:, 8:12]
    scales = np.concatenate([low & 63, (high & 15) | ((low >> 2) & 48)], axis=1)
    minima = np.concatenate([mid & 63, (high >> 4) | ((mid >> 2) & 48)], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _k_affine(blocks: U8, zero: int) -> tuple[F32, F32]:
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    scales = f16(blocks[:, 0:2]) * scales
    return scales, zero * scales - f16(blocks[:, 2:4]) * minima


def _q4_k(blocks: U8) -> Parts:
    values = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 32)
    scales, offsets = _k_affine(blocks, 8)
    return _pack4(values), scales.reshape(-1), offsets.reshape(-1)


def _q5_k(blocks: U8) -> Parts:
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    high = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]
    values: U8 = (low | ((high & np.uint8(1)) << np.uint8(4))).reshape(-1, 32)
    scales, offsets = _k_affine(blocks, 16)
    values += np.uint8(128 - 16)
    return values, scales.reshape(-1), offsets.reshape(-1)


def _q6_k(blocks: U8) -> Parts:
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & np.uint8(3)
    values: U8 = (low | (high << np.uint8(4))).reshape(-1, 16)
    scales = f16(blocks[:, 208:210]) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    values += np.uint8(128 - 32)
    return values, scales.reshape(-1), None


# type -> (bits, block of MatMulNBits, weights in a block of the file, bytes of it, reader)
READERS: dict[str, tuple[int, int, int, int, Callable[[U8], Parts]]] = {
    "Q4_0": (4, 32, 32, 18, _q4_0),
    "Q4_1": (4, 32, 32, 20, _q4_1),
    "Q5_0": (8, 32, 32, 22, _q5_0),
    "Q5_1": (8, 32, 32, 24, _q5_1),
    "Q8_0": (8, 32, 32, 34, _q8_0),
    "Q4_K": (4, 32, 256, 144, _q4_k),
    "Q5_K": (8, 32, 256, 176, _q5_k),
    "Q6_K": (8, 16, 256, 210, _q6_k),
}
MINIMA = frozenset({"Q4_1", "Q5_1", "Q4_K", "Q5_K"})


def to_float(kind: str, raw: U8) -> F32:
    """Bytes of an F32, F16 or BF16 tensor -> float32, flat."""
    if kind == "F32":
        return raw.view("<f4").astype(np.float32)
    if kind == "F16":
        return raw.view("<f2").astype(np.float32)
    if kind == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    raise ModelError(f"a tensor of type {kind} stands where floats are needed")


def linear(kind: str, raw: U8, rows: int, columns: int) -> Linear:
    """One weight matrix [rows, columns] of GGUF type `kind` from its bytes (uint8, flat)."""
    if kind not in READERS:
        return Dense(to_float(kind, raw).reshape(rows, columns))
    bits, block, per_block, block_bytes, reader = READERS[kind]
    row_bytes = columns // per_block * block_bytes
    n_blocks = columns // block
    packed = np.empty((rows, n_blocks, block * bits // 8), np.uint8)
    scales = np.empty((rows, n_blocks), np.float32)
    offsets = np.empty((rows, n_blocks), np.float32) if kind in MINIMA else None
    step = max(1, PIECE // columns)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        blocks = raw[start * row_bytes : stop * row_bytes].reshape(-1, block_bytes)
        part, scale, offset = reader(blocks)
        packed[start:stop] = part.reshape(stop - start, n_blocks, -1)
        scales[start:stop] = scale.reshape(stop - start, n_blocks)
        if offsets is not None and offset is not None:
            offsets[start:stop] = offset.reshape(stop - start, n_blocks)
    return NBits(bits, block, packed, scales, offsets)


def hollow(layer: Linear) -> Linear:
    """The same shapes and sizes without the values: for a table that already lies in a blob."""
    if isinstance(layer, Dense):
        return Dense(np.broadcast_to(np.float32(0), layer.weight.shape))
    return NBits(
        layer.bits,
        layer.block,
        np.broadcast_to(np.uint8(0), layer.packed.shape),
        np.broadcast_to(np.float32(0), layer.scales.shape),
        None if layer.offsets is None else np.broadcast_to(np.float32(0), layer.offsets.shape),
    )


def stack(parts: list[Linear]) -> Linear:
    """Layers of one kind that read the same x, as one with their outputs side by side."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    if isinstance(first, Dense):
        return Dense(np.concatenate([part.weight for part in parts if isinstance(part, Dense)]))
    same = [part for part in parts if isinstance(part, NBits)]
    minima = [part.offsets for part in same if part.offsets is not None]
    return NBits(
        first.bits,
        first.block,
        np.concatenate([part.packed for part in same]),
        np.concatenate([part.scales for part in same]),
        np.concatenate(minima) if minima else None,
    )


def reorder(layer: Linear, rows: NDArray[np.intp]) -> Linear:
    """The same layer with its outputs in another order."""
    if isinstance(layer, Dense):
        return Dense(layer.weight[rows])
    offsets = None if layer.offsets is None else layer.offsets[rows]
    return NBits(layer.bits, layer.block, layer.packed[rows], layer.scales[rows], offsets)


def stackable(parts: list[Linear]) -> bool:
    """True if `stack` can join them without changing a value."""

    def kind(part: Linear) -> tuple[int, int, bool]:
        return (part.bits, part.block, part.offsets is not None) if isinstance(part, NBits) else (0, 0, False)

    return len({kind(part) for part in parts}) == 1


def identity(size: int) -> NBits:
    """The identity of `size` rows, in 4 bits and one block.

    One is -8 times -1/8: the products inside `MatMulNBits`, which take the zero point off last, then add up
    the smallest possible numbers, and no scale rounds.
    """
    weights = np.full((size, size), 8, np.uint8) - 8 * np.eye(size, dtype=np.uint8)
    return NBits(4, size, _pack4(weights)[:, None, :], np.full((size, 1), -1 / 8, np.float32), None)
