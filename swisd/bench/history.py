"""Earlier runs of this home, one JSON line each in `bench.jsonl`, and what has changed since the last one."""

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swisd.bench.report import Report, Side
from swisd.core.checked import Malformed, from_json, to_json
from swisd.core.errors import BadInput

FILE = "bench.jsonl"
MOST_LINES = 200
MOST_BYTES_A_LINE = 64 << 10


@dataclass(frozen=True, slots=True)
class Change:
    """In percent against an earlier run; above 0 is faster, of memory larger. None: there is no figure."""

    side: str
    since: int  # ms since 1970
    version: str  # that the earlier run was made with
    tokens_per_s: float | None
    first: float | None
    prefill: float | None
    most_at_once: float | None  # total tokens/s of the largest number of requests that both have


@dataclass(frozen=True, slots=True)
class History:
    """Runs in their order, oldest first; `damaged` counts lines that are none."""

    reports: tuple[Report, ...]
    damaged: int
    lines: tuple[bytes, ...]  # of the reports, as they stand: a newer version may have written more into them


def read_history(home: Path) -> History:
    """The runs of a home. What is damaged or too long is left out. Raises `BadInput` if it cannot be read."""
    path = home / FILE
    try:
        with path.open("rb") as file:
            data = file.read(MOST_LINES * MOST_BYTES_A_LINE)
    except FileNotFoundError:
        return History((), 0, ())
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    reports, kept, damaged = [], [], 0
    for line in data.splitlines()[-MOST_LINES:]:
        try:
            reports.append(from_json(Report, line, MOST_BYTES_A_LINE))
            kept.append(line)
        except Malformed:
            damaged += 1
    return History(tuple(reports), damaged, tuple(kept))


def append(home: Path, report: Report) -> None:
    """Write the history with one run more and the oldest dropped; for its owner alone. Raises `BadInput`."""
    history, path = read_history(home), home / FILE
    line = to_json(report)
    lines = [*history.lines, line][-MOST_LINES:] if len(line) <= MOST_BYTES_A_LINE else history.lines
    draft = path.with_name(f"{FILE}.{secrets.token_hex(4)}.tmp")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.writelines(each + b"\n" for each in lines)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BadInput(f"cannot write {path}: {error.strerror}") from None


def changes(report: Report, before: Sequence[Report]) -> tuple[Change, ...]:
    """Each side against the last earlier run that it can be compared with; sides without one are left out."""
    found = []
    for side in report.sides:
        for earlier in reversed(before):
            same = next((other for other in earlier.sides if _comparable(report, side, earlier, other)), None)
            if same is not None:
                found.append(_change(side, same, earlier))
                break
    return tuple(found)


def _comparable(report: Report, side: Side, earlier: Report, other: Side) -> bool:
    """The same work under the same kind of plan; the version may be another, for that is the question."""
    return (
        (report.model, report.where, report.quick, report.tokens)
        == (earlier.model, earlier.where, earlier.quick, earlier.tokens)
        and (side.kind, side.shape, side.lane) == (other.kind, other.shape, other.lane)
    )  # fmt: skip


def _change(side: Side, other: Side, earlier: Report) -> Change:
    now = {crowd.requests: crowd.total_per_s for crowd in side.crowds}
    then = {crowd.requests: crowd.total_per_s for crowd in other.crowds}
    most = max(now.keys() & then.keys(), default=0)
    return Change(
        side.name,
        earlier.at,
        earlier.version,
        percent(side.tokens_per_s, other.tokens_per_s),
        percent(other.first_ms, side.first_ms),
        percent(other.prefill_ms, side.prefill_ms),
        percent(now[most], then[most]) if most else None,
    )


def percent(above: float, below: float) -> float | None:
    """By how many percent one is more than the other; None where either is not above 0."""
    return round((above / below - 1.0) * 100.0, 2) if above > 0 and below > 0 else None


def as_plain(found: Sequence[Change]) -> list[dict[str, object]]:
    """For `--json`."""
    plain: list[dict[str, object]] = json.loads(b"[" + b",".join(to_json(each) for each in found) + b"]")
    return plain
