"""What a model is to the swarm: units, the blobs they need and what they cost.

A manifest is itself a blob (canonical JSON named by its sha256). It is all that a device needs to plan,
load and check its part of a model; the GGUF file stays with whoever imported it.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from swisd.core.errors import ModelError

MANIFEST_VERSION = 1
SHA256 = re.compile(r"[0-9a-f]{64}")
UnitKind = Literal["embed", "layer", "head"]
UNIT_KINDS: tuple[UnitKind, ...] = ("embed", "layer", "head")
MAX_UNITS = 1026
MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """Immutable bytes named by their sha256 (lower-case hex)."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest schedulable part of a model.

    `blobs` are indices into `Manifest.blobs` of the weights it reads; a blob named by two units (tied
    embeddings) is stored and counted once per device. `fragment` is `(offset, length)` of its piece of
    the graph blob. `resident_bytes` is the memory that the unit takes once loaded, without its KV cache.
    `bytes_read` is what one decode step streams from memory (for roofline estimates).
    """

    kind: UnitKind
    blobs: tuple[int, ...]
    fragment: tuple[int, int]
    resident_bytes: int
    kv_bytes_per_token: int
    bytes_read: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model cut into units: `units[0]` is the embedding, `units[-1]` the head, layers between.

    `config` holds what the runtime needs beside the graph (see `swisd.runtime.shard`). `graph` is the
    index of the blob with all graph fragments, `tokenizer` of the blob with vocabulary, merges, special
    tokens and chat template (JSON, see `swisd.text`).
    """

    model_id: str
    architecture: str
    licence: str
    source_sha256: str
    hidden: int
    vocab: int
    context: int
    blobs: tuple[Blob, ...]
    units: tuple[Unit, ...]
    graph: int
    tokenizer: int
    config: dict[str, Any] = field(default_factory=dict)
    version: int = MANIFEST_VERSION

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
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Parse and check a manifest from an untrusted source.

        Raises `ModelError` naming the field that is wrong.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise ModelError(f"model manifest is {len(data)} bytes, more than {MAX_MANIFEST_BYTES}")
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"model manifest is not JSON: {error}") from None
        if not isinstance(raw, dict) or raw.get("version") != MANIFEST_VERSION:
            raise ModelError(
                f"model manifest has version {raw.get('version') if isinstance(raw, dict) else None!r}, "
                f"this swisd reads version {MANIFEST_VERSION}: update the older device"
            )
        try:
            manifest = cls(
                model_id=_text(raw, "model_id", 200),
                architecture=_text(raw, "architecture", 100),
                licence=_text(raw, "licence", 200),
                source_sha256=_text(raw, "source_sha256", 64),
                hidden=_whole(raw, "hidden", 1, 1 << 20),
                vocab=_whole(raw, "vocab", 1, 1 << 24),
                context=_whole(raw, "context", 1, 1 << 24),
                blobs=tuple(_blob(item) for item in _list(raw, "blobs")),
                units=tuple(_unit(item) for item in _list(raw, "units")),
                graph=_whole(raw, "graph", 0, 1 << 20),
                tokenizer=_whole(raw, "tokenizer", 0, 1 << 20),
                config=_table(raw, "config"),
            )
        except KeyError as error:
            raise ModelError(f"model manifest lacks {error}") from None
        _check_shape(manifest)
        return manifest


def _check_shape(manifest: Manifest) -> None:
    units, n_blobs = manifest.units, len(manifest.blobs)
    kinds = [unit.kind for unit in units]
    if not 3 <= len(units) <= MAX_UNITS or kinds != ["embed", *["layer"] * (len(units) - 2), "head"]:
        raise ModelError("model manifest: units must be embed, one or more layers, head")
    if manifest.graph >= n_blobs or manifest.tokenizer >= n_blobs:
        raise ModelError("model manifest: graph or tokenizer names a blob that is not listed")
    graph_size = manifest.blobs[manifest.graph].size
    for number, unit in enumerate(units):
        offset, length = unit.fragment
        if any(index >= n_blobs for index in unit.blobs) or offset + length > graph_size:
            raise ModelError(f"model manifest: unit {number} points outside its blobs")


def _text(raw: dict[str, Any], name: str, limit: int) -> str:
    value = raw[name]
    if not isinstance(value, str) or len(value) > limit:
        raise ModelError(f"model manifest: {name} is not a text of at most {limit} characters")
    return value


def _whole(raw: dict[str, Any], name: str, low: int, high: int) -> int:
    value = raw[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ModelError(f"model manifest: {name} is not a whole number from {low} to {high}")
    return value


def _list(raw: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = raw[name]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ModelError(f"model manifest: {name} is not a list of tables")
    return value


def _table(raw: dict[str, Any], name: str) -> dict[str, Any]:
    value = raw[name]
    if not isinstance(value, dict):
        raise ModelError(f"model manifest: {name} is not a table")
    return value


def _wholes(raw: dict[str, Any], name: str) -> tuple[int, ...]:
    value = raw[name]
    if not isinstance(value, list) or not all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 48 for item in value
    ):
        raise ModelError(f"model manifest: {name} is not a list of whole numbers")
    return tuple(value)


def _blob(raw: dict[str, Any]) -> Blob:
    sha256 = _text(raw, "sha256", 64)
    if not SHA256.fullmatch(sha256):
        raise ModelError("model manifest: a blob's name is not a sha256")
    return Blob(sha256, _whole(raw, "size", 0, 1 << 48))


def _unit(raw: dict[str, Any]) -> Unit:
    kind = raw["kind"]
    if kind not in UNIT_KINDS:
        raise ModelError(f"model manifest: unknown unit kind {str(kind)[:40]!r}; update swisd on this device")
    fragment = _wholes(raw, "fragment")
    if len(fragment) != 2:
        raise ModelError("model manifest: a fragment is an offset and a length")
    return Unit(
        kind=kind,
        blobs=_wholes(raw, "blobs"),
        fragment=(fragment[0], fragment[1]),
        resident_bytes=_whole(raw, "resident_bytes", 0, 1 << 48),
        kv_bytes_per_token=_whole(raw, "kv_bytes_per_token", 0, 1 << 32),
        bytes_read=_whole(raw, "bytes_read", 0, 1 << 48),
    )
