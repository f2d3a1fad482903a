"""What happened, newest first, so that the latest line is seen however small the window is."""

from datetime import datetime, tzinfo

from textual.content import Content

from swisd.tui import words
from swisd.tui.rows import EventRow, Level
from swisd.tui.view import SwarmView
from swisd.tui.widgets.panel import Panel

_MARKS: dict[Level, tuple[str, str]] = {
    "info": ("", ""),
    "warning": ("warning: ", "$text-warning"),
    "error": ("error: ", "bold $text-error"),
}


class Events(Panel):
    TITLE = "Events"

    def __init__(self, panel_id: str, zone: tzinfo | None = None) -> None:
        super().__init__(panel_id)
        self._zone = zone

    def lines(self, view: SwarmView, room: int) -> list[Content]:
        if not view.events:
            return [Content.styled(" Nothing happened yet.", "$text-muted")]
        return [line for event in reversed(view.events) for line in self._lines(event, room)]

    def _lines(self, event: EventRow, room: int) -> list[Content]:
        time = datetime.fromtimestamp(event.at, self._zone).strftime(" %H:%M:%S  ")
        mark, style = _MARKS[event.level]
        text = mark + event.text + (f" ({event.times} times)" if event.times > 1 else "")
        first, *rest = words.wrap(text, room - len(time)) or [""]
        out = [Content.assemble((time, "$text-muted"), (first, style))]
        out.extend(Content.assemble(" " * len(time), (part, style)) for part in rest)
        return out
