"""Waiting for a condition with a deadline, and homes that hold a tiny model."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

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
