import errno
import hashlib
import os
from pathlib import Path

import pytest

from swisd.core.errors import ModelError
from swisd.store import parts
from swisd.store.disk import BlobStore, CorruptBlob, StoreFull


def names(store: BlobStore) -> set[str]:
    return {path.name for path in store.root.iterdir()}


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_put_read_remove(store: BlobStore) -> None:
    sha = store.put(b"hello")
    assert sha == sha_of(b"hello") and store.has(sha) and store.size(sha) == 5
    assert store.read(sha) == b"hello" and store.verify(sha) and store.blobs() == [sha]
    assert store.put(b"hello") == sha and names(store) == {sha}
    assert store.remove(sha) and not store.has(sha) and not store.remove(sha) and not store.verify(sha)
    with pytest.raises(ModelError):
        store.read(sha)
    with pytest.raises(ModelError):
        store.size(sha)


@pytest.mark.parametrize("name", ["", "..", "../x", "A" * 64, "a" * 63, "a" * 64 + "\n", "a" * 63 + "/"])
def test_names_that_are_no_hash_are_refused(store: BlobStore, name: str) -> None:
    for use in (store.path, store.has, store.read, store.remove, store.verify, store.size):
        with pytest.raises(ValueError, match="sha256"):
            use(name)


def test_damage_on_disk_is_found_and_removed(store: BlobStore) -> None:
    sha = store.put(b"hello")
    store.path(sha).write_bytes(b"jello")
    assert not store.verify(sha)
    with pytest.raises(CorruptBlob, match="damaged"):
        store.read(sha)
    assert not store.has(sha)


def test_a_short_file_is_replaced(store: BlobStore) -> None:
    sha = store.put(b"hello")
    store.path(sha).write_bytes(b"hel")
    store.remove(sha)
    assert store.put(b"hello") == sha and store.verify(sha)


def test_adopt_moves_a_file(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 3_000_000)
    sha = store.adopt(source)
    assert not source.exists() and store.verify(sha) and store.size(sha) == 3_000_000
    source.write_bytes(b"w" * 3_000_000)
    assert store.adopt(source) == sha and not source.exists()


def test_a_part_is_resumed_by_the_next_process(store: BlobStore) -> None:
    data = b"abc" * 1000
    sha = sha_of(data)
    first = store.part(sha, len(data))
    first.write([data[:1000], data[1000:1700]])
    first.close()
    assert store.part_bytes(sha) == 1700 and not store.has(sha)
    again = BlobStore(store.root).part(sha, len(data))
    assert again.size == 1700
    again.write([data[1700:]])
    again.commit()
    again.close()
    assert store.read(sha) == data and names(store) == {sha} and store.part_bytes(sha) == 0


def test_a_part_in_use_is_not_shared(store: BlobStore) -> None:
    data = b"abc" * 1000
    sha = sha_of(data)
    mine, theirs = store.part(sha, len(data)), BlobStore(store.root).part(sha, len(data))
    mine.write([data])
    assert theirs.size == 0
    theirs.write([data[:5]])
    mine.commit()
    theirs.write([data[5:]])
    theirs.commit()
    mine.close()
    theirs.close()
    assert store.read(sha) == data and names(store) == {sha}


def test_a_finished_part_is_not_taken_for_a_part(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process renames its part between our open and our lock."""
    data = b"abc" * 1000
    sha = sha_of(data)
    first = store.part(sha, len(data))
    first.write([data])
    open_it, done = parts._open, False

    def open_then_finish(path: Path) -> parts.FileIO:
        nonlocal done
        file = open_it(path)
        if not done:
            done = True
            first.commit()
        return file

    monkeypatch.setattr(parts, "_open", open_then_finish)
    second = store.part(sha, len(data))
    second.write([b"junk"])
    second.restart()
    second.close()
    assert store.read(sha) == data and names(store) == {sha}


def test_wrong_bytes_never_get_the_name(store: BlobStore) -> None:
    sha = sha_of(b"right")
    part = store.part(sha, 5)
    part.write([b"wrong"])
    with pytest.raises(CorruptBlob):
        part.commit()
    assert part.size == 0
    part.write([b"right"])
    part.commit()
    part.close()
    assert store.read(sha) == b"right"


def test_a_part_longer_than_its_blob_starts_again(store: BlobStore) -> None:
    sha = sha_of(b"right")
    (store.root / f"{sha}.part").write_bytes(b"much too long")
    part = store.part(sha, 5)
    assert part.size == 0
    part.close()
    assert names(store) == set()


def test_start_up_keeps_what_is_valid(store: BlobStore) -> None:
    kept, half = store.put(b"whole"), sha_of(b"half")
    (store.root / f"{half}.part").write_bytes(b"ha")
    (store.root / f"{half}.0123456789abcdef.part").write_bytes(b"h")
    busy = store.part(sha_of(b"x"), 1)
    other = BlobStore(store.root).part(sha_of(b"x"), 1)  # a private part that somebody writes
    BlobStore(store.root)
    assert {kept, f"{half}.part"} < names(store) and f"{half}.0123456789abcdef.part" not in names(store)
    assert len(names(store)) == 4
    busy.close()
    other.close()
    assert names(store) == {kept, f"{half}.part"}


def test_gc(store: BlobStore) -> None:
    keep, drop, half, busy = store.put(b"keep"), store.put(b"drop"), sha_of(b"half"), sha_of(b"busy")
    (store.root / f"{half}.part").write_bytes(b"ha")
    (store.root / "notes.txt").write_text("not ours")
    part = store.part(busy, 4)
    assert store.gc({keep}) == 6
    assert names(store) == {keep, "notes.txt", f"{busy}.part"} and not store.has(drop)
    part.close()


def test_no_room_is_said_before_a_byte_is_written(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlobStore, "free_bytes", lambda _: 1 << 20)
    with pytest.raises(StoreFull, match=r"2\.0 MiB missing"):
        store.put(bytes(3 << 20))
    assert names(store) == set()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_in_mid_write(store: BlobStore, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    class FullDisk(parts.FileIO):
        def write(self, data: object) -> int:
            if self.tell() >= 1000:
                raise OSError(code, os.strerror(code))
            return super().write(bytes(data)[:1000])  # type: ignore[call-overload]

    monkeypatch.setattr(parts, "FileIO", FullDisk)
    with pytest.raises(StoreFull, match="disk is full"):
        store.put(bytes(3 << 20))
    assert names(store) == set()
    assert store.put(b"small") and len(names(store)) == 1


def test_other_disk_errors_are_not_called_full(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    class BrokenDisk(parts.FileIO):
        def write(self, data: object) -> int:
            raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(parts, "FileIO", BrokenDisk)
    with pytest.raises(OSError, match="broken"):
        store.put(b"x")
    assert names(store) == set()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    import subprocess

    target = tmp_path / "small"
    target.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", target], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        store = BlobStore(target)
        kept = store.put(bytes(300_000))
        part = store.part(sha_of(b"never"), 600_000)  # room enough now, but somebody else takes it
        (target / "other").write_bytes(bytes(500_000))
        with pytest.raises(StoreFull, match="disk is full"):
            for _ in range(6):
                part.write([bytes(100_000)])
        part.close()
        assert names(store) == {kept, "other"} and store.verify(kept)
        with pytest.raises(StoreFull, match="missing"):
            store.put(bytes(2 << 20))
    finally:
        subprocess.run(["umount", target], check=True)
