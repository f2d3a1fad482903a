"""A blob on its way into the store: bytes are appended to a `.part` file and hashed as they come.

Two processes may share one store folder, so a part is locked while someone writes to it. `<sha>.part` is the
one that a later transfer resumes; when another process holds it, `<sha>.<token>.part` is used instead, which
nobody resumes. Where the platform or the file system has no flock every part is of the second sort. A lock
goes away with its process, so whatever can be locked at start-up is a leftover.
"""

import errno
import hashlib
import os
import secrets
import threading
from contextlib import suppress
from io import FileIO
from pathlib import Path

from swisd.core.errors import ModelError, SwisdError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".part"
READ_BYTES = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StoreFull(SwisdError):
    """The disk has no room for a blob; the text says how much is missing."""


class CorruptBlob(ModelError):
    """Bytes that do not have the sha256 they were asked by."""


def amount(count: int) -> str:
    """A number of bytes for people, in MiB."""
    return f"{count / (1 << 20):.1f} MiB"


class Part:
    """An open, locked part file. Its methods block on the disk; one thread at a time gets in."""

    def __init__(self, root: Path, sha: str, total: int | None = None) -> None:
        """Open the part of blob `sha` (to be `total` bytes long) and hash what an earlier transfer left.

        Raises `StoreFull` and `OSError`.
        """
        self.sha = sha
        self._root, self._total = root, total
        self._lock = threading.Lock()
        self.size = 0
        try:
            self._path, self._file = _claim(root, sha)
        except OSError as error:
            raise self._full(error, 0) from error
        self._hash = hashlib.sha256()
        while piece := self._file.read(READ_BYTES):
            self._hash.update(piece)
            self.size += len(piece)
        if total is not None and self.size > total:
            self.restart()

    @property
    def path(self) -> Path:
        """The file, which is not there any more after `commit`."""
        return self._path

    @property
    def total(self) -> int:
        """Bytes of the whole blob, as far as known."""
        return self.size if self._total is None else self._total

    @property
    def readable(self) -> bool:
        """Whether others may read the file while it grows: Windows renames no file that is open."""
        return fcntl is not None

    def write(self, pieces: list[bytes]) -> None:
        """Append. On a full disk the part is removed, as it only makes matters worse: `StoreFull`."""
        with self._lock:
            try:
                for piece in pieces:
                    rest = memoryview(piece)
                    while rest:  # an unbuffered write may take a part only
                        rest = rest[self._file.write(rest) :]
                    self._hash.update(piece)
                    self.size += len(piece)
            except OSError as error:
                full = self._full(error, sum(map(len, pieces)))
                self._drop()
                raise full from error

    def restart(self) -> None:
        """Throw away the bytes so far."""
        with self._lock:
            self._file.seek(0)
            self._file.truncate()
            self._hash = hashlib.sha256()
            self.size = 0

    def commit(self) -> Path:
        """Check the whole against its name and give it that name, atomically.

        Raises `CorruptBlob` (and throws the bytes away) or `StoreFull`.
        """
        if self._hash.hexdigest() != self.sha:
            self.restart()
            raise CorruptBlob(f"blob {self.sha[:12]} arrived damaged")
        with self._lock:
            final = self._root / self.sha
            try:
                os.fsync(self._file.fileno())
                if fcntl is None:
                    self._file.close()  # Windows renames no open file
                if final.exists():  # another process was faster; Windows replaces no file in use
                    self._drop()
                    return final
                self._path.replace(final)
                self._file.close()
                sync_folder(self._root)
            except OSError as error:
                full = self._full(error, 0)
                self._drop()
                raise full from error
            return final

    def close(self) -> None:
        """Let go of the part; its bytes stay for the next transfer if that can find them."""
        with self._lock:
            if self._file.closed:
                return
            if self.size == 0 or self._path.name != self.sha + SUFFIX:
                self._drop()
            else:
                self._file.close()

    def _drop(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):  # Windows unlinks no open file
            self._path.unlink(missing_ok=True)

    def _full(self, error: OSError, more: int) -> Exception:
        if error.errno not in _FULL:
            return error
        wanted = more if self._total is None else self._total - self.size
        return StoreFull(
            f"the disk is full: blob {self.sha[:12]} needs {amount(max(wanted, more))} more in {self._root}; "
            "free some space or run `swisd models` to see what can go"
        )


def _claim(root: Path, sha: str) -> tuple[Path, FileIO]:
    """The first part file that is nobody else's, locked where that can be done."""
    path = root / (sha + SUFFIX) if fcntl else _private(root, sha)
    while True:
        file = _open(path)
        locked = _lock(file)
        # Between open and lock another process may have finished the part, or cleaned it up: then what we
        # hold is a blob, or nothing.
        if (locked or path.name.count(".") > 1) and _same(file, path):
            return path, file
        file.close()
        if not locked:
            path = _private(root, sha)


def _private(root: Path, sha: str) -> Path:
    return root / f"{sha}.{secrets.token_hex(8)}{SUFFIX}"


def _lock(file: FileIO) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another, or a file system without locks
        return False
    return True


def _open(path: Path) -> FileIO:
    # Unbuffered: a failed write must fail here, not at a later flush.
    return FileIO(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644), "r+b")


def _same(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def remove_abandoned(path: Path) -> bool:
    """Remove a part that no process holds; False if one does."""
    try:
        with path.open("rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()  # while we hold it, so that nobody begins to use it
                return True
        path.unlink()  # Windows refuses while somebody has it open
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the platform can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
