"""The first line: which device this is, who the host is, and whether the swarm can answer."""

from textual.content import Content
from textual.events import Resize
from textual.widgets import Static

from swisd.tui import words
from swisd.tui.rows import DeviceRow
from swisd.tui.view import SwarmView, plan_hint


class TopLine(Static):
    def __init__(self) -> None:
        super().__init__(id="top")
        self._view = SwarmView()
        self._shown: Content | None = None

    def show(self, view: SwarmView) -> None:
        self._view = view
        self._redraw()

    def on_resize(self, _: Resize) -> None:
        self._redraw()

    def _redraw(self) -> None:
        line = top_line(self._view, self.content_region.width)
        if self._shown is None or not line.is_same(self._shown):
            self._shown = line
            self.update(line)


def top_line(view: SwarmView, room: int) -> Content:
    status, style = _status(view)
    left = _who(view, room - len(status) - len("swisd") - 5)
    space = " " * max(1, room - len(" swisd  ") - words.cells(left) - len(status) - 1)
    return Content.assemble((" swisd", "bold $text-accent"), "  ", left, space, (status, style))


def _who(view: SwarmView, room: int) -> str:
    """This device and the host; names are cut to what is left of the line."""
    rows = {row.device: row for row in view.devices}
    you, host = rows.get(view.you), next((row for row in view.devices if row.host), None)
    if view.identity is None:
        return ""
    if host is None or host.you:
        role = ", host" if host else ""
        return _label(you, words.clean(view.identity.name), room - len(role)) + role
    each = (room - len(", host ")) // 2
    name = _label(you, words.clean(view.identity.name), each)
    return f"{name}, host {_label(host, host.name, each)}"


def _label(row: DeviceRow | None, name: str, room: int) -> str:
    letter = f"{row.letter} " if row else ""
    return words.shorten(letter + name, max(4, room))


def _status(view: SwarmView) -> tuple[str, str]:
    if view.bus is not None and not view.bus.connected:
        return "not connected", "bold $text-error"
    if view.digest is None:
        return "starting", "$text-warning"
    if plan_hint(view):
        return "not ready", "$text-warning"
    return "ready", "bold $text-success"
