"""Aligned columns that give way in a chosen order when the terminal is narrow."""

from collections.abc import Sequence
from dataclasses import dataclass

from swisd.tui.words import cells, fit


@dataclass(frozen=True, slots=True)
class Column:
    """`least` is the width that it may be cut down to (None: never cut); `right` aligns numbers."""

    title: str
    right: bool = False
    least: int | None = None


def widths(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int, gap: int = 1
) -> tuple[int, ...]:
    """Natural widths, then columns that may give way shrink from the left until the row fits `room`."""
    natural = [
        max(cells(column.title), *(cells(row[i]) for row in rows)) if rows else cells(column.title)
        for i, column in enumerate(columns)
    ]
    excess = sum(natural) + gap * (len(columns) - 1) - room
    for i, column in enumerate(columns):
        if excess > 0 and column.least is not None:
            given = min(excess, max(0, natural[i] - column.least))
            natural[i] -= given
            excess -= given
    return tuple(natural)


def cut(columns: Sequence[Column], row: Sequence[str], wide: Sequence[int]) -> list[str]:
    """The cells of one row, each exactly as wide as its column."""
    return [fit(text, width, column.right) for column, text, width in zip(columns, row, wide, strict=True)]


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int = 1 << 16, gap: int = 2
) -> list[str]:
    """Header and rows as plain lines."""
    wide = widths(columns, rows, room, gap)
    titles = [column.title for column in columns]
    return [(" " * gap).join(cut(columns, row, wide)).rstrip() for row in [titles, *rows]]
