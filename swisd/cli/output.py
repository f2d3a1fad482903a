"""What a command writes where: results and JSON to standard output, words to standard error."""

import json
import os
import sys
from typing import Any, TextIO


class ReaderGone(Exception):
    """Whoever read standard output has left, as `head` does."""


def result(text: str, *, end: str = "\n") -> None:
    """A result, at once: it may be a stream that somebody watches. Raises `ReaderGone`."""
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
        raise ReaderGone from None


def json_line(value: dict[str, Any]) -> None:
    """One JSON object on a line; in ASCII where the output is not UTF-8. Raises `ReaderGone`."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    result(json.dumps(value, ensure_ascii=plain, separators=(",", ":")))


def say(text: str) -> None:
    """Something for the person, not for a pipe; lost where nobody reads it."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """What is still buffered for a reader that left would be an error once more when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def as_json(value: Any) -> dict[str, Any]:
    """A dataclass as a JSON object."""
    from swisd.core.checked import plain

    made: dict[str, Any] = plain(value)
    return made


def read_text(source: str) -> str:
    """Text of a file, or of standard input for `-`. Raises `BadInput`."""
    from pathlib import Path

    from swisd.core.errors import BadInput

    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).expanduser().read_bytes()
        return data.decode()
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of a user that is not there
        raise BadInput(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{source} is not UTF-8 text (byte {error.start})") from None
