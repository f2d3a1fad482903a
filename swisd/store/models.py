"""Which models this home knows: one small JSON file for each, naming the manifest's blob."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from swisd.core.checked import Malformed, Text, from_json, to_json
from swisd.core.errors import BadInput, ModelError
from swisd.core.model import SHA256, Manifest
from swisd.core.types import Sha
from swisd.store.disk import BlobStore

_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_MAX_ENTRY_BYTES = 64 << 10
Ranges = list[tuple[int, int]]  # of units, [start, end)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A known model. `imported`: its file was converted here, so all its blobs came from this device."""

    model_id: Annotated[str, Text(100)]
    manifest: Sha
    imported: bool = False
    source: Annotated[str, Text(4096)] = ""  # the file it was made from, for people

    def __post_init__(self) -> None:
        if not SHA256.fullmatch(self.manifest):
            raise ValueError("manifest is not named by a sha256")


class ModelIndex:
    """The files `<model id>.json` in `root`, which is created if need be."""

    def __init__(self, root: Path, store: BlobStore) -> None:
        self.root, self._store = root, store
        root.mkdir(parents=True, exist_ok=True)

    def list(self) -> "list[ModelEntry]":
        """All known models by id. A file that cannot be read is left out: it may be half a backup."""
        entries = []
        for path in sorted(self.root.glob("*.json")):
            try:
                entry = from_json(ModelEntry, path.read_bytes(), _MAX_ENTRY_BYTES)
            except (Malformed, OSError):
                continue
            if entry.model_id == path.stem:
                entries.append(entry)
        return entries

    def get(self, model_id: str) -> ModelEntry:
        """Raises `ModelError` if the model is not known, `BadInput` if that is no model id."""
        try:
            return from_json(ModelEntry, self._path(model_id).read_bytes(), _MAX_ENTRY_BYTES)
        except FileNotFoundError:
            known = ", ".join(entry.model_id for entry in self.list()) or "none"
            raise ModelError(f"no model {model_id!r} on this device; known here: {known}") from None
        except Malformed as error:
            raise ModelError(f"{self._path(model_id)} cannot be read ({error}); import it again") from None

    def manifest(self, model_id: str) -> Manifest:
        """The manifest of a known model. Raises `ModelError`, `BadInput`."""
        return Manifest.from_bytes(self._store.read(self.get(model_id).manifest))

    def add(self, manifest_sha: str, *, imported: bool = False, source: str = "") -> ModelEntry:
        """Note a model whose manifest is in the store; a model of the same id is replaced.

        Raises `ModelError`, and `BadInput` if the manifest's id is no safe file name.
        """
        manifest = Manifest.from_bytes(self._store.read(manifest_sha))
        path = self._path(manifest.model_id)
        entry = ModelEntry(manifest.model_id, manifest_sha, imported, source[:4096])
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            draft.write_bytes(to_json(entry))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return entry

    def remove(self, model_id: str) -> int:
        """Forget a model and remove the blobs that no other known model needs. Returns bytes freed.

        Raises `ModelError`, `BadInput`.
        """
        mine = self._needs(self.get(model_id))
        self._path(model_id).unlink(missing_ok=True)
        others: set[str] = set()
        for entry in self.list():
            others |= self._needs(entry)
        freed = 0
        for sha in sorted(mine - others):
            if self._store.has(sha):
                size = self._store.size(sha)
                freed += size if self._store.remove(sha) else 0
        return freed

    def needed(self) -> set[str]:
        """Every blob that a known model names, for `BlobStore.gc`."""
        return set().union(*(self._needs(entry) for entry in self.list()))

    def holding(self, manifest: Manifest) -> Ranges:
        """Ranges `[start, end)` of units whose weights are all on this device."""
        here = [self._store.has(blob.sha256) for blob in manifest.blobs]
        ranges: Ranges = []
        for number, unit in enumerate(manifest.units):
            if not all(here[index] for index in unit.blobs):
                continue
            if ranges and ranges[-1][1] == number:
                ranges[-1] = (ranges[-1][0], number + 1)
            else:
                ranges.append((number, number + 1))
        return ranges

    def has_all(self, manifest: Manifest) -> bool:
        """Whether the weights of all units are on this device."""
        return self.holding(manifest) == [(0, manifest.n_units)]

    def whole(self) -> Sequence[str]:
        """Ids of models of which all units are on this device, the last added last."""
        found = []
        for entry in sorted(self.list(), key=self._added):
            try:
                manifest = self.manifest(entry.model_id)
            except ModelError:
                continue  # `swisd models list` says what is wrong with it
            if self.has_all(manifest):
                found.append(entry.model_id)
        return found

    def _added(self, entry: ModelEntry) -> tuple[int, str]:
        try:
            return self._path(entry.model_id).stat().st_mtime_ns, entry.model_id
        except FileNotFoundError:
            return 0, entry.model_id

    def _needs(self, entry: ModelEntry) -> set[str]:
        try:
            manifest = Manifest.from_bytes(self._store.read(entry.manifest))
        except ModelError:  # lost or damaged: the manifest is all that is known of it
            return {entry.manifest}
        return {entry.manifest, *(blob.sha256 for blob in manifest.blobs)}

    def _path(self, model_id: str) -> Path:
        if not _ID.fullmatch(model_id):
            raise BadInput(
                f"{model_id[:80]!r} is not a model id: letters, digits, '.', '_' and '-', at most 100 of them"
            )
        return self.root / f"{model_id}.json"
