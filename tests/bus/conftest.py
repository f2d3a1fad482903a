"""A world for each carrier of the bus."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .worlds import MOSQUITTO, Embedded, Memory, Mosquitto, World

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@pytest.fixture(params=["memory", "embedded", pytest.param("mosquitto", marks=needs_mosquitto)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made: World = {"memory": Memory, "embedded": Embedded}.get(request.param, lambda: Mosquitto(tmp_path))()
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def embedded() -> AsyncIterator[Embedded]:
    made = Embedded()
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    made = Mosquitto(tmp_path)
    await made.start()
    yield made
    await made.close()
