"""ONNX Runtime sessions of a model's units: the settings on which their bits depend."""

from pathlib import Path
from typing import Any

import onnxruntime as ort

from swisd.core.errors import ModelError
from swisd.core.model import Manifest
from swisd.runtime.graph import compose


def version() -> tuple[int, ...]:
    """Of ONNX Runtime, its first two numbers; none for a development version that has no such name."""
    try:
        return tuple(int(part) for part in ort.__version__.split(".")[:2])
    except ValueError:
        return ()


def _check_version(manifest: Manifest) -> None:
    oldest = manifest.config.get("onnxruntime", [0])
    try:
        too_old = () < version() < tuple(oldest)
    except TypeError:
        return  # a manifest that says nothing sensible
    if too_old:
        wanted = ".".join(map(str, oldest))
        raise ModelError(
            f"{manifest.model_id} needs ONNX Runtime {wanted} or newer, this device has {ort.__version__}: "
            "upgrade onnxruntime"
        )


def open_session(manifest: Manifest, start: int, end: int, blobs: Path, threads: int) -> Any:
    """Units `[start, end)` as an `InferenceSession`. Raises `ModelError` if that cannot be."""
    _check_version(manifest)
    for index in [manifest.graph, *manifest.blob_indices(start, end)]:
        blob = manifest.blobs[index]
        path = blobs / blob.sha256
        if not path.is_file() or path.stat().st_size != blob.size:
            raise ModelError(f"{manifest.model_id}: blob {blob.sha256[:12]} is not here or not whole")
    graph = (blobs / manifest.blobs[manifest.graph].sha256).read_bytes()
    model = compose(manifest, start, end, graph)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The fragments are already in their final form. Optimisers would fuse across units, and then a cut
    # would change the bits.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Passes are short, so the arena stays small (10 MB for SmolLM2); without it the freed buffers of a pass
    # stay in the heap, several times as much.
    options.enable_cpu_mem_arena = True
    options.log_severity_level = 4
    # Between two products of a pass a thread that has gone to sleep costs more than its part of the product
    # takes; between passes the cores belong to others (docs/log.md, "Threads").
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(blobs))
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - the bindings raise a dozen classes without a common base
        reason = str(error).splitlines()[0][:300]
        raise ModelError(
            f"ONNX Runtime cannot load units {start} to {end} of {manifest.model_id}: {reason}"
        ) from None
