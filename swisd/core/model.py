"""What a model is to the swarm: units, the blobs they need and what they cost.

A manifest is itself a blob (canonical JSON named by its sha256). It is all that a device needs to plan,
load and check its part of a model; the GGUF file stays with whoever imported it.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from swisd.core.checked import Items, Malformed, Range, Text, from_json, to_json
from swisd.core.errors import ModelError

MANIFEST_VERSION = 1
SHA256 = re.compile(r"[0-9a-f]{64}")
UnitKind = Literal["embed", "layer", "head"]
MAX_UNITS = 1026
MAX_MANIFEST_BYTES = 4 << 20
ByteCount = Annotated[int, Range(0, 1 << 48)]
Index = Annotated[int, Range(0, 1 << 16)]


@dataclass(frozen=True, slots=True)
class Blob:
    """Immutable bytes named by their sha256 (lower-case hex)."""

    sha256: Annotated[str, Text(64)]
    size: ByteCount

    def __post_init__(self) -> None:
        if not SHA256.fullmatch(self.sha256):
            raise ValueError("a blob's name is not a sha256 in lower-case hex")


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest schedulable part of a model.

    `blobs` are indices into `Manifest.blobs` of the weights it reads; a blob named by two units (tied
    embeddings) is stored and counted once per device. `fragment` is `(offset, length)` of its piece of
    the graph blob. `resident_bytes` is the memory that the unit takes once loaded, without its KV cache.
    `bytes_read` is what one decode step streams from memory (for roofline estimates).
    """

    kind: UnitKind
    blobs: Annotated[tuple[Index, ...], Items(64)]
    fragment: tuple[ByteCount, ByteCount]
    resident_bytes: ByteCount
    kv_bytes_per_token: Annotated[int, Range(0, 1 << 32)]
    bytes_read: ByteCount


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model cut into units: `units[0]` is the embedding, `units[-1]` the head, layers between.

    `config` holds what the runtime needs beside the graph (see `swisd.runtime.shard`). `graph` is the
    index of the blob with all graph fragments, `tokenizer` of the blob with vocabulary, merges, special
    tokens and chat template (JSON, see `swisd.text`).
    """

    model_id: Annotated[str, Text(200)]
    architecture: Annotated[str, Text(100)]
    licence: Annotated[str, Text(200)]
    source_sha256: Annotated[str, Text(64)]
    hidden: Annotated[int, Range(1, 1 << 20)]
    vocab: Annotated[int, Range(1, 1 << 24)]
    context: Annotated[int, Range(1, 1 << 24)]
    blobs: Annotated[tuple[Blob, ...], Items(1 << 16)]
    units: Annotated[tuple[Unit, ...], Items(MAX_UNITS)]
    graph: Index
    tokenizer: Index
    config: dict[str, Any] = field(default_factory=dict)
    version: int = MANIFEST_VERSION

    def __post_init__(self) -> None:
        kinds = [unit.kind for unit in self.units]
        if len(kinds) < 3 or kinds != ["embed", *["layer"] * (len(kinds) - 2), "head"]:
            raise ValueError("units must be embed, one or more layers, head")
        if max(self.graph, self.tokenizer) >= len(self.blobs):
            raise ValueError("graph or tokenizer names a blob that is not listed")
        graph_size = self.blobs[self.graph].size
        for number, unit in enumerate(self.units):
            if any(index >= len(self.blobs) for index in unit.blobs) or sum(unit.fragment) > graph_size:
                raise ValueError(f"unit {number} points outside its blobs")

    @property
    def n_units(self) -> int:
        return len(self.units)

    @property
    def n_layers(self) -> int:
        return len(self.units) - 2

    def blob_indices(self, start: int, end: int) -> list[int]:
        """Weight blobs of units `[start, end)`, each once, in order of first use."""
        seen: dict[int, None] = {}
        for unit in self.units[start:end]:
            for index in unit.blobs:
                seen.setdefault(index)
        return list(seen)

    def resident_bytes(self, start: int, end: int) -> int:
        """Memory of units `[start, end)` once loaded, without KV cache."""
        return sum(unit.resident_bytes for unit in self.units[start:end])

    def kv_bytes_per_token(self, start: int, end: int) -> int:
        return sum(unit.kv_bytes_per_token for unit in self.units[start:end])

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal manifests have equal bytes, so equal names."""
        return to_json(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Parse and check a manifest from an untrusted source.

        Raises `ModelError` naming the field that is wrong.
        """
        try:
            manifest = from_json(cls, data, MAX_MANIFEST_BYTES)
        except Malformed as error:
            raise ModelError(f"model manifest cannot be used: {error}") from None
        if manifest.version != MANIFEST_VERSION:
            raise ModelError(
                f"model manifest has version {manifest.version}, this swisd reads {MANIFEST_VERSION}: "
                "update the older device"
            )
        return manifest
