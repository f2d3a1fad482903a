"""The plan as a bar: one coloured segment for each shard, as long as its part of the model."""

from collections.abc import Callable, Sequence
from itertools import groupby

from textual.content import Content

from swisd.tui import words
from swisd.tui.cover import cover_line, gap_line
from swisd.tui.palette import fill
from swisd.tui.rows import SegmentRow, Totals
from swisd.tui.view import SwarmView, plan_hint
from swisd.tui.widgets.panel import WIDE, Panel


class PlanBar(Panel):
    TITLE = "Plan"

    def lines(self, view: SwarmView, room: int) -> list[Content]:
        self.title(_summary(view, room - len(self.TITLE) - 6))
        # Bars of several pipelines would fill the panel: a line each, below what is said of all together.
        # Their units are in the table of devices.
        several = view.totals.pipelines > 1
        bars: list[Content] = []
        for _, group in groupby(view.segments, key=lambda segment: segment.pipeline):
            bars.extend(_bar(list(group), room, (_what,) if several else (_who, _units, _predicted)))
        hint = words.wrap(plan_hint(view), room - 1)
        said = [Content.styled(" " + part, "$text-accent") for part in hint]
        if view.segments:
            said.append(_figures(view.totals, room))
        out = [*said, *bars] if several else [*bars, *said]
        return [*out, *_cover(view, room)]


def _summary(view: SwarmView, room: int) -> str:
    if view.plan is None or not view.plan.pipelines:
        return ""
    context = f", context {view.plan.context}" if view.plan.context else ""
    several = f", {view.totals.pipelines} pipelines" if view.totals.pipelines > 1 else ""
    tail = f"  epoch {view.plan.epoch}, for {view.plan.objective}{several}{context}"
    model = words.shorten(words.clean(view.plan.model_id), max(8, room - len(tail)))
    return model + tail


def _bar(
    segments: list[SegmentRow], room: int, texts: Sequence[Callable[[SegmentRow, int], str]]
) -> list[Content]:
    """A pipeline with one line for each text: who, which units, predicted ms or what is wrong."""
    sizes = spread([segment.share for segment in segments], room)
    out = []
    for text in texts:
        parts: list[tuple[str, str]] = []
        for segment, size in zip(segments, sizes, strict=True):
            parts.append((_inside(text(segment, size), size), fill(segment.colour)))
        out.append(Content.assemble(*parts))
    return out


def spread(shares: list[float], room: int) -> list[int]:
    """Whole columns in proportion to the shares, at least two each so that a letter can be read."""
    if not shares:
        return []
    least = 2 if room >= 2 * len(shares) else 1
    spare, whole = max(0, room - least * len(shares)), sum(shares) or 1.0
    ends, so_far = [0], 0.0
    for share in shares:
        so_far += share
        ends.append(round(spare * so_far / whole))
    return [least + ends[i + 1] - ends[i] for i in range(len(shares))]


def _inside(text: str, size: int) -> str:
    return words.fit(f" {text}", size) if size >= words.cells(text) + 1 else words.fit(text, size)


def _who(segment: SegmentRow, size: int) -> str:
    if size < 8:
        return segment.letter
    return f"{segment.letter} {words.shorten(segment.name, size - len(segment.letter) - 3)}"


def _what(segment: SegmentRow, size: int) -> str:
    """Who, and what is wrong, in one line."""
    return _who(segment, size) if not segment.trouble else f"{segment.letter} {segment.trouble}"


def _units(segment: SegmentRow, size: int) -> str:
    # A word cut to two letters says nothing; the letter above and the table say it.
    return segment.units if size > words.cells(segment.units) else ""


def _predicted(segment: SegmentRow, size: int) -> str:
    if segment.trouble:
        return segment.trouble
    figure = f"{words.millis(segment.predicted_ms)} ms"
    return figure if segment.predicted_ms > 0 and size > len(figure) else ""


def _cover(view: SwarmView, room: int) -> list[Content]:
    """Who stands in for whom, by letters; in a wide window also what it means that nobody does."""
    if not view.cover:
        return []
    title = " spares    "
    parts = words.wrap(cover_line(view.cover, view.letters), room - len(title))
    out = [
        Content.assemble((title if not number else " " * len(title), "$text-muted"), part)
        for number, part in enumerate(parts)
    ]
    if room >= WIDE:  # `swisd plan` has it in any window
        gap = words.wrap(gap_line(view.cover), room - 1)
        out.extend(Content.styled(" " + part, "$text-warning") for part in gap)
    return out


def _figures(totals: Totals, room: int) -> Content:
    """Predicted beside measured, and by how much they differ."""
    rate = f"{words.rate(words.per_second(totals.predicted_ms))} tokens/s"
    measured: list[str | tuple[str, str]] = [("   not measured yet", "$text-muted")]
    if totals.measured_ms > 0:
        measured = [
            ("   measured ", "$text-muted"),
            (f"{words.millis(totals.measured_ms)} ms/token", "bold"),
            f"  {totals.gap}",
        ]

    def line(more: str) -> Content:
        return Content.assemble(
            (" predicted ", "$text-muted"),
            (f"{words.millis(totals.predicted_ms)} ms/token", "bold"),
            f" ({more})",
            *measured,
        )

    if totals.pipelines > 1:
        every = f"all {words.rate(totals.together_per_s)} tokens/s"
        said = line(f"slowest; {every}")
        return said if said.cell_length <= room else line(every)
    links = f"{rate}, {words.millis(totals.links_ms)} ms of it links"
    return line(links) if totals.links_ms > 0 and line(links).cell_length <= room else line(rate)
