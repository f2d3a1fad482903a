"""Imports models in a process of its own: it takes memory and time that this device has promised away."""

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from swisd.core.checked import Malformed, Range, Text, from_json
from swisd.core.errors import BadInput, ModelError

PROGRAM = (sys.executable, "-m", "swisd.node.provide")
STALL = 600.0  # seconds without a word from the importer
TIDY_UP = 3.0  # seconds for an importer that is told to stop to remove what it has half done
MAX_LINE = 64 << 10
GROUPS = os.name == "posix"

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True, slots=True)
class Word:
    """A line of the importer: progress (`what`, `done` of `total`), or the end (`model_id`, or `error`)."""

    what: Annotated[str, Text(100)] = ""
    done: Annotated[int, Range(0, 1 << 60)] = 0
    total: Annotated[int, Range(0, 1 << 60)] = 0
    model_id: Annotated[str, Text(200)] = ""
    error: Annotated[str, Text(4000)] = ""
    code: Annotated[int, Range(0, 255)] = 1  # of the error


def can_import() -> bool:
    """Whether this device has what importing needs (a phone has not)."""
    return importlib.util.find_spec("onnx") is not None


async def import_model(source: str, home: Path, progress: Progress, *, model_id: str = "") -> str:
    """Import a model card's id or a file's path into a home; returns the model id.

    Raises `ModelError` or `BadInput` with the importer's own words.
    """
    if not can_import():
        raise ModelError(
            "this device cannot import models: the package onnx is missing, as on every phone. "
            "Import on another device of the swarm; this one gets its part from there"
        )
    try:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, f"--home={home}", f"--id={model_id}", "--", source, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=MAX_LINE,
            start_new_session=GROUPS,
        )  # fmt: skip
    except (OSError, ValueError) as error:  # ValueError: a path that no process can be given
        raise ModelError(f"cannot start importing {source!r}: {error}") from None
    try:
        return await _follow(process, progress)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the importer and what it started: it is asked first, so that it leaves nothing half done."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            if GROUPS:
                os.killpg(process.pid, number)  # pip too, where the importer is fetching
            else:
                process.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(TIDY_UP):
                await process.wait()


async def _follow(process: asyncio.subprocess.Process, progress: Progress) -> str:
    assert process.stdout is not None
    while True:
        try:
            async with asyncio.timeout(STALL):
                line = await process.stdout.readline()
        except TimeoutError:
            raise ModelError(f"importing the model made no progress for {STALL:.0f} s; try again") from None
        except ValueError:
            continue  # a line that is too long is none of ours
        if not line:
            raise ModelError("importing the model broke off: not enough memory or disk?")
        word = _read(line)
        if word.error:
            raise (BadInput if word.code == BadInput.exit_code else ModelError)(word.error)
        if word.model_id:
            return word.model_id
        if word.what:
            progress(word.what, word.done, word.total)


def _read(line: bytes) -> Word:
    """What the importer says; a line of something else, as a library's warning, says nothing."""
    try:
        return from_json(Word, line, MAX_LINE)
    except Malformed:
        return Word()
