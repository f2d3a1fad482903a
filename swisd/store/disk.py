"""Blobs on disk: one flat folder, each blob a file named by its sha256.

A file under such a name is whole: it got the name by an atomic rename after its hash was checked. Everything
here blocks on the disk; callers in an event loop use a thread for what is long (`put`, `adopt`, `verify`).
"""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

from swisd.core.errors import ModelError
from swisd.core.model import SHA256
from swisd.store.parts import READ_BYTES, SUFFIX, CorruptBlob, Part, StoreFull, amount, remove_abandoned

__all__ = ["BlobStore", "CorruptBlob", "Part", "StoreFull"]


class BlobStore:
    """Content-addressed blobs under `root`, which is created if need be."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.coming: dict[str, Part] = {}  # parts that a transfer is filling, for passing on what they have
        root.mkdir(parents=True, exist_ok=True)
        for path in root.glob(f"*{SUFFIX}"):
            if path.name.count(".") > 1:  # nobody resumes it
                remove_abandoned(path)

    def path(self, sha: str) -> Path:
        """Where blob `sha` lies, or would. Raises `ValueError` unless it is a sha256 in lower-case hex."""
        if not SHA256.fullmatch(sha):
            raise ValueError(f"{sha[:80]!r} is not a sha256 in lower-case hex")
        return self.root / sha

    def has(self, sha: str) -> bool:
        return self.path(sha).is_file()

    def size(self, sha: str) -> int:
        """Bytes of a blob. Raises `ModelError` if it is not here."""
        try:
            return self.path(sha).stat().st_size
        except FileNotFoundError:
            raise _missing(sha) from None

    def blobs(self) -> list[str]:
        """Names of all whole blobs, sorted."""
        return sorted(path.name for path in self.root.iterdir() if SHA256.fullmatch(path.name))

    def read(self, sha: str) -> bytes:
        """The bytes of a blob, checked. A damaged one is removed, so that it is fetched again.

        Raises `ModelError` if it is not here, `CorruptBlob` if the disk gave other bytes.
        """
        try:
            data = self.path(sha).read_bytes()
        except FileNotFoundError:
            raise _missing(sha) from None
        if hashlib.sha256(data).hexdigest() != sha:
            self.remove(sha)
            raise CorruptBlob(f"blob {sha[:12]} was damaged on disk and is removed; it must be fetched again")
        return data

    def put(self, data: bytes) -> str:
        """Store bytes and return their name. Raises `StoreFull`."""
        sha = hashlib.sha256(data).hexdigest()
        if not self._holds(sha, len(data)):
            part = self.part(sha, len(data))
            try:
                part.restart()
                part.write([data])
                part.commit()
            finally:
                part.close()
        return sha

    def adopt(self, path: Path) -> str:
        """Move a file into the store (it is gone from `path` afterwards) and return its name.

        Raises `StoreFull` and `OSError`.
        """
        sha, size = hash_file(path), path.stat().st_size
        if not self._holds(sha, size):
            # Copied, not renamed: who wrote the file may still hold it open, and then change a blob.
            part = self.part(sha, size)
            try:
                part.restart()
                with path.open("rb") as file:
                    while piece := file.read(READ_BYTES):
                        part.write([piece])
                part.commit()
            finally:
                part.close()
        path.unlink()
        return sha

    def part(self, sha: str, total: int) -> Part:
        """The part file of a blob of `total` bytes: its `size` says what an earlier transfer left.

        Raises `StoreFull` when what is missing does not fit the disk.
        """
        part = Part(self.path(sha).parent, sha, total)
        if (wanted := total - part.size) > (free := self.free_bytes()):
            part.close()
            raise StoreFull(
                f"not enough room for blob {sha[:12]}: {amount(wanted)} needed, {amount(free)} free in "
                f"{self.root}, {amount(wanted - free)} missing; free some space"
            )
        return part

    def part_bytes(self, sha: str) -> int:
        """Bytes that an earlier transfer of a blob left, or that one under way has."""
        path = self.path(sha)
        try:
            return path.with_name(path.name + SUFFIX).stat().st_size
        except FileNotFoundError:
            return 0

    def verify(self, sha: str) -> bool:
        """Whether the blob is here and its bytes have the right hash."""
        path = self.path(sha)
        try:
            return hash_file(path) == sha
        except FileNotFoundError:
            return False

    def remove(self, sha: str) -> bool:
        """Remove a blob; False if it was not here (or, on Windows, is in use)."""
        try:
            self.path(sha).unlink()
        except (FileNotFoundError, PermissionError):
            return False
        return True

    def gc(self, keep: set[str]) -> int:
        """Remove every blob not in `keep`, and parts of such blobs nobody writes. Returns bytes freed."""
        freed = 0
        for path in list(self.root.iterdir()):
            name = path.name.removesuffix(SUFFIX)
            if not SHA256.fullmatch(name) or name in keep:
                continue
            with suppress(FileNotFoundError, PermissionError):
                size = path.stat().st_size
                if self.remove(name) if path.name == name else remove_abandoned(path):
                    freed += size
        return freed

    def free_bytes(self) -> int:
        """Room on the disk that this user may fill."""
        return shutil.disk_usage(self.root).free

    def _holds(self, sha: str, size: int) -> bool:
        """Whether the blob is here in full length (a power cut can leave a short file on some disks)."""
        path = self.path(sha)
        return path.is_file() and path.stat().st_size == size


def hash_file(path: Path) -> str:
    """The sha256 of a file in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(sha: str) -> ModelError:
    return ModelError(f"blob {sha[:12]} is not in this device's store")
