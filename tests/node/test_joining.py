"""How a device comes into a swarm; the search on the network is played."""

import os
import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from swisd.bus.discovery import Attempts, Found
from swisd.core.errors import BadInput, NoSwarm, WrongKey
from swisd.node import home as home_module
from swisd.node import joining
from swisd.node.home import Home, Running
from swisd.node.joining import Way, find_way
from swisd.node.settings import Settings
from swisd.wire.joincode import JoinCode
from swisd.wire.topics import swarm_id

QUIET = replace(Settings(), swarm=replace(Settings().swarm, multicast=False))
KEY = b"the friend's key"


class Network:
    """What a search finds, and what it was asked."""

    def __init__(self) -> None:
        self.found: Found | None = None
        self.wrong_key = False
        self.others: set[str] = set()
        self.asked: list[tuple[bytes, list[tuple[str, int]]]] = []

    async def find(
        self, key: bytes, device: str, *, hints: Iterable[tuple[str, int]] = (),
        attempts: Attempts | None = None, **_: Any,
    ) -> Found | None:  # fmt: skip
        self.asked.append((key, list(hints)))
        if attempts is not None:
            attempts.wrong_key = self.wrong_key
            attempts.others |= self.others
            attempts.note("asked around")
        return self.found


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(joining, "find", made.find)
    return made


@pytest.fixture
def home(tmp_path: Any) -> Home:
    return Home(tmp_path)


async def test_without_a_key_a_new_swarm_begins(home: Home, network: Network) -> None:
    way = await find_way(home, QUIET, None)
    assert way == Way(way.key, said="a new swarm")
    assert home.key() == way.key and not network.asked


async def test_a_swarm_next_door_is_mentioned(home: Home, network: Network) -> None:
    network.others = {"beef" * 4}
    way = await find_way(home, Settings(), None)
    assert "beef" * 4 in way.said and "--join" in way.said
    assert home.key() == way.key != network.asked[0][0]


async def test_a_home_that_was_in_a_swarm_looks_for_its_host_and_else_is_it(
    home: Home, network: Network
) -> None:
    key = home.make_key()
    home.remember_host("10.0.0.9", 7947)
    way = await find_way(home, QUIET, None)
    assert (way.key, way.host) == (key, "") and "asked around" in way.said
    assert network.asked == [(key, [("10.0.0.9", 7947)])]
    network.found = Found("10.0.0.7", 7950, "multicast")
    assert await find_way(home, QUIET, None) == Way(key, "10.0.0.7", 7950, said="found by multicast")


async def test_a_join_code_leads_to_its_swarm(home: Home, network: Network) -> None:
    mine = home.make_key()
    home.remember_host("10.0.0.9", 7947)
    network.found = Found("10.0.0.7", 7950, "a known address")
    way = await find_way(home, QUIET, JoinCode(KEY, "10.0.0.7", 7950))
    assert (way.key, way.host, way.port) == (KEY, "10.0.0.7", 7950)
    assert network.asked == [(KEY, [("10.0.0.7", 7950)])]  # hosts of another swarm are of no use
    assert home.key() == KEY and (home.path / f"swarm.key.{swarm_id(mine)}").exists()


@pytest.mark.parametrize("code", [JoinCode(KEY, "10.0.0.7", 7950), JoinCode(KEY)])
async def test_a_code_that_leads_nowhere_changes_nothing(
    home: Home, network: Network, code: JoinCode
) -> None:
    mine = home.make_key()
    with pytest.raises(NoSwarm, match=f"{swarm_id(KEY)}.*asked around"):
        await find_way(home, QUIET, code)
    network.wrong_key = True
    with pytest.raises(WrongKey, match="swisd code"):
        await find_way(home, QUIET, code)
    assert home.key() == mine


async def test_a_home_in_use_is_refused_before_its_key_is_touched(
    home: Home, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = home.make_key()
    home.set_running(Running(os.getpid(), "127.0.0.1", 1, 1))
    monkeypatch.setattr(home_module.os, "getpid", lambda: -1)
    network.found = Found("10.0.0.7", 7950, "a known address")
    with pytest.raises(BadInput, match="runs already"):
        await find_way(home, QUIET, JoinCode(KEY, "10.0.0.7", 7950))
    assert home.key() == mine and not network.asked


async def test_an_external_broker_needs_no_search(home: Home, network: Network) -> None:
    url = "mqtt://user:secret@broker.lan:1884"
    settings = replace(QUIET, swarm=replace(QUIET.swarm, broker=url))
    way = await find_way(home, settings, None)
    assert way.outside is not None and (way.outside.host, way.outside.port) == ("broker.lan", 1884)
    assert "secret" not in way.said and not network.asked
    again = await find_way(home, settings, None)
    assert again.key == way.key == home.key()
    joined = await find_way(home, settings, JoinCode(KEY))
    assert joined.key == KEY == home.key()
    bad = replace(QUIET, swarm=replace(QUIET.swarm, broker="http://broker.lan"))
    key = secrets.token_bytes(16)
    with pytest.raises(BadInput, match="mqtt://"):
        await find_way(home, bad, JoinCode(key))
    assert home.key() == KEY
