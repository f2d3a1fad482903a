"""Every device: what it does, what it runs, how fast, how much memory, how far away."""

from textual.content import Content

from swisd.tui import words
from swisd.tui.columns import Column, cut, widths
from swisd.tui.palette import fill
from swisd.tui.rows import DeviceRow, Tone
from swisd.tui.view import SwarmView, devices_hint
from swisd.tui.widgets.panel import WIDE, Panel

STYLES: dict[Tone, str] = {
    "good": "$text-success",
    "busy": "$text-warning",
    "bad": "bold $text-error",
    "quiet": "$text-muted",
}

# Names give way first, then units: the plan below shows both again.
_COLUMNS = [
    Column("device", least=8),
    Column("state"),
    Column("role"),
    Column("units", least=9),
    Column("ms/layer", right=True),
    Column("memory", right=True),
    Column("link ms", right=True),
]


class Devices(Panel):
    TITLE = "Devices"

    def lines(self, view: SwarmView, room: int) -> list[Content]:
        self.title(_summary(view.devices))
        wide = room >= WIDE
        gap = 3 if wide else 1
        cells = [_cells(row, wide) for row in view.devices]
        chip = max((len(row.letter) for row in view.devices), default=1) + 3
        columns = widths(_COLUMNS, cells, room - chip, gap)
        out: list[Content] = []
        if view.devices:
            titles = cut(_COLUMNS, [column.title for column in _COLUMNS], columns)
            out.append(Content.styled(" " * chip + (" " * gap).join(titles), "$text-muted"))
        for row, texts in zip(view.devices, cells, strict=True):
            out.append(_line(row, cut(_COLUMNS, texts, columns), chip, gap))
            out.extend(_notes(row, chip, room))
        hint = devices_hint(view)
        if hint:
            out.extend(Content.styled(" " + part, "$text-accent") for part in words.wrap(hint, room - 1))
        return out


def _summary(rows: tuple[DeviceRow, ...]) -> str:
    if not rows:
        return ""
    used = sum(row.role in ("driver", "worker") for row in rows)
    lost = sum(row.state == "lost" for row in rows)
    failed = sum(row.state == "failed" for row in rows)
    parts = [f"{len(rows)} known", *([f"{used} in the plan"] if used else [])]
    parts += [f"{number} {word}" for number, word in ((failed, "failed"), (lost, "lost")) if number]
    return ", ".join(parts)


def _cells(row: DeviceRow, wide: bool) -> tuple[str, ...]:
    return (
        row.name,
        row.state,
        row.marks if wide else row.role,
        row.units,
        words.millis(row.layer_ms),
        words.memory(row.memory_used, row.memory_offered),
        words.millis(row.rtt_ms),
    )


def _line(row: DeviceRow, texts: list[str], chip: int, gap: int) -> Content:
    name, state, *rest = texts
    quiet = row.state in ("lost", "left")
    return Content.assemble(
        (words.fit(f" {row.letter}", chip - 1), fill(row.colour)),
        " ",
        (name, "bold" if row.you else "$text-muted" if quiet else ""),
        " " * gap,
        (state, STYLES[row.tone]),
        " " * gap,
        ((" " * gap).join(rest), "$text-muted" if quiet else ""),
    )


def _notes(row: DeviceRow, indent: int, room: int) -> list[Content]:
    """What a device says of itself, in whole; why the plan does without it, in one line if need be."""
    out: list[tuple[str, str]] = []
    if row.note:
        style = STYLES[row.tone] if row.tone != "good" else "$text-muted"
        out.extend((part, style) for part in words.wrap(row.note, room - indent))
    if row.left_out and row.state not in ("lost", "left", "failed"):
        parts = words.wrap(row.left_out, room - indent)
        if room < WIDE:
            parts = [words.shorten(row.left_out, room - indent)]  # `swisd plan` has it all
        out.extend((part, "$text-muted") for part in parts)
    return [Content.assemble(" " * indent, (part, style)) for part, style in out]
