"""Devices in this process that run a fake model, with short waits."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from swisd.bus.memory import MemoryBus
from swisd.client.link import SwarmLink
from swisd.core import deadlines
from swisd.node.lonely import LonelyDevice
from tests.node.conftest import fake_home, fake_runtime, until
from tests.node.fakes import KEY, FakeModel

__all__ = ["fake_home", "fake_runtime", "until"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, fake_runtime: None) -> None:
    """A swarm that settles at once."""
    waits = {
        "SETTLE": 0.0,
        "HOST_TICK": 0.01,
        "LINKS_SETTLE": 0.01,
        "BEAT": 0.1,
        "PROVIDE": 0.0,
        "DIGEST": 0.05,
    }
    for name, seconds in waits.items():
        monkeypatch.setattr(deadlines, name, seconds)


class Lone:
    """A device that is alone, the links of its askers, and what either said."""

    def __init__(self, model: FakeModel) -> None:
        self.model = model
        self.observed: list[Any] = []
        self.told: list[str] = []
        self.device = LonelyDevice(model.home, model.settings, KEY, self.observed.append, 64 << 20)

    @asynccontextmanager
    async def asker(self) -> AsyncIterator[SwarmLink]:
        def bus(courier: Any, ident: str, on_state: Callable[[bool, str], None]) -> MemoryBus:
            return MemoryBus(self.device.broker, ident, courier.receive, on_state)

        async with SwarmLink(self.model.home, KEY, bus, self.told.append) as link:
            await link.connected(20)
            await link.heard(20)
            yield link

    @property
    def sessions(self) -> set[str]:
        """Sessions whose caches the device holds."""
        store = self.device.node._compute._shards._store
        return set(store._sessions) if store is not None else set()


@pytest.fixture
async def lone(quick: None, fake_home: FakeModel) -> AsyncIterator[Lone]:
    made = Lone(fake_home)
    await made.device.start()
    yield made
    await made.device.stop()
