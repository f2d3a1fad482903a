"""Opening a GGUF file that may be truncated, damaged or hostile.

The whole header is read with bounds checked before anything is allocated, so the only error that a bad
file can cause is a `ModelError` of one line. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
(little-endian versions 2 and 3).
"""

import contextlib
import hashlib
import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swisd.core.errors import ModelError

MAX_METADATA = 1 << 16
MAX_TENSORS = 1 << 16
MAX_ARRAY = 1 << 24
MAX_STRING = 1 << 24
MAX_NAME = 200
MAX_DIMENSIONS = 4
MAX_WIDTH = 1 << 32
MAX_DEPTH = 2

# value type -> struct code; 8 is a string, 9 an array
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

# ggml type id -> (name, weights in a block, bytes of a block)
TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}
# Known but not read, so that the message can name them.
OTHER_TYPES = {
    10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
    21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies in the file. `shape` is row-major (outputs first), as numpy sees it."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class GgufFile:
    """A checked GGUF file, memory-mapped. Use as a context manager.

    `metadata` maps keys to Python values (numeric arrays are numpy arrays, string arrays are lists);
    `tensors` maps names to `Tensor`. Raises `ModelError` for any file that is not whole and sound.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if size < 24:
                    raise ModelError(f"{path.name} is {size} bytes: too short to be a GGUF file")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
        self.size = size
        try:
            self.metadata, self.tensors = _Header(self._map, path.name).read()
        except BaseException:
            self._map.close()
            raise

    def __enter__(self) -> "GgufFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # While an array still points into it the map cannot be closed; it goes when the array does.
        with contextlib.suppress(BufferError):
            self._map.close()

    def raw(self, tensor: Tensor) -> NDArray[np.uint8]:
        """The bytes of a tensor, uint8 [nbytes], without a copy; not valid after the file is closed."""
        return np.frombuffer(self._map, np.uint8, tensor.nbytes, tensor.offset)

    def sha256(self, progress: Callable[[int, int], None] | None = None) -> str:
        """Name of the file's content; `progress(done, total)` counts bytes."""
        digest = hashlib.sha256()
        view = memoryview(self._map)
        step = 16 << 20
        try:
            for start in range(0, self.size, step):
                digest.update(view[start : start + step])
                if progress:
                    progress(min(start + step, self.size), self.size)
        finally:
            view.release()
        return digest.hexdigest()


class _Header:
    """Reads forward through the header; every read is checked against the end of the file."""

    def __init__(self, data: mmap.mmap, name: str) -> None:
        self.data, self.name, self.at, self.size = data, name, 0, len(data)

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if self.data[:4] != b"GGUF":
            raise ModelError(f"{self.name} is not a GGUF file (its first bytes are {self.data[:4]!r})")
        self.at = 4
        version, n_tensors, n_metadata = self._unpack("<IQQ")
        if version not in (2, 3):
            raise ModelError(f"{self.name} is GGUF version {version}; versions 2 and 3 are read")
        if n_metadata > MAX_METADATA or n_tensors > MAX_TENSORS:
            raise ModelError(f"{self.name} is damaged: {n_metadata} keys and {n_tensors} tensors announced")
        metadata: dict[str, Any] = {}
        for _ in range(n_metadata):
            key = self._string(MAX_NAME)
            metadata[key] = self._value(self._unpack("<I")[0], 0)
        entries = [self._entry() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 16 or alignment & (alignment - 1):
            raise ModelError(f"{self.name} is damaged: alignment {alignment!r}")
        base = -(-self.at // alignment) * alignment
        tensors: dict[str, Tensor] = {}
        for name, kind, shape, offset in entries:
            tensor = self._locate(name, kind, shape, base + offset)
            if tensors.setdefault(name, tensor) is not tensor:
                raise ModelError(f"{self.name} is damaged: tensor {name} is listed twice")
        return metadata, tensors

    def _fail(self) -> ModelError:
        return ModelError(
            f"{self.name} is truncated or damaged: its header passes its end at {self.size}; fetch it again"
        )

    def _unpack(self, layout: str) -> tuple[Any, ...]:
        length = struct.calcsize(layout)
        if self.at + length > self.size:
            raise self._fail()
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += length
        return values

    def _bytes(self, limit: int) -> bytes:
        (length,) = self._unpack("<Q")
        if length > self.size - self.at:
            raise self._fail()
        if length > limit:
            raise ModelError(f"{self.name} is damaged: a text of {length} bytes where {limit} are allowed")
        self.at += length
        return self.data[self.at - length : self.at]

    def _string(self, limit: int) -> str:
        try:
            return self._bytes(limit).decode()
        except UnicodeDecodeError:
            raise ModelError(f"{self.name} is damaged: a name is not UTF-8") from None

    def _value(self, kind: int, depth: int) -> Any:
        if kind in SCALARS:
            return self._unpack("<" + SCALARS[kind])[0]
        if kind == STRING:
            # Vocabularies of some files hold bytes that are no UTF-8: keep the file readable.
            return self._bytes(MAX_STRING).decode(errors="replace")
        if kind != ARRAY or depth >= MAX_DEPTH:
            raise ModelError(f"{self.name} is damaged: unknown value type {kind}")
        inner, count = self._unpack("<IQ")
        width = struct.calcsize("<" + SCALARS[inner]) if inner in SCALARS else 8
        if count > MAX_ARRAY or count * width > self.size - self.at:
            raise self._fail()
        if inner in SCALARS:
            values = np.frombuffer(self.data[self.at : self.at + count * width], "<" + SCALARS[inner])
            self.at += count * width
            return values
        return [self._value(inner, depth + 1) for _ in range(count)]

    def _entry(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self._string(MAX_NAME)
        (dimensions,) = self._unpack("<I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ModelError(f"{self.name} is damaged: tensor {name} has {dimensions} dimensions")
        shape = self._unpack(f"<{dimensions}Q")
        kind, offset = self._unpack("<IQ")
        return name, kind, tuple(reversed(shape)), offset

    def _locate(self, name: str, kind: int, shape: tuple[int, ...], offset: int) -> Tensor:
        if any(not 0 < width <= MAX_WIDTH for width in shape):
            raise ModelError(f"{self.name} is damaged: tensor {name} has shape {shape}")
        if kind not in TENSOR_TYPES:
            label = OTHER_TYPES.get(kind, f"number {kind}")
            readable = ", ".join(known for known, _, _ in TENSOR_TYPES.values())
            raise ModelError(
                f"{self.name}: tensor {name} has type {label}, which is not read; {readable} are"
            )
        label, block, block_bytes = TENSOR_TYPES[kind]
        if shape[-1] % block:
            raise ModelError(f"{self.name} is damaged: {name} has rows of {shape[-1]} in blocks of {block}")
        nbytes = math.prod(shape) // block * block_bytes
        if offset + nbytes > self.size:
            raise ModelError(
                f"{self.name} is truncated: {name} ends at byte {offset + nbytes}, the file has {self.size}; "
                "fetch it again"
            )
        return Tensor(name, label, shape, offset, nbytes)
