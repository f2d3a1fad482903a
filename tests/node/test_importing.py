"""The importer as a process: its words, its end, and what is left when it is cut short."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from swisd.core.errors import BadInput, ModelError, SwisdError
from swisd.node import importing, provide
from swisd.node.importing import import_model
from swisd.node.provide import id_from_name
from swisd.store.disk import BlobStore
from swisd.store.models import ModelIndex
from tests.node.conftest import Until
from tests.tiny_models import write_model


class Told:
    def __init__(self) -> None:
        self.progress: list[tuple[str, int, int]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        self.progress.append((what, done, total))


def pretend(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Another program in the importer's place."""
    monkeypatch.setattr(importing, "PROGRAM", (sys.executable, "-S", "-c", code))


def says(*lines: object) -> str:
    words = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return f"import sys\nfor line in {words!r}: print('x' * 200000 if line == 'LONG' else line, flush=True)\n"


async def run(home: Path, told: Told | None = None, source: str = "x") -> str:
    async with asyncio.timeout(30):
        return await import_model(source, home, told or Told())


async def test_progress_and_the_id_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    pretend(monkeypatch, says({"what": "units", "done": 1, "total": 2}, {"model_id": "tiny"}))
    assert await run(tmp_path, told) == "tiny"
    assert told.progress == [("units", 1, 2)]


async def test_garbage_among_the_words_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    odd = [
        "a warning of some library", "", "[]", "5", "null", '"error"', "{", {"what": 5}, {"done": "x"},
        {"what": "units", "done": -1, "total": 2}, {"what": "units", "done": 1e99}, {"error": None},
        "[" * 2000, "LONG", {"unknown": 1}, {},
    ]  # fmt: skip
    pretend(monkeypatch, says(*odd, {"what": "check", "done": 2, "total": 3}, {"model_id": "tiny"}))
    assert await run(tmp_path, told) == "tiny"
    assert told.progress == [("check", 2, 3)]


@pytest.mark.parametrize(("code", "kind"), [(2, BadInput), (5, ModelError), (1, ModelError)])
async def test_its_error_is_raised_in_its_own_words_and_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[SwisdError]
) -> None:
    pretend(monkeypatch, says({"error": "no room for blob", "code": code}))
    with pytest.raises(kind, match=r"^no room for blob$"):
        await run(tmp_path)


@pytest.mark.parametrize(
    "code", ["", "import os; os.abort()", "raise SystemExit(3)", "print('half a wo', end='')"]
)
async def test_an_importer_that_breaks_off_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    pretend(monkeypatch, code)
    with pytest.raises(ModelError, match="broke off"):
        await run(tmp_path)


async def test_one_that_says_nothing_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "STALL", 0.01)
    pretend(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(ModelError, match="no progress"):
        await run(tmp_path)


async def test_one_that_cannot_be_started_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="cannot start"):
        await run(tmp_path, source="nul\0byte")
    monkeypatch.setattr(importing, "PROGRAM", (str(tmp_path / "missing"),))
    with pytest.raises(ModelError, match="cannot start"):
        await run(tmp_path)


async def test_a_device_without_onnx_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "can_import", lambda: False)
    with pytest.raises(ModelError, match="another device"):
        await run(tmp_path)


POLITE = """
import os, signal, sys, tempfile
path = {folder!r}
def stop(*_):
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
with tempfile.TemporaryDirectory(dir=path):
    print('{{"what": "fetch", "done": 1, "total": 2}}', flush=True)
    signal.pause()
"""
DEAF = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
print('{"what": "%d", "done": 1, "total": 2}' % child.pid, flush=True)
signal.pause()
"""


async def cancelled(home: Path, told: Told, until: Until) -> None:
    task = asyncio.create_task(import_model("x", home, told))
    await until(lambda: told.progress)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_it_removes_what_is_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    pretend(monkeypatch, POLITE.format(folder=str(tmp_path)))
    await cancelled(tmp_path, Told(), until)
    assert not any(tmp_path.glob("*"))  # noqa: ASYNC240


async def test_cancelled_and_deaf_it_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(importing, "TIDY_UP", 0.05)
    pretend(monkeypatch, DEAF)
    told = Told()
    await cancelled(tmp_path, told, until)
    child = int(told.progress[0][0])

    def gone() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        return "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2][:3]

    await until(gone)


async def test_a_real_file_is_imported_by_the_real_importer(tmp_path: Path) -> None:
    file = write_model(tmp_path / "-My Model (v2).GGUF", "llama", "Q8_0")
    home, told = tmp_path / "home", Told()
    assert await run(home, told, str(file)) == "my-model-v2"
    entry = ModelIndex(home / "models", BlobStore(home / "blobs")).get("my-model-v2")
    assert entry.imported and entry.source == str(file)
    assert {what for what, _, _ in told.progress} == {"check", "units"}
    assert not [path for path in home.rglob("*") if path.suffix in (".tmp", ".part")]


async def test_the_real_importers_errors_arrive(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="neither a model"):
        await run(tmp_path / "home", source="--help")
    broken = tmp_path / os.fsdecode(b"caf\xe9.gguf")
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"caf.*\.gguf"):
        await run(tmp_path / "home", source=str(broken))


def test_an_impossible_id_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provide, "import_model", lambda *_, **__: pytest.fail("it began to work"))
    (tmp_path / "m.gguf").write_bytes(b"")
    with pytest.raises(BadInput, match="not a model id"):
        provide.provide(str(tmp_path / "m.gguf"), tmp_path / "home", Told(), model_id="../../etc")


@pytest.mark.parametrize(
    ("name", "model_id"),
    [("SmolLM2-135M.Q4_1.gguf", "smollm2-135m.q4_1"), ("Ä b.GGUF", "b"), (".gguf", "model"), ("...", "model"),
     ("x" * 300, "x" * 100), ("a" * 99 + "--b.gguf", "a" * 99)],
)  # fmt: skip
def test_ids_from_file_names_can_name_files(name: str, model_id: str, tmp_path: Path) -> None:
    made = id_from_name(name)
    assert made == model_id
    with pytest.raises(ModelError, match="no model"):
        ModelIndex(tmp_path, BlobStore(tmp_path / "blobs")).get(made)
