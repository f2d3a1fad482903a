"""A GGUF file becomes blobs, graph fragments and a manifest, unit by unit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from swisd.core.errors import ModelError
from swisd.core.model import Blob, Manifest, Unit
from swisd.forge import layers
from swisd.forge.architectures import ROPE_FINE, Shape, read_shape
from swisd.forge.blobs import write_bytes, write_weights
from swisd.forge.gguf_file import GgufFile
from swisd.forge.graph_parts import FLOAT, INT32, INT64, Fragment, Placed, Weight
from swisd.forge.quant import hollow
from swisd.forge.tokenizer_blob import to_bytes, tokenizer_table

Progress = Callable[[str, int, int], None]
OPSET = {"": 18, "com.microsoft": 1}
IR_VERSION = 9
# Up to 1.23 a sliding window was one position too wide (microsoft/onnxruntime pull request 25927).
OLDEST_ONNXRUNTIME, OLDEST_WITH_WINDOWS = (1, 23), (1, 24)


def _quiet(stage: str, done: int, total: int) -> None:
    return None


def import_model(
    path: Path, out: Path, *, model_id: str, licence: str | None, progress: Progress = _quiet
) -> tuple[Manifest, str]:
    """Read GGUF `path`, write its blobs (and the manifest as one) into directory `out`.

    `progress(stage, done, total)` is called with stage `check` (bytes) and `units`. Returns the manifest and
    its sha256. Raises `ModelError` if the file cannot be used, `BadInput` if `out` cannot be written.
    """
    with GgufFile(path) as file:
        shape = read_shape(file)
        tokenizer = tokenizer_table(file, shape.vocab)
        if licence is None:
            stated = file.metadata.get("general.license")
            licence = stated if isinstance(stated, str) else "unknown"
        source_sha256 = file.sha256(lambda done, total: progress("check", done, total))
        build = _Build(file, shape, out, progress)
        units, graph, config = build.run()
        tokenizer_index = build.add(write_bytes(out, to_bytes(tokenizer)))
    ends = dict.fromkeys(i for i in (tokenizer["eos_id"], tokenizer.get("eot_id")) if i is not None)
    config |= {"eos_ids": list(ends), "bos_id": tokenizer["bos_id"], "add_bos": tokenizer["add_bos"]}
    manifest = Manifest(
        model_id=model_id[:200],
        architecture=shape.architecture,
        licence=licence[:200],
        source_sha256=source_sha256,
        hidden=shape.hidden,
        vocab=shape.vocab,
        context=shape.context,
        blobs=tuple(build.blobs),
        units=tuple(units),
        graph=graph,
        tokenizer=tokenizer_index,
        config=config,
    )
    return manifest, write_bytes(out, manifest.to_bytes()).sha256


class _Build:
    """The blobs and units made so far."""

    def __init__(self, file: GgufFile, shape: Shape, out: Path, progress: Progress) -> None:
        self.shape, self.out, self.progress = shape, out, progress
        self.source = layers.Source(file, shape)
        self.blobs: list[Blob] = []
        self.graph = bytearray()
        self.units: list[Unit] = []

    def add(self, blob: Blob) -> int:
        """Index of `blob` in the manifest; equal blobs are listed once."""
        if blob not in self.blobs:
            self.blobs.append(blob)
        return self.blobs.index(blob)

    def run(self) -> tuple[list[Unit], int, dict[str, Any]]:
        shape = self.shape
        rope = self._rope()
        total = shape.n_layers + 2
        part, table = layers.embed(self.source)
        embed_blob, places = self._unit("embed", part, [], 0)
        tied = [places[weight.name] for weight in part.weights]
        table = hollow(table)  # a tied head only needs to know where the table lies
        del part
        for number in range(shape.n_layers):
            self.progress("units", number + 1, total)
            kv_bytes = 2 * shape.kv_width * 4
            self._unit("layer", layers.layer(self.source, number), [rope], kv_bytes)
        self.progress("units", total - 1, total)
        part = layers.head(self.source, table, tied)
        self._unit("head", part, [embed_blob] if part.shared else [], 0)
        common = self._common()
        graph = self.add(write_bytes(self.out, bytes(self.graph)))
        self.progress("units", total, total)
        return self.units, graph, self._config(rope, common)

    def _unit(
        self, kind: Any, part: Fragment, shared: list[int], kv_bytes: int
    ) -> tuple[int, dict[str, Placed]]:
        blob, places = write_weights(self.out, part.weights)
        index = self.add(blob)
        fragment = self._append(part.to_bytes(places))
        self.units.append(Unit(kind, (index, *shared), fragment, part.resident, kv_bytes, part.read))
        return index, places

    def _append(self, data: bytes) -> tuple[int, int]:
        offset = len(self.graph)
        self.graph += data
        return offset, len(data)

    def _rope(self) -> int:
        tables = [rope.table(self.shape.head_size, self.shape.context) for rope in self.shape.ropes]
        array = np.concatenate(tables).astype("<f8")
        if not np.isfinite(array).all():
            raise ModelError("the rotary frequencies of this model are not finite")
        return self.add(write_weights(self.out, [Weight("rope", array)])[0])

    def _common(self) -> dict[str, tuple[int, int]]:
        """Inputs that several units share, as fragments of their own: each belongs into a graph once."""
        import onnx

        def inputs(*items: tuple[str, int, list[str | int]]) -> tuple[int, int]:
            graph = onnx.GraphProto()
            for name, kind, dims in items:
                graph.input.append(onnx.helper.make_tensor_value_info(name, kind, dims))
            return self._append(graph.SerializeToString(deterministic=True))

        half = self.shape.head_size // 2
        caches: list[tuple[str, int, list[str | int]]] = [
            (f"{kind}{number}", FLOAT, ["positions", half])
            for number in range(len(self.shape.ropes))
            for kind in ("cos", "sin")
        ]
        step: list[tuple[str, int, list[str | int]]] = [
            ("steps", INT64, [3]),
            ("seqlens_k", INT32, ["batch"]),
            ("total_sequence_length", INT32, []),
        ]
        return {
            "embed": inputs(("ids", INT64, ["rows"])),
            "layer": inputs(*step, *caches),
            "head": inputs(("rows", INT64, ["wanted"])),
        }

    def _config(self, rope: int, common: dict[str, tuple[int, int]]) -> dict[str, Any]:
        shape = self.shape
        oldest = OLDEST_WITH_WINDOWS if any(shape.window_of_layer) else OLDEST_ONNXRUNTIME
        return {
            "onnxruntime": list(oldest),
            "ir_version": IR_VERSION,
            "opset": OPSET,
            "common": {kind: list(place) for kind, place in common.items()},
            "heads": shape.heads,
            "kv_heads": shape.kv_heads,
            "head_size": shape.head_size,
            "ropes": len(shape.ropes),
            "rope_of_layer": list(shape.rope_of_layer),
            "rope_blob": rope,
            "rope_fine": ROPE_FINE,
        }
