"""Waiting for a condition with a deadline, and homes that hold a fake model with its fake runtime."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.node.fakes import FakeModel, install_runtime

LONG = 20.0
Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Let the event loop run until a condition holds."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(LONG):
            while not condition():  # noqa: ASYNC110 (the loop's next turn, not a time)
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def fake_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards and probes that need no model and no ONNX Runtime."""
    install_runtime(monkeypatch)


@pytest.fixture
def fake_home(tmp_path: Path) -> FakeModel:
    """A home that holds a fake model, known to its index."""
    return FakeModel.in_home(tmp_path / "home")
