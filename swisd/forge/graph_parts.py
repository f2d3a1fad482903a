"""Building one unit's graph fragment: nodes, weights that point into a blob, KV inputs and outputs.

A fragment is a serialised partial `GraphProto`. Serialised messages concatenate, so a device composes a
shard's graph from fragments byte by byte (`swisd.runtime.graph`) and needs no `onnx`.

Activations are float32 [rows, width]; only attention sees three dimensions.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swisd.forge.quant import Linear, NBits, identity

INT8_ACTIVATIONS = 4  # accuracy_level of MatMulNBits: two to three times faster than fp32 (on x86-64)
CONTRIB = "com.microsoft"
FLOAT, INT32, INT64 = 1, 6, 7  # onnx.TensorProto data types
Array = NDArray[Any]


@dataclass(slots=True)
class Weight:
    """A tensor of a blob: which array, or (for a blob that is shared) where it lies."""

    name: str
    array: Array


@dataclass(slots=True)
class Placed:
    """A tensor that lies in a finished blob: its sha256, byte offset and length."""

    sha256: str
    offset: int
    length: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(slots=True)
class Fragment:
    """Collects one unit; `to_bytes` serialises it once all its weights are placed in blobs.

    `resident` counts the bytes that ONNX Runtime keeps for its weights once loaded, `read` the bytes that
    one decode step streams.
    """

    prefix: str
    weights: list[Weight] = field(default_factory=list)
    shared: list[tuple[str, Placed]] = field(default_factory=list)
    resident: int = 0
    read: int = 0
    _nodes: list[Any] = field(default_factory=list)
    _inline: list[Any] = field(default_factory=list)
    _inputs: list[Any] = field(default_factory=list)
    _outputs: list[Any] = field(default_factory=list)
    _constants: dict[tuple[int, ...], str] = field(default_factory=dict)
    _sums: dict[tuple[str, int], str] = field(default_factory=dict)
    _count: int = 0

    def name(self, label: str) -> str:
        self._count += 1
        return f"{self.prefix}{label}{self._count}"

    def node(
        self, op: str, inputs: list[str], outputs: int | list[str] = 1, domain: str = "", **attributes: Any
    ) -> str:
        """Append a node; returns the name of its first output. `outputs`: their number or their names."""
        import onnx

        if isinstance(outputs, int):
            outputs = [self.name(op.lower()) for _ in range(outputs)]
        self._nodes.append(onnx.helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def weight(self, label: str, array: Array, *, resident: int | None = None) -> str:
        """A constant in this unit's own blob. `resident`: what the runtime keeps of it if not its size."""
        name = self.name(label)
        self.weights.append(Weight(name, np.ascontiguousarray(array)))
        self.resident += array.nbytes if resident is None else resident
        return name

    def constant(self, values: list[int]) -> str:
        """A small int64 vector (a shape, axes), inline in the graph so that shapes can be inferred."""
        import onnx

        key = tuple(values)
        if key not in self._constants:
            self._constants[key] = self.name("const")
            array = np.array(values, np.int64)
            self._inline.append(onnx.numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def scalar(self, value: float | int, dtype: type) -> str:
        import onnx

        name = self.name("scalar")
        self._inline.append(onnx.numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def kv(self, name: str, heads: int, head_size: int) -> tuple[str, str]:
        """Declare a KV input and its output (one buffer for both at run time); float32 BNSH."""
        import onnx

        for side, suffix in ((self._inputs, ""), (self._outputs, "_out")):
            shape = ["batch", heads, "capacity", head_size]
            side.append(onnx.helper.make_tensor_value_info(name + suffix, FLOAT, shape))
        return name, name + "_out"

    def norm(self, x: str, gamma: Array, epsilon: float) -> str:
        """RMS norm over the last axis."""
        gain = self.weight("gain", gamma)
        return self.node("SimplifiedLayerNormalization", [x, gain], axis=-1, epsilon=epsilon, stash_type=1)

    def add_norm(self, x: str, skip: str, gamma: Array, epsilon: float) -> tuple[str, str]:
        """RMS norm of `x + skip`; returns (normed, sum)."""
        gain = self.weight("gain", gamma)
        names = [self.name("normed"), "", "", self.name("sum")]
        self.node("SkipSimplifiedLayerNormalization", [x, skip, gain], names, domain=CONTRIB, epsilon=epsilon)
        return names[0], names[3]

    def block_sums(self, x: str, width: int, block: int) -> str:
        """float32 [rows, width] -> [rows, width / block]; shared by all products that read `x`."""
        if (x, block) not in self._sums:
            blocks = self._blocks(x, width, block)
            self._sums[x, block] = self.node("ReduceSum", [blocks, self.constant([2])], keepdims=0)
        return self._sums[x, block]

    def two_parts(self, x: str, width: int, block: int) -> str:
        """float32 [rows, width] -> [2, rows, width]: x, and what int8 products lose of it.

        MatMulNBits rounds each block of x to 8 bits; the second half carries eight bits more. A product of
        both, added up, is as good as one in fp32, and costs less: the weights are read once. And where fp32
        products have one kernel for a single row and another for several, this gives the same bits for a row
        alone and among others.
        """
        key = ("two parts of " + x, block)
        if key not in self._sums:
            blocks = self._blocks(x, width, block)
            # A product with the identity gives x as MatMulNBits rounds it.
            one = identity(block)
            names = [self.weight("q", one.packed), self.weight("s", one.scales)]
            rest = self.node("Sub", [blocks, self._product(blocks, one, names, "", 1)])
            both = self.node("Concat", [blocks, rest], axis=0)
            self._sums[key] = self.node("Reshape", [both, self.constant([2, -1, width])])
        return self._sums[key]

    def _blocks(self, x: str, width: int, block: int) -> str:
        """float32 [rows, width] -> [rows, width / block, block]."""
        key = ("blocks of " + x, block)
        if key not in self._sums:
            shape = self.constant([-1, width // block, block])
            self._sums[key] = self.node("Reshape", [x, shape])
        return self._sums[key]

    def linear(
        self, x: str, layer: Linear, bias: Array | None = None, *, out: str | None = None, fine: bool = False
    ) -> str:
        """`y = x W^T + bias`, float32 [rows, N], named `out` if that is given.

        `fine` reads x with 16 bits instead of 8 (of 4-bit weights).
        """
        if isinstance(layer, NBits):
            names = [self.weight("q", layer.packed), self.weight("s", layer.scales)]
            if layer.offsets is not None:
                names.append(self.weight("c", layer.offsets))
        else:
            names = [self.weight("w", layer.weight)]
        return self.linear_with(x, layer, names, bias, out=out, fine=fine)

    def linear_with(
        self,
        x: str,
        layer: Linear,
        names: list[str],
        bias: Array | None = None,
        *,
        out: str | None = None,
        fine: bool = False,
    ) -> str:
        """Like `linear`, with the weight's arrays already declared (tied embeddings)."""
        width = layer.shape[1]
        last: int | list[str] = [out] if out else 1
        added = self.weight("b", bias) if bias is not None else ""
        if not isinstance(layer, NBits):
            self.read += layer.weight.nbytes
            return self.node("Gemm", [x, names[0], *([added] if added else [])], last, transB=1)
        # Prepacking for int8 activations keeps a float per block beside the scale (its block sum).
        self.resident += layer.scales.nbytes
        self.read += layer.packed.nbytes + 2 * layer.scales.nbytes
        whole = last if layer.offsets is None else 1
        if fine and layer.bits == 4:
            both = self._product(self.two_parts(x, width, layer.block), layer, names, "", 1)
            y = self.node("ReduceSum", [both, self.constant([0])], 1 if added else whole, keepdims=0)
            if added:
                y = self.node("Add", [y, added], whole)
        else:
            y = self._product(x, layer, names, added, whole)
        if layer.offsets is None:
            return y
        self.read += layer.offsets.nbytes
        sums = self.block_sums(x, width, layer.block)
        return self.node("Gemm", [sums, names[2], y], last, transB=1)

    def _product(self, x: str, layer: NBits, names: list[str], bias: str, outputs: int | list[str]) -> str:
        return self.node(
            "MatMulNBits",
            [x, names[0], names[1], *(["", "", bias] if bias else [])],
            outputs,
            domain=CONTRIB,
            K=layer.shape[1],
            N=layer.shape[0],
            bits=layer.bits,
            block_size=layer.block,
            accuracy_level=INT8_ACTIVATIONS,
        )

    def to_bytes(self, placed: dict[str, Placed]) -> bytes:
        """Serialise; `placed` says where each of `weights` has been put."""
        import onnx

        graph = onnx.GraphProto()
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._inline)
        places = [*((weight.name, placed[weight.name]) for weight in self.weights), *self.shared]
        for name, place in places:
            graph.initializer.append(_external(name, place))
        graph.input.extend(self._inputs)
        graph.output.extend(self._outputs)
        data: bytes = graph.SerializeToString(deterministic=True)
        return data


def _external(name: str, place: Placed) -> Any:
    import onnx

    tensor = onnx.TensorProto(name=name, dims=place.shape)
    tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(place.dtype)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = (("location", place.sha256), ("offset", str(place.offset)), ("length", str(place.length)))
    for key, value in entries:
        tensor.external_data.add(key=key, value=value)
    return tensor
