"""Products as they run: what 8 bits of x lose, and what two parts of it bring back."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from swisd.forge import quant
from swisd.forge.graph_parts import FLOAT, Fragment, Placed
from tests.tiny_models import random_blocks

ROWS, WIDTH, OUT = 5, 96, 64


def run(part: Fragment, y: str, x: quant.F32) -> quant.F32:
    """What a fragment makes of its input `x`."""
    nowhere = {
        weight.name: Placed("0" * 64, 0, 0, weight.array.dtype, weight.array.shape) for weight in part.weights
    }
    graph = onnx.GraphProto.FromString(part.to_bytes(nowhere))
    inline = [tensor for tensor in graph.initializer if tensor.name not in nowhere]
    del graph.initializer[:]
    graph.initializer.extend(inline)
    graph.initializer.extend(
        onnx.numpy_helper.from_array(weight.array, weight.name) for weight in part.weights
    )
    graph.name = "part"
    graph.input.append(onnx.helper.make_tensor_value_info("x", FLOAT, ["rows", WIDTH]))
    graph.output.append(onnx.helper.make_tensor_value_info(y, FLOAT, ["rows", OUT]))
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: quant.F32 = session.run([y], {"x": x})[0]
    return result


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
@pytest.mark.parametrize("biased", [False, True])
def test_two_parts_of_x_are_nearly_as_good_as_fp32(kind: str, biased: bool) -> None:
    random = np.random.default_rng(7)
    raw = random_blocks(random, kind, OUT, WIDTH).reshape(-1)
    layer = quant.linear(kind, raw, OUT, WIDTH)
    assert isinstance(layer, quant.NBits)
    bias = random.standard_normal(OUT).astype(np.float32) if biased else None
    x = random.standard_normal((ROWS, WIDTH)).astype(np.float32)
    x[:, 3] *= 40.0  # an outlier: the rest of its block has few steps left
    x[2] = 0.0
    right = x.astype(np.float64) @ layer.dequantise().T.astype(np.float64) + (0.0 if bias is None else bias)
    wrong = {}
    for fine in (False, True):
        part = Fragment("u.")
        wrong[fine] = np.abs(run(part, part.linear("x", layer, bias, fine=fine), x) - right).max()
    assert wrong[True] < wrong[False] / 50
