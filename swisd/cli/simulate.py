"""`swisd simulate`: storms over simulated swarms, and what came of them."""

from pathlib import Path
from typing import Any

from swisd.cli.output import as_json, json_line, result, say
from swisd.core.errors import BadInput
from swisd.core.types import Objective
from swisd.sim.mishaps import ALL, KINDS
from swisd.sim.storm import Report, run_storm


def run_simulate(
    seed: int,
    devices: int,
    minutes: float,
    faults: str,
    storms: int,
    transcript: Path | None,
    objective: Objective,
    *,
    as_lines: bool,
) -> int:
    """Run the storms of the seeds from `seed` on. Returns 1 if an invariant did not hold, else 0."""
    kinds = kinds_of(faults)
    failed: Report | None = None
    for number in range(seed, seed + storms):
        report = run_storm(number, devices, minutes, kinds, objective)
        if as_lines:
            json_line(_told(report))
        else:
            result(render(report))
        if report.violations and failed is None:
            failed = report
        if transcript is not None and (failed is report or (failed is None and number == seed + storms - 1)):
            _write(transcript, report)
    return 1 if failed else 0


def kinds_of(faults: str) -> list[str]:
    """The kinds of mishaps that a list like `crash,link` names; `all` and `none` are lists too."""
    kinds: set[str] = set()
    for name in (part.strip() for part in faults.split(",")):
        if name == "all":
            kinds |= ALL
        elif name in KINDS:
            kinds.add(name)
        elif name not in ("none", ""):
            raise BadInput(f"there is no fault {name}: choose of all, none, {', '.join(sorted(KINDS))}")
    return sorted(kinds)


def render(report: Report) -> str:
    """A report for a person."""
    lines = [
        f"seed {report.seed}: {report.devices} devices, {report.layers} layers, {report.broker} broker, "
        f"{report.virtual_s / 60:.1f} virtual minutes, {report.plans} plans "
        f"of {report.pipelines} pipeline(s) at most",
        f"  mishaps      {_counts(report.faults)}",
        f"  deliveries   {_counts(report.met)}",
        f"  refused      {_counts(report.dropped)}",
        f"  sessions     {report.asked}: {report.ended_well} ended well, "
        f"{report.ended_by_error} by an error; {report.tokens} tokens, "
        f"longest pause {report.longest_pause:.1f} s",
        f"  brought back {report.brought_back} times, {'with' if report.spares else 'without'} spares",
        *(f"               {count} x {text}" for text, count in report.errors.items()),
        f"  transcript   sha256 {report.digest[:16]}, {report.events} effects",
    ]
    for broken in report.violations:
        lines += [f"VIOLATION at {broken.at:.3f} s: {broken.what}", *(f"  {line}" for line in broken.tail)]
    if not report.violations:
        lines.append("  every invariant held")
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _told(report: Report) -> dict[str, Any]:
    value = as_json(report)
    del value["transcript"]
    return value


def _write(path: Path, report: Report) -> None:
    try:
        path.write_text(
            "\n".join((*report.transcript, *render(report).splitlines())) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None
    say(f"swisd: the transcript of seed {report.seed} is in {path}")
