"""Composed graphs are valid ONNX, and the composer needs no onnx."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from swisd.runtime.graph import compose, varint
from swisd.runtime.rope import RopeTables


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 1 << 20, (1 << 63) - 1])
def test_varint(number: int) -> None:
    tensor = onnx.TensorProto(dims=[number])
    assert tensor.SerializeToString().endswith(varint(number))


@pytest.mark.parametrize("span", [(0, 1), (0, 3), (1, 3), (2, 5), (4, 5), (0, 5)])
def test_a_composed_graph_has_the_inputs_and_outputs_of_its_units(
    imported: Callable[..., Any], span: tuple[int, int]
) -> None:
    model = imported()
    start, end = span
    graph_blob = (model.blobs / model.manifest.blobs[model.manifest.graph].sha256).read_bytes()
    graph = onnx.ModelProto.FromString(compose(model.manifest, start, end, graph_blob)).graph
    inputs, outputs = ([value.name for value in side] for side in (graph.input, graph.output))
    layers = [unit for unit in range(start, end) if 0 < unit < 4]
    wanted = {"ids" if start == 0 else f"h{start}", *(f"{side}{unit}" for unit in layers for side in "kv")}
    if layers:
        wanted |= {"steps", "seqlens_k", "total_sequence_length", "cos0", "sin0"}
    if end == 5:
        wanted.add("rows")
    assert len(inputs) == len(set(inputs))
    assert set(inputs) == wanted
    caches = {f"{side}{unit}_out" for unit in layers for side in "kv"}
    assert set(outputs) == caches | {"logits" if end == 5 else f"h{end}"}
    names = [initializer.name for initializer in graph.initializer]
    assert len(names) == len(set(names))
    needed = {model.manifest.blobs[index].sha256 for index in model.manifest.blob_indices(start, end)}
    used = {
        entry.value
        for initializer in graph.initializer
        for entry in initializer.external_data
        if entry.key == "location"
    }
    assert used <= needed


def test_running_a_shard_imports_neither_onnx_nor_gguf() -> None:
    code = "import sys, swisd.runtime.shard, swisd.runtime.probe; print({'onnx', 'gguf'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"


def test_rotary_tables_are_the_angles(imported: Callable[..., Any]) -> None:
    model = imported()
    tables = RopeTables(model.manifest, model.blobs)
    cos, sin = tables.upto(1000)
    assert cos.shape == sin.shape == (1024, 32)
    angles = np.arange(1024)[:, None] * 50000.0 ** (-np.arange(32) / 32)
    np.testing.assert_allclose(cos, np.cos(angles), atol=1e-7)
    np.testing.assert_allclose(sin, np.sin(angles), atol=1e-7)
    short = RopeTables(model.manifest, model.blobs).upto(3)
    assert np.array_equal(short[0], cos[: len(short[0])])
