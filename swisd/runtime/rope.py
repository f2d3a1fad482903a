"""Rotary cosines and sines for the first positions of a context, the same bits on every device."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swisd.core.errors import ModelError
from swisd.core.model import Manifest

F32 = NDArray[np.float32]


class RopeTables:
    """Expands the coarse and fine angles of the manifest's rope blob (`swisd.forge.architectures.Rope`).

    cos(A + B) = cos A cos B - sin A sin B in float64, rounded once to float32. Tables grow with contexts.
    """

    def __init__(self, manifest: Manifest, blobs: Path) -> None:
        try:
            config = manifest.config
            self.count, self.fine = int(config["ropes"]), int(config["rope_fine"])
            self.half = int(config["head_size"]) // 2
            blob = manifest.blobs[config["rope_blob"]]
            raw = np.fromfile(blobs / blob.sha256, "<f8").reshape(self.count, -1, self.half)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ModelError(
                f"manifest of {manifest.model_id}: rotary settings are damaged ({error!r})"
            ) from None
        except OSError as error:
            raise ModelError(
                f"{manifest.model_id}: the blob of rotary angles is missing ({error.strerror})"
            ) from None
        self.coarse = (raw.shape[1] - 2 * self.fine) // 2
        if self.coarse < 1 or raw.shape[1] != 2 * (self.coarse + self.fine):
            raise ModelError(f"{manifest.model_id}: the blob of rotary angles has the wrong size")
        self._raw = raw
        self._tables: list[F32] = []

    def upto(self, positions: int) -> list[F32]:
        """cos0, sin0, cos1, sin1, ...: float32 [at least `positions`, head_size / 2] each."""
        if not self._tables or len(self._tables[0]) < positions:
            rows = min(-(-positions // self.fine), self.coarse)
            self._tables = [table for raw in self._raw for table in self._expand(raw, rows)]
        return self._tables

    def _expand(self, raw: NDArray[Any], rows: int) -> tuple[F32, F32]:
        split = [self.coarse, 2 * self.coarse, 2 * self.coarse + self.fine]
        cos_a, sin_a, cos_b, sin_b = np.split(raw, split)
        cos_a, sin_a = cos_a[:rows, None], sin_a[:rows, None]
        shape = (rows * self.fine, self.half)
        cos = (cos_a * cos_b - sin_a * sin_b).reshape(shape).astype(np.float32)
        sin = (sin_a * cos_b + cos_a * sin_b).reshape(shape).astype(np.float32)
        return cos, sin

    def nbytes(self) -> int:
        return self._raw.nbytes + sum(table.nbytes for table in self._tables)
