"""What a command writes where: results and JSON to standard output, words to standard error."""

import json
import sys
from typing import Any


def result(text: str, *, end: str = "\n") -> None:
    """A result, at once: it may be a stream that somebody watches."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def json_line(value: dict[str, Any]) -> None:
    """One JSON object on a line."""
    result(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def say(text: str) -> None:
    """Something for the person, not for a pipe."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


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
    except OSError as error:
        raise BadInput(f"cannot read {source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{source} is not UTF-8 text (byte {error.start})") from None
