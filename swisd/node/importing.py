"""Imports models in a process of its own: it takes memory and time that this device has promised away."""

import asyncio
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from swisd.core.errors import ModelError

STALL = 600.0  # seconds without a word from the importer
MAX_LINE = 64 << 10
GROUPS = os.name == "posix"

Progress = Callable[[str, int, int], None]  # what, done, total


def can_import() -> bool:
    """Whether this device has what importing needs (a phone has not)."""
    return importlib.util.find_spec("onnx") is not None


async def import_model(source: str, home: Path, progress: Progress, *, model_id: str = "") -> str:
    """Import a model card's id or a file's path into a home; returns the model id.

    Raises `ModelError` with the importer's own words.
    """
    if not can_import():
        raise ModelError(
            "this device cannot import models: the packages gguf and onnx are missing, as on every phone. "
            "Import on another device of the swarm; this one gets its part from there"
        )
    command = [sys.executable, "-m", "swisd.node.provide", "--home", str(home), source]
    if model_id:
        command += ["--id", model_id]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, limit=MAX_LINE, start_new_session=GROUPS,
    )  # fmt: skip
    try:
        return await _follow(process, progress)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                if GROUPS:
                    os.killpg(process.pid, signal.SIGKILL)  # pip too, where the importer is fetching
                else:
                    process.kill()
            await process.wait()


async def _follow(process: asyncio.subprocess.Process, progress: Progress) -> str:
    assert process.stdout is not None
    while True:
        try:
            async with asyncio.timeout(STALL):
                line = await process.stdout.readline()
        except TimeoutError:
            raise ModelError(f"importing the model made no progress for {STALL:.0f} s; try again") from None
        if not line:
            raise ModelError("importing the model broke off: not enough memory or disk?")
        try:
            word = json.loads(line)
        except ValueError:
            continue
        if "error" in word:
            raise ModelError(str(word["error"]))
        if "model_id" in word:
            return str(word["model_id"])
        progress(str(word.get("what", "")), int(word.get("done", 0)), int(word.get("total", 0)))
