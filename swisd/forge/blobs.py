"""Writing blobs: named by their sha256, complete or absent, never half-written."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from swisd.core.errors import BadInput
from swisd.core.model import Blob
from swisd.forge.graph_parts import Placed, Weight

# Vector loads want 64; a page would waste space on the many small norms.
ALIGNMENT = 64


class BlobWriter:
    """Collects bytes into one blob of directory `out`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> int:
        """Append at the next aligned offset, which is returned."""
        padding = bytes(-self.size % ALIGNMENT)
        for piece in (padding, data):
            self._file.write(piece)
            self._digest.update(piece)
        offset = self.size + len(padding)
        self.size = offset + len(data)
        return offset

    def blob(self) -> Blob:
        return Blob(self._digest.hexdigest(), self.size)


@contextmanager
def writing(out: Path) -> Iterator[BlobWriter]:
    """A `BlobWriter` whose file gets its name when the block ends well and vanishes when it does not."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".part-", dir=out)
    except OSError as error:
        raise BadInput(f"cannot write to {out}: {error.strerror}") from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            writer = BlobWriter(file)
            yield writer
            file.flush()
            os.fsync(file.fileno())
        final = out / writer.blob().sha256
        if final.exists() and final.stat().st_size == writer.size:
            temporary.unlink()
        else:
            temporary.replace(final)
    except OSError as error:
        raise BadInput(f"cannot write to {out}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_weights(out: Path, weights: list[Weight]) -> tuple[Blob, dict[str, Placed]]:
    """One blob with all `weights`, and where each lies in it."""
    offsets: dict[str, int] = {}
    with writing(out) as writer:
        for weight in weights:
            offsets[weight.name] = writer.write(weight.array.reshape(-1).view(np.uint8).data)
    blob = writer.blob()
    return blob, {
        weight.name: Placed(
            blob.sha256, offsets[weight.name], weight.array.nbytes, weight.array.dtype, weight.array.shape
        )
        for weight in weights
    }


def write_bytes(out: Path, data: bytes) -> Blob:
    with writing(out) as writer:
        writer.write(data)
    return writer.blob()
