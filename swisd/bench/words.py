"""The report as a table of 80 columns: ratios first, then figures, then what they mean. Pure."""

import time
from collections.abc import Sequence

from swisd.bench.history import Change
from swisd.bench.report import Report, Side

NAME = 16
MIB = 1 << 20
REST = (
    "rest: all hops, and the driver's own work between two tokens; links say: what the plan expects of the "
    "measured links alone"
)
HOP = (
    "one hop: from the end of computing on a device to its begin on the next; serialise: making and "
    "checking the frame; wait: from thread to thread; machine: deciding; wire: what is left"
)
HELD = "held: weights of shards and spares, and caches of sessions; not the process itself"


def table(report: Report, changes: Sequence[Change]) -> str:
    """All tables of a report, with the change against earlier runs. No line is longer than 80 columns."""
    sides = report.sides
    known = {change.side: change for change in changes}
    parts = [_title(report), _decode(sides, known), _prefill(sides, known)]
    if any(side.crowds for side in sides):
        parts.append(_crowds(sides))
    if any(side.way is not None for side in sides):
        parts += [_ways(sides), _hops(sides), _devices(sides)]
    parts.append("\n".join([*_since(changes), *(line for note in report.notes for line in wrapped(note))]))
    return "\n\n".join(part for part in parts if part)


def _title(report: Report) -> str:
    quick = ", quick" if report.quick else ""
    lines = wrapped(report.model)
    lines += wrapped(f"medians of {report.rounds} round(s){quick}; ratios above 1: faster than that one")
    lines += [f"  {_short(side.name, 40)}: {side.shape}" for side in report.sides if side.shape]
    return "\n".join(lines)


def _decode(sides: Sequence[Side], known: dict[str, Change]) -> str:
    rows = [
        [
            side.name, *_ratios(sides, side.decode_vs_solo, side.decode_vs_llama),
            f"{side.tokens_per_s:.1f}", f"{side.first_ms:.1f}", _ms(side.p50_ms), _ms(side.p99_ms),
            *_if(known, _percent(known[side.name].tokens_per_s if side.name in known else None)),
        ]
        for side in sides
    ]  # fmt: skip
    head = [*_heads(sides), "tokens/s", "first ms", "p50 ms", "p99 ms", *_if(known, "change")]
    return _columns(["one question", *head], rows)


def _prefill(sides: Sequence[Side], known: dict[str, Change]) -> str:
    rows = [
        [
            side.name, *_ratios(sides, side.prefill_vs_solo, side.prefill_vs_llama), f"{side.prefill_ms:.0f}",
            *_if(known, _percent(known[side.name].prefill if side.name in known else None)),
        ]
        for side in sides
    ]  # fmt: skip
    return _columns(["256-token prompt", *_heads(sides), "ms", *_if(known, "change")], rows)


def _crowds(sides: Sequence[Side]) -> str:
    solo = any(crowd.vs_solo is not None for side in sides if side.kind != "solo" for crowd in side.crowds)
    rows = []
    for side in sides:
        for crowd in side.crowds:
            rows.append([
                side.name if crowd is side.crowds[0] else "",
                str(crowd.requests), _ratio(crowd.gain), *_if(solo, _ratio(crowd.vs_solo)),
                f"{crowd.total_per_s:.1f}", f"{crowd.each_per_s:.1f}", f"{crowd.first_ms:.0f}",
                _ms(crowd.p50_ms), _ms(crowd.p99_ms),
            ])  # fmt: skip
    figures = ["total/s", "each/s", "first ms", "p50 ms", "p99 ms"]
    return _columns(["many questions", "at once", "vs one", *_if(solo, "vs solo"), *figures], rows)


def _ways(sides: Sequence[Side]) -> str:
    rows = []
    for side in sides:
        if side.way is not None:
            way = side.way
            per_hop = f"{way.rest_per_hop_ms:.2f}" if way.hops else "-"
            figures = [f"{way.whole_ms:.2f}", f"{way.compute_ms:.2f}", f"{way.rest_ms:.2f}"]
            rows.append([side.name, *figures, str(way.hops), per_hop, f"{way.link_ms:.2f}"])
    told = _columns(["one token, ms", "whole", "compute", "rest", "hops", "rest/hop", "links say"], rows)
    return "\n".join([told, *wrapped(REST)])


def _hops(sides: Sequence[Side]) -> str:
    rows = []
    for side in sides:
        hop = side.way.hop if side.way is not None else None
        if hop is not None:
            parts = (hop.p50_ms, hop.p99_ms, hop.serialise_ms, hop.wire_ms, hop.wait_ms, hop.machine_ms)
            rows.append([side.name, *(f"{part:.2f}" for part in parts)])
    if not rows:
        return ""
    told = _columns(["one hop, ms", "p50", "p99", "serialise", "wire", "wait", "machine"], rows)
    return "\n".join([told, *wrapped(HOP)])


def _devices(sides: Sequence[Side]) -> str:
    rows = []
    for side in sides:
        for part in side.way.devices if side.way is not None else ():
            first = side.way is not None and part is side.way.devices[0]
            memory = f"{part.resident_bytes / MIB:.1f}"
            rows.append([side.name if first else "", _short(part.name, 16), f"{part.compute_ms:.2f}", memory])
    told = _columns(["each device", "", "compute ms", "held MiB"], rows)
    return "\n".join([told, *wrapped(HELD)])


def _since(changes: Sequence[Change]) -> list[str]:
    """From when the figures are that `change` compares with."""
    groups: dict[tuple[int, str], list[str]] = {}
    for change in changes:
        groups.setdefault((change.since, change.version), []).append(change.side)
    lines = []
    for (since, version), names in groups.items():
        day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(since / 1000))
        lines += wrapped(f"change: speed of {'; '.join(names)} against {day} UTC, swisd {version}")
    return lines


def wrapped(text: str, width: int = 80) -> list[str]:
    """Words in lines of so many columns; those after the first are indented."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = "  " + word
        else:
            line = f"{line} {word}" if line else word
    return [each[:width] for each in [*lines, line] if each]


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A head and rows in columns that are as wide as need be; the first is to the left, the others right."""
    lines = [[_short(row[0], NAME), *row[1:]] for row in (head, *rows)]
    widths = [max(6, *(len(line[place]) for line in lines)) for place in range(1, len(head))]
    return "\n".join(
        f"{line[0]:<{NAME}}"
        + "".join(f" {cell:>{width}}" for cell, width in zip(line[1:], widths, strict=True))
        for line in lines
    )


def _heads(sides: Sequence[Side]) -> list[str]:
    return [
        *_if(any(side.decode_vs_solo is not None for side in sides), "vs solo"),
        *_if(any(side.decode_vs_llama is not None for side in sides), "vs llama"),
    ]


def _ratios(sides: Sequence[Side], solo: float | None, llama: float | None) -> list[str]:
    """Cells under `_heads`."""
    cells = {"vs solo": _ratio(solo), "vs llama": _ratio(llama)}
    return [cells[head] for head in _heads(sides)]


def _if(wanted: object, cell: str) -> list[str]:
    return [cell] if wanted else []


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _percent(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:+.1f} %"


def _ms(figure: float) -> str:
    return f"{figure:.1f}" if figure > 0 else "-"
