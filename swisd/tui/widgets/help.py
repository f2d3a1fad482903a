"""Keys and words, on one small page."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

_KEYS = (
    ("j", "join code for another device"),
    ("q", "leave the swarm and quit"),
    ("tab, arrows", "choose a panel, scroll"),
    ("?", "this page; esc closes it"),
)
_WORDS = (
    ("driver", "holds the first and last units, chooses tokens"),
    ("worker", "runs some of the model's layers"),
    ("spare", "keeps another's units loaded, in case it is lost"),
    ("standby", "takes no part in the plan"),
    ("host", "plans for the swarm; another can take over"),
    ("units", "embed, layers by number, head"),
    ("ms/layer", "one token through one layer, measured"),
    ("memory", "in use / offered to the swarm"),
    ("link", "round trip to its nearest device, measured"),
    ("silent", "missed heartbeats; lost if it goes on"),
)


class Help(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss(None)", "close"),
    ]

    def compose(self) -> ComposeResult:
        lines: list[Content] = []
        for title, entries in (("Keys", _KEYS), ("Words", _WORDS)):
            lines.append(Content.styled(title, "bold $text-accent"))
            lines.extend(Content.assemble((f"  {key:<13}", "bold"), text) for key, text in entries)
            lines.append(Content(""))
        with VerticalScroll(classes="box"):
            yield Static(Content("\n").join(lines[:-1]))
