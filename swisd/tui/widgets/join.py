"""The join code: a QR code for a phone's camera, and the text for everybody else."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from swisd.tui import words
from swisd.tui.qr import qr_lines

# Black on white whatever the theme: cameras want it, and the blocks are the light modules.
_INK = "#FFFFFF on #000000"


class Join(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,j,q", "dismiss(None)", "close"),
        Binding("c", "copy", "copy"),
    ]

    def __init__(self, code: str) -> None:
        super().__init__()
        self._code = code
        self._picture = qr_lines(code) if code else []

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(id="join")
            yield Static("esc close   c copy", classes="keys")

    def on_resize(self, event: Resize) -> None:
        self.query_one("#join", Static).update(self._content(event.size.width, event.size.height))

    def action_copy(self) -> None:
        if self._code:
            self.app.copy_to_clipboard(self._code)
            self.query_one(".keys", Static).update("esc close   copied")

    def _content(self, width: int, height: int) -> Content:
        """The picture only where all of it fits: a part of a QR code is of no use."""
        if not self._code:
            return Content("This device has no join code yet.")
        side = max(len(line) for line in self._picture)
        code = words.wrap(self._code, width - 6)
        shown = len(self._picture) + len(code) + 4 <= height and side + 6 <= width
        lines = [Content.styled(line, _INK) for line in self._picture] if shown else []
        if shown:
            # The number of modules is odd: the last line is half a line.
            lines[-1] = Content.styled(self._picture[-1], "#FFFFFF")
        else:
            lines.append(Content.styled("Enlarge the window for the QR code.", "$text-muted"))
        lines.append(Content(""))
        lines.extend(Content.styled(part, "bold") for part in code)
        return Content("\n").join(lines)
