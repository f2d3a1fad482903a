"""Asked only when leaving would disturb someone: sessions run through this device."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from swisd.tui.words import count


class Leave(ModalScreen[bool]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "dismiss(True)", "leave"),
        Binding("n,escape,q", "dismiss(False)", "stay"),
    ]

    def __init__(self, sessions: int) -> None:
        super().__init__()
        self._sessions = sessions

    def compose(self) -> ComposeResult:
        verb = "runs" if self._sessions == 1 else "run"
        with Vertical(classes="box"):
            yield Static(
                Content.assemble(
                    (f"{count(self._sessions, 'session')} {verb} through this device.\n", "bold"),
                    "The other devices go on without it if they can hold the model.\n\n",
                    ("y", "bold"),
                    " leave   ",
                    ("n", "bold"),
                    " stay",
                )
            )
