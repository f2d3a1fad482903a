"""A titled part of the screen that scrolls and draws only when its lines change."""

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.widgets import Static

from swisd.tui.view import SwarmView

WIDE = 100  # columns from which there is room for more than the essentials


class Panel(VerticalScroll):
    """Subclasses say what to draw in `lines`, and may set the title there."""

    TITLE = ""

    def __init__(self, panel_id: str) -> None:
        super().__init__(id=panel_id)
        self.title("")
        self._view = SwarmView()
        self._shown: Content | None = None
        self._body = Static()

    def compose(self) -> ComposeResult:
        yield self._body

    def show(self, view: SwarmView) -> None:
        self._view = view
        self._redraw()

    def on_resize(self, _: Resize) -> None:
        self._redraw()

    def _redraw(self) -> None:
        room = self.scrollable_content_region.width
        if room <= 0:
            return
        content = Content("\n").join(self.lines(self._view, room))
        if self._shown is None or not content.is_same(self._shown):
            self._shown = content
            self._body.update(content)

    def lines(self, view: SwarmView, room: int) -> list[Content]:
        raise NotImplementedError

    def title(self, detail: str) -> None:
        """The panel's name and a few words more."""
        text = Content.assemble((self.TITLE, "bold"), f"  {detail}" if detail else "")
        if text.markup != self.border_title:
            self.border_title = text.markup
