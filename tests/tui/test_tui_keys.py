"""Keys, feeding events in, and leaving."""

import asyncio
import threading

import pytest
import tui_scenes as scenes
from textual.pilot import Pilot

from swisd.tui.app import Dashboard
from swisd.tui.view import Identity, NoticeSeen, SwarmEvent
from swisd.tui.widgets.help import Help
from swisd.tui.widgets.join import Join
from swisd.tui.widgets.leave import Leave
from swisd.tui.widgets.panel import Panel


class Farewell:
    """Counts how often the swarm was left; may be told to hang or to fail."""

    def __init__(self, hangs: bool = False) -> None:
        self.times = 0
        self._hangs = hangs

    async def __call__(self) -> None:
        self.times += 1
        if self._hangs:
            await asyncio.Event().wait()


def dashboard(events: list[SwarmEvent], farewell: Farewell) -> Dashboard:
    app = Dashboard(asyncio.Queue(), farewell, clock=lambda: scenes.NOW)
    for event in events:
        app.post_event(event)
    return app


async def ready(pilot: Pilot, *keys: str) -> None:
    await pilot.app.drawn()  # type: ignore[attr-defined]
    await pilot.press(*keys)
    await pilot.pause()


@pytest.mark.parametrize(("key", "screen"), [("j", Join), ("question_mark", Help), ("q", Leave)])
async def test_a_key_opens_and_escape_closes(key: str, screen: type):
    app = dashboard(scenes.running(), Farewell())
    async with app.run_test() as pilot:
        await ready(pilot, key)
        assert isinstance(app.screen, screen)
        await ready(pilot, "escape")
        assert len(app.screen_stack) == 1


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_quit_leaves_the_swarm_at_once_when_nobody_is_disturbed(key: str):
    farewell = Farewell()
    app = dashboard(scenes.alone(), farewell)
    async with app.run_test() as pilot:
        await ready(pilot, key)
        await app.workers.wait_for_complete()
    assert farewell.times == 1
    assert app.return_code == 0


@pytest.mark.parametrize(("answer", "times"), [("y", 1), ("enter", 1), ("ctrl+c", 1), ("n", 0), ("q", 0)])
async def test_quit_asks_first_when_sessions_run_here(answer: str, times: int):
    farewell = Farewell()
    app = dashboard(scenes.running(), farewell)
    async with app.run_test() as pilot:
        await ready(pilot, "q")
        assert farewell.times == 0
        await ready(pilot, answer)
        assert farewell.times == times


async def test_a_second_quit_does_not_wait_for_a_farewell_that_hangs():
    app = dashboard(scenes.alone(), Farewell(hangs=True))
    async with app.run_test() as pilot:
        await ready(pilot, "q")
        assert app.is_running
        await ready(pilot, "q")
    assert app.return_code == 0


async def test_a_farewell_that_hangs_has_a_deadline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("swisd.tui.app.LEAVE_S", 0.0)
    app = dashboard(scenes.alone(), Farewell(hangs=True))
    async with app.run_test() as pilot:
        await ready(pilot, "q")
        await pilot.pause()
    assert app.return_code == 0


async def test_events_come_from_a_queue():
    queue: asyncio.Queue[SwarmEvent] = asyncio.Queue()
    app = Dashboard(queue, Farewell(), clock=lambda: scenes.NOW)
    async with app.run_test() as pilot:
        for event in scenes.running():
            queue.put_nowait(event)
        await pilot.pause()
        await app.drawn()
        assert len(app.view.devices) == 4


async def test_events_come_from_a_subscription_that_ends_with_the_screen():
    ended = []

    def subscribe(listener):
        listener(scenes.IDENTITY)
        return lambda: ended.append(True)

    app = Dashboard(subscribe, Farewell(), clock=lambda: scenes.NOW)
    async with app.run_test():
        await app.drawn()
        assert app.view.identity == scenes.IDENTITY
        assert not ended
    assert ended == [True]
    app.post_event(scenes.CONNECTED)  # after the end: neither an error nor an effect


async def test_events_may_be_posted_from_another_thread():
    app = dashboard([], Farewell())
    async with app.run_test() as pilot:
        thread = threading.Thread(target=app.post_event, args=(scenes.IDENTITY,))
        thread.start()
        thread.join()
        await pilot.pause()
        await app.drawn()
        assert app.view.identity == scenes.IDENTITY


async def test_a_burst_is_one_frame_and_silence_is_none():
    app = dashboard([], Farewell())
    frames = []
    async with app.run_test() as pilot:
        await app.drawn()
        shown, app.show = app.show, lambda view: (frames.append(view), shown(view))  # type: ignore[method-assign]
        for number in range(100):
            app.post_event(NoticeSeen(scenes.NOW, "info", f"line {number}"))
        await pilot.pause()
        await app.drawn()
        assert len(frames) == 1
        assert len(frames[0].events) == 100
        app.post_event(frames[0].identity or Identity("", "", "", "", ""))
        await pilot.pause()
        await app.drawn()
        app.post_event(app.view.identity)  # type: ignore[arg-type]  # nothing new: no frame
        await pilot.pause()
        await app.drawn()
        assert len(frames) == 2


async def test_the_join_window_follows_the_size_of_the_terminal():
    app = dashboard(scenes.alone(), Farewell())
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, "j")
        assert "█" in str(app.screen.query_one("#join").render())
        await pilot.resize_terminal(50, 14)
        await pilot.pause()
        text = str(app.screen.query_one("#join").render())
        assert "█" not in text
        assert scenes.CODE in text.replace("\n", "")


async def test_names_are_text_and_never_markup():
    hostile = scenes.member(scenes.PI, "[red]x[/]", note="[@click=app.leave]click[/]")
    app = dashboard([scenes.digest(1, scenes.laptop(), hostile)], Farewell())
    async with app.run_test(size=(120, 40)):
        await app.drawn()
        panel = app.query_one("#devices", Panel)
        text = str(panel.query_one("Static").render())
        assert "[red]x[/]" in text
        assert "[@click=app.leave]click[/]" in text


@pytest.mark.parametrize("size", [(20, 6), (40, 12), (60, 20), (200, 60)])
async def test_any_window_size_draws(size: tuple[int, int]):
    app = dashboard(scenes.broken(), Farewell())
    async with app.run_test(size=size) as pilot:
        await ready(pilot, "j")
        await ready(pilot, "escape", "q")
        assert isinstance(app.screen, Leave)
