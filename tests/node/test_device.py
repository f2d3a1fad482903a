"""`swisd up` in this process, on loopback: it leaves word, and closes whole however it ends."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from swisd.bus.discovery import Found
from swisd.core.errors import BadInput, NoSwarm
from swisd.core.types import Plan
from swisd.net.listener import Listener
from swisd.node import home as home_module
from swisd.node import hosting as hosting_module
from swisd.node.device import Device
from swisd.node.home import Home, Running
from swisd.node.joining import Way
from swisd.node.settings import Settings
from tests.node.conftest import Until
from tests.node.fakes import KEY, FakeModel


class Up:
    """A device of a home, and what it said."""

    def __init__(self, home: Home, settings: Settings, way: Way) -> None:
        self.seen: list[Any] = []
        self.home = home
        local = replace(settings.device, address="127.0.0.1")
        self.device = Device(home, replace(settings, device=local), way, self.seen.append)


@pytest.fixture
async def host(fake_home: FakeModel, fake_runtime: None) -> AsyncIterator[Up]:
    made = Up(fake_home.home, fake_home.settings, Way(KEY))
    await made.device.start()
    yield made
    await made.device.stop()


async def free(port: int) -> bool:
    try:
        listener = await Listener.start("127.0.0.1", port, KEY, {})
    except BadInput:
        return False
    await listener.close()
    return True


async def test_a_host_leaves_word_and_takes_it_back(host: Up, until: Until) -> None:
    device = host.device
    running = host.home.running()
    assert running is not None and (running.pid, running.port) == (os.getpid(), device.port)
    assert (running.host, running.address) == ("127.0.0.1", "127.0.0.1")
    assert device.hosting and f"127.0.0.1:{device.port}/" in device.join_code
    await until(lambda: any(isinstance(item, Plan) and item.active for item in host.seen))
    await asyncio.gather(device.stop(), device.stop())
    await device.stop()
    assert host.home.running() is None and not (host.home.path / "node.json").exists()
    assert await free(device.port)


async def test_a_second_device_joins_it(host: Up, tmp_path: Any, until: Until) -> None:
    settings = replace(Settings(), device=replace(Settings().device, name="bob", memory="64MiB"))
    bob = Up(Home(tmp_path / "bob"), settings, Way(KEY, "127.0.0.1", host.device.port))
    await bob.device.start()
    try:
        assert not bob.device.hosting and bob.device.join_code == host.device.join_code
        running = bob.home.running()
        assert running is not None and running.port == host.device.port
        assert running.lane_port == bob.device.port != host.device.port
        assert bob.home.hosts() == (("127.0.0.1", host.device.port),)
        node = host.device.node
        assert node is not None
        await until(lambda: node.name_of(bob.home.identity().device) == "bob")
    finally:
        await bob.device.stop()


async def test_what_fails_while_closing_keeps_nothing_else_open(
    host: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails() -> None:
        raise OSError("odd")

    assert host.device.node is not None
    stop = host.device.node.stop
    monkeypatch.setattr(host.device.node, "stop", fails)
    with pytest.raises(OSError, match="odd"):
        await host.device.stop()
    assert host.home.running() is None and await free(host.device.port)
    await stop()


async def test_a_start_that_fails_leaves_nothing(
    fake_home: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: Any) -> None:
        raise NoSwarm("the broker does not start")

    monkeypatch.setattr(hosting_module.EmbeddedBroker, "start", fails)
    up = Up(fake_home.home, fake_home.settings, Way(KEY))
    with pytest.raises(NoSwarm, match="does not start"):
        await up.device.start()
    assert up.home.running() is None and await free(up.device.port)


async def test_a_home_has_one_device_at_a_time(fake_home: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_home.home.set_running(Running(os.getpid(), "127.0.0.1", 1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(home_module.os, "getpid", lambda: -1)
        up = Up(fake_home.home, fake_home.settings, Way(KEY))
        with pytest.raises(BadInput, match="runs already"):
            await up.device.start()
    assert fake_home.home.running() is not None  # the other's word stays


async def test_a_port_that_was_asked_for_must_be_free(host: Up, tmp_path: Any) -> None:
    taken = replace(Settings(), device=replace(Settings().device, port=host.device.port))
    with pytest.raises(BadInput, match=f"port {host.device.port}"):
        await Up(Home(tmp_path / "bob"), taken, Way(KEY)).device.start()


async def test_a_lost_host_is_looked_for_and_searches_that_fail_are_repeated(
    host: Up, tmp_path: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Up(Home(tmp_path / "bob"), Settings(), Way(KEY, "127.0.0.1", 9))
    answers: list[Any] = [
        OSError("no network"),
        None,
        BadInput("full"),
        Found("127.0.0.1", host.device.port, "UDP"),
    ]

    async def look(*_: Any) -> Found | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(hosting_module, "look_for_host", look)
    monkeypatch.setattr(hosting_module, "LOST_S", 0.001)
    monkeypatch.setattr(hosting_module.log, "warning", lambda *_: None)
    await dead.device.start()
    try:
        await until(lambda: any("the host is at" in getattr(item, "text", "") for item in dead.seen))
        running = dead.home.running()
        assert answers == [] and running is not None and running.port == host.device.port
        assert dead.device._bus is not None
        await until(lambda: dead.device._bus is not None and dead.device._bus.connected)
    finally:
        await dead.device.stop()


async def test_when_the_host_leaves_the_next_device_runs_the_broker(
    host: Up, tmp_path: Any, until: Until
) -> None:
    settings = replace(Settings(), device=replace(Settings().device, name="bob", memory="64MiB"))
    bob = Up(Home(tmp_path / "bob"), settings, Way(KEY, "127.0.0.1", host.device.port))
    await bob.device.start()
    try:
        node = host.device.node
        assert node is not None and bob.device.node is not None
        await until(lambda: node.name_of(bob.home.identity().device) == "bob")
        await until(lambda: (bob.device.node.machine.local.digest or None) is not None)  # type: ignore[union-attr]
        await host.device.stop()
        await until(lambda: bob.device.hosting and bob.device.node.machine.leadership.leading)  # type: ignore[union-attr]
        running = bob.home.running()
        assert running is not None and (running.host, running.port) == ("127.0.0.1", bob.device.port)
        assert ("127.0.0.1", host.device.port) in bob.home.hosts()  # where to look another time
    finally:
        await bob.device.stop()
    assert await free(bob.device.port)
