"""A swarm that is away: this device alone or an error at once, or patience until it is back."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from swisd.client import reach as reach_module
from swisd.client.reach import Unfound, reach
from swisd.core.errors import NoSwarm
from swisd.node.home import Home
from swisd.node.settings import Settings


class Swarm:
    """In the place of a real one: away for the first `away` looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, away: int, error: type[NoSwarm] = Unfound) -> None:
        self.looks, self.away, self.error = 0, away, error
        self.told: list[str] = []
        monkeypatch.setattr(reach_module, "AGAIN_S", 0.0)
        monkeypatch.setattr(reach_module, "_swarm", self.swarm)
        monkeypatch.setattr(reach_module, "_alone", self.alone)

    @asynccontextmanager
    async def swarm(self, *_: Any) -> AsyncIterator[str]:
        self.looks += 1
        if self.looks <= self.away:
            raise self.error("no swarm answers here (tried: 10.0.0.7)")
        yield "swarm"

    @asynccontextmanager
    async def alone(self, *_: Any) -> AsyncIterator[str]:
        yield "alone"

    async def reached(self, home: Home, **options: Any) -> Any:
        async with reach(home, Settings(), self.told.append, **options) as link:
            return link


@pytest.fixture
def home(tmp_path: Any) -> Home:
    made = Home(tmp_path)
    made.make_key()
    return made


async def test_without_patience_the_device_is_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = Swarm(monkeypatch, away=99)
    assert await swarm.reached(home) == "alone"
    assert swarm.looks == 1 and swarm.told[0].endswith("; running on this device alone")
    with pytest.raises(NoSwarm, match=r"10\.0\.0\.7"):
        await swarm.reached(home, alone=False)


@pytest.mark.parametrize("error", [Unfound, NoSwarm])
async def test_with_patience_it_comes_back(
    home: Home, monkeypatch: pytest.MonkeyPatch, error: type[NoSwarm]
) -> None:
    swarm = Swarm(monkeypatch, 3, error)
    assert await swarm.reached(home, patience=math.inf) == "swarm"
    assert swarm.looks == 4
    assert swarm.told == ["no swarm answers here (tried: 10.0.0.7); waiting for it"]


async def test_patience_ends(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = Swarm(monkeypatch, away=10**9)
    with pytest.raises(NoSwarm, match=r"10\.0\.0\.7"):
        await swarm.reached(home, patience=0.01)
    assert swarm.looks > 1


async def test_a_swarm_that_does_not_answer_as_it_should_is_an_error(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Swarm(monkeypatch, 1, NoSwarm)
    with pytest.raises(NoSwarm):
        await swarm.reached(home)
    assert swarm.told == []


async def test_where_no_swarm_is_known_there_is_none_to_wait_for(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Swarm(monkeypatch, away=0)
    assert await swarm.reached(Home(tmp_path), patience=math.inf) == "alone"
    with pytest.raises(NoSwarm, match="swisd up"):
        await swarm.reached(Home(tmp_path), alone=False)
    assert swarm.looks == 0
