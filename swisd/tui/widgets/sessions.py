"""Sessions as they run: who asked, how far, how fast."""

from textual.content import Content

from swisd.tui import words
from swisd.tui.columns import Column, cut, widths
from swisd.tui.view import SESSIONS_HINT, SwarmView
from swisd.tui.widgets.panel import WIDE, Panel

_COLUMNS = [
    Column("asked on", least=8),
    Column("session"),
    Column("state"),
    Column("prompt", right=True),
    Column("tokens", right=True),
    Column("tokens/s", right=True),
]
_LEAST_GRAPH = 10
_STYLES = {"running": "$text-success", "waiting": "$text-muted", "prompt": "$text-warning"}


class Sessions(Panel):
    TITLE = "Sessions"

    def lines(self, view: SwarmView, room: int) -> list[Content]:
        if not view.sessions:
            self.title("")
            return [Content.styled(" " + part, "$text-muted") for part in words.wrap(SESSIONS_HINT, room - 1)]
        self.title(_summary(view))
        gap = 3 if room >= WIDE else 2
        cells = [
            (
                row.asker,
                row.short,
                row.state,
                str(row.prompt_tokens),
                str(row.tokens),
                words.rate(row.tokens_per_s),
            )
            for row in view.sessions
        ]
        columns = widths(_COLUMNS, cells, room - _LEAST_GRAPH - gap - 1, gap)
        graph = room - sum(columns) - gap * len(columns) - 1
        titles = cut(_COLUMNS, [column.title for column in _COLUMNS], columns)
        out = [Content.styled(" " + (" " * gap).join(titles), "$text-muted")]
        for row, texts in zip(view.sessions, cells, strict=True):
            asker, short, state, *rest = cut(_COLUMNS, texts, columns)
            out.append(
                Content.assemble(
                    " ",
                    (" " * gap).join([asker, short]),
                    " " * gap,
                    (state, _STYLES[row.state]),
                    " " * gap,
                    (" " * gap).join(rest),
                    " " * gap,
                    (words.sparkline(row.history, graph), "$text-accent"),
                )
            )
        return out


def _summary(view: SwarmView) -> str:
    waiting = sum(row.state == "waiting" for row in view.sessions)
    running = len(view.sessions) - waiting
    parts = [f"{number} {word}" for number, word in ((running, "running"), (waiting, "waiting")) if number]
    if view.totals.tokens_per_s > 0:
        parts.append(f"{words.rate(view.totals.tokens_per_s)} tokens/s together")
    return ", ".join(parts)
