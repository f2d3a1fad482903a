"""What people see, compared with pictures that were looked at (`pytest --snapshot-update` after a look)."""

import asyncio
from collections.abc import Callable
from datetime import UTC
from itertools import count

import pytest
import tui_scenes as scenes

from swisd.tui.app import Dashboard
from swisd.tui.view import SwarmEvent

SIZES = [(80, 24), (120, 40)]


async def nothing() -> None: ...


def dashboard(events: list[SwarmEvent]) -> Dashboard:
    """A dashboard that knows the events before its first frame; its clock ticks 3 s with each."""
    ticks = count()
    app = Dashboard(asyncio.Queue(), nothing, clock=lambda: scenes.NOW + next(ticks) * 3.0, zone=UTC)
    for event in events:
        app.post_event(event)
    return app


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("scene", "keys"),
    [
        (lambda: [scenes.IDENTITY], ()),
        (scenes.alone, ()),
        (scenes.running, ()),
        (scenes.covered, ()),
        (scenes.replicas, ()),
        (scenes.broken, ()),
        (scenes.lost_bus, ()),
        (scenes.alone, ("j",)),
        (scenes.running, ("question_mark",)),
        (scenes.running, ("q",)),
    ],
    ids=["empty", "alone", "running", "covered", "replicas", "broken", "lost_bus", "join", "help", "leave"],
)
def test_screen(
    snap_compare: Callable[..., bool],
    scene: Callable[[], list[SwarmEvent]],
    keys: tuple[str, ...],
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("NO_COLOR", raising=False)

    async def settle(pilot) -> None:
        await pilot.app.drawn()
        await pilot.press(*keys)
        await pilot.pause()

    assert snap_compare(dashboard(scene()), terminal_size=size, run_before=settle)
