"""The dashboard and its device end together, whichever ends first."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swisd.cli import screen
from swisd.cli.screen import with_dashboard
from swisd.core.effects import Notice
from swisd.core.events import BusChanged
from swisd.node.home import Home
from swisd.node.joining import Way
from swisd.node.settings import Settings
from swisd.tui.view import BusState, Identity, NoticeSeen


class Stage:
    """In the place of the device and the dashboard."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.shown: list[Any] = []
        self.fails = ""
        self.left = asyncio.Event()
        monkeypatch.setattr(screen, "Device", self._device)
        monkeypatch.setattr(screen, "Dashboard", self._dashboard)

    join_code = "swisd://code"

    def _device(self, home: Home, settings: Settings, way: Way, observe: Any) -> "Stage":
        self._observe = observe
        return self

    def _dashboard(self, queue: "asyncio.Queue[Any]", stop: Any) -> "Stage":
        if self.fails == "dashboard":
            raise RuntimeError("no terminal")
        self._queue = queue
        return self

    async def start(self) -> None:
        self.log.append("start")
        if self.fails == "start":
            raise OSError("no port")
        self._observe(Notice("warning", "careful"))
        self._observe(BusChanged(True, "connected"))

    async def stop(self) -> None:
        self.log.append("stop")

    async def run_async(self) -> None:
        while not self._queue.empty():
            self.shown.append(self._queue.get_nowait())
        self.log.append("shown")
        await self.left.wait()

    def exit(self) -> None:
        self.left.set()


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = before


async def run(home: Path, stop: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        await with_dashboard(Home(home), Settings(), Way(b"k" * 16, said="a new swarm"), stop)


async def test_a_signal_ends_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, stop = Stage(monkeypatch), asyncio.Event()
    stop.set()
    await run(tmp_path, stop)
    assert stage.log == ["start", "shown", "stop"]
    kinds = [type(item) for item in stage.shown]
    assert kinds == [NoticeSeen, BusState, Identity, NoticeSeen]
    assert stage.shown[2].join_code == "swisd://code" and stage.shown[3].text == "a new swarm"


async def test_leaving_the_dashboard_ends_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.left.set()
    await run(tmp_path, asyncio.Event())
    assert stage.log == ["start", "shown", "stop"]


@pytest.mark.parametrize(("fails", "error"), [("start", OSError), ("dashboard", RuntimeError)])
async def test_what_cannot_begin_leaves_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, error: type[Exception]
) -> None:
    stage = Stage(monkeypatch)
    stage.fails = fails
    with pytest.raises(error):
        await run(tmp_path, asyncio.Event())
    assert stage.log == ["start", "stop"]
