"""The dashboard of `swisd up`: it draws what the node reports and asks the node for nothing."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import tzinfo
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.theme import Theme
from textual.widgets import Static

from swisd.tui.view import SwarmEvent, SwarmView, fold
from swisd.tui.widgets.devices import Devices
from swisd.tui.widgets.events import Events
from swisd.tui.widgets.help import Help
from swisd.tui.widgets.join import Join
from swisd.tui.widgets.leave import Leave
from swisd.tui.widgets.panel import Panel
from swisd.tui.widgets.plan_bar import PlanBar
from swisd.tui.widgets.sessions import Sessions
from swisd.tui.widgets.top_line import TopLine

REDRAW_S = 0.25
LEAVE_S = 10.0

Subscribe = Callable[[Callable[[SwarmEvent], None]], Callable[[], None] | None]

_THEME = Theme(
    name="swisd",
    primary="#56B4E9",
    accent="#56B4E9",
    success="#4CC38A",
    warning="#E6B450",
    error="#FF6B5E",
    foreground="#D8DEE4",
    background="#11151A",
    surface="#161B22",
    panel="#1E2630",
    dark=True,
    variables={"border": "#56B4E9", "border-blurred": "#3A4653", "text-muted": "#8B98A5"},
)


class Dashboard(App[None]):
    """Runs in the node's own event loop: `await Dashboard(...).run_async()`.

    `events` is a queue that this app empties, or a function that is given `post_event` and may return a
    function that ends the subscription. `on_quit` leaves the swarm; the app ends after it.
    """

    CSS_PATH = "dashboard.tcss"
    TITLE = "swisd"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012 (declared by App)
    VERTICAL_BREAKPOINTS = [(0, "-low"), (34, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "join", "join code"),
        Binding("question_mark", "help", "help"),
        Binding("q", "leave", "leave and quit"),
        Binding("ctrl+c,ctrl+q", "leave", "leave and quit", priority=True, show=False),
    ]

    def __init__(
        self,
        events: "asyncio.Queue[SwarmEvent] | Subscribe",
        on_quit: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__()
        self.register_theme(_THEME)
        self.theme = "swisd"
        self.animation_level = "none"
        self.view = SwarmView()
        self._events = events
        self._on_quit = on_quit
        self._clock = clock
        self._zone = zone
        self._pending: deque[SwarmEvent] = deque()
        self._home: asyncio.AbstractEventLoop | None = None
        self._redraw: asyncio.TimerHandle | None = None
        self._drawn_at = float("-inf")
        self._unsubscribe: Callable[[], None] | None = None
        self._leaving = False

    def compose(self) -> ComposeResult:
        yield TopLine()
        yield Devices("devices")
        yield PlanBar("plan")
        yield Sessions("sessions")
        yield Events("events", self._zone)
        yield Static(_keys(), id="keys")

    def on_mount(self) -> None:
        self._home = asyncio.get_running_loop()
        if isinstance(self._events, asyncio.Queue):
            self.run_worker(self._read(self._events), name="events")
        else:
            self._unsubscribe = self._events(self.post_event)
        self._wake()

    def on_unmount(self) -> None:
        self._home = None
        self._pending = deque(maxlen=0)  # a node that goes on without a screen must not fill memory
        if self._redraw is not None:
            self._redraw.cancel()
        if self._unsubscribe is not None:
            self._unsubscribe()

    def post_event(self, event: SwarmEvent) -> None:
        """From any thread, at any time; what comes before the first frame waits for it."""
        self._pending.append(event)
        home = self._home
        if home is not None and not home.is_closed():
            home.call_soon_threadsafe(self._wake)

    async def _read(self, queue: "asyncio.Queue[SwarmEvent]") -> None:
        while True:
            self.post_event(await queue.get())

    def _wake(self) -> None:
        """Draw now, or when the last frame is old enough; no timer runs while nothing happens."""
        if self._redraw is not None or self._home is None:
            return
        wait = self._drawn_at + REDRAW_S - self._home.time()
        self._redraw = self._home.call_later(max(0.0, wait), self._draw)

    def _draw(self) -> None:
        self._redraw = None
        if self._home is None:
            return
        self._drawn_at = self._home.time()
        before = self.view
        while self._pending:
            self.view = fold(self.view, self._pending.popleft(), self._clock())
        if self.view is not before:
            self.show(self.view)

    async def drawn(self) -> None:
        """Everything posted so far is on the screen: for tests and for the picture, which must not guess."""
        if self._redraw is not None:
            self._redraw.cancel()
        self._draw()
        await asyncio.sleep(0)

    def show(self, view: SwarmView) -> None:
        """Give every part of the screen the view; each draws only if its own lines changed."""
        main = self.screen_stack[0]
        with self.batch_update():
            main.query_one(TopLine).show(view)
            for panel in main.query(Panel):
                panel.show(view)

    def action_join(self) -> None:
        self.push_screen(Join(self.view.identity.join_code if self.view.identity else ""))

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_leave(self) -> None:
        if self._leaving:
            self.exit()  # asked twice: do not wait for the farewell
        elif isinstance(self.screen, Leave):
            self.screen.dismiss(True)
        elif self.view.sessions_here:
            self.push_screen(Leave(self.view.sessions_here), self._answered)
        else:
            self._start_leaving()

    def _answered(self, leave: bool | None) -> None:
        if leave:
            self._start_leaving()

    def _start_leaving(self) -> None:
        self._leaving = True
        self.screen_stack[0].query_one("#keys", Static).update("Leaving the swarm ...  q quit at once")
        self.run_worker(self._leave(), name="leave")

    async def _leave(self) -> None:
        try:
            await asyncio.wait_for(self._on_quit(), LEAVE_S)
        except TimeoutError:
            pass  # the others notice by the missing heartbeats
        finally:
            self.exit()


def _keys() -> Content:
    parts: list[str | tuple[str, str]] = []
    for key, text in (("j", "join code"), ("?", "help"), ("q", "leave and quit")):
        parts += [(key, "bold $foreground"), f" {text}    "]
    return Content.assemble(*parts)
