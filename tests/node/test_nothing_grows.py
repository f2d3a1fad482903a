"""Sessions and new plans leave no task and no entry behind, in devices of one process."""

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swisd.core import deadlines
from tests.node.conftest import Until
from tests.node.fakes import MIB, FakeModel, install_runtime
from tests.node.test_node import Many, in_force
from tests.tables import tables

ROUNDS, SESSIONS, ROOM = 3, 6, 4


@pytest.fixture
async def many(fake_home: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Many]:
    install_runtime(monkeypatch)
    for name, seconds in (
        ("SETTLE", 0.05), ("HOST_TICK", 0.01), ("LINKS_SETTLE", 0.01), ("BEAT", 0.05), ("KEEP_DONE", 0.1),
        ("IDLE_SESSION", 1.0),
    ):  # fmt: skip
        monkeypatch.setattr(deadlines, name, seconds)
    monkeypatch.setattr("swisd.node.errands.LARGE_BYTES", 1000)
    made = Many(fake_home, tmp_path)
    yield made
    for one in reversed(made.devices):
        await one.stop()


def held(many: Many) -> Counter[str]:
    """Sizes of all tables of the device that stays, tasks and threads by name."""
    gc.collect()
    sizes: Counter[str] = Counter()
    ann = many.devices[0]
    for path, size in (*tables(ann.node, "node"), *tables(ann.bus, "bus"), *tables(many.network, "network")):
        sizes[path] += size
    sizes["tasks"] = len(asyncio.all_tasks())
    sizes["threads"] = threading.active_count()
    return sizes


async def test_sessions_and_new_plans_leave_nothing_behind(
    many: Many, until: Until, pytestconfig: pytest.Config
) -> None:
    ann = await many.add("ann", 4 * MIB)
    rounds = ROUNDS * pytestconfig.getoption("--growth")
    first: Counter[str] = Counter()
    epochs: set[int] = set()
    for number in range(1 + rounds):
        bob = await many.add("bob", 4 * MIB)
        await until(lambda: in_force(ann, ann, many.devices[1]))
        for _ in range(SESSIONS):
            await many.ask()
        epochs.add(ann.plans()[-1].epoch)
        await bob.stop()
        many.devices.remove(bob)
        await until(lambda: not ann.plans()[-1].active)
        await until(lambda: not ann.node.machine.driver.running())
        await until(lambda: not len(ann.node.machine.driver.sessions.gone))
        ann.seen.clear()
        if number == 0:
            first = held(many)
    last = held(many)
    assert len(epochs) == 1 + rounds
    grown = {path: (first[path], size) for path, size in last.items() if size > first[path] + ROOM}
    assert not grown, grown
