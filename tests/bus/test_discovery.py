"""Finding the host: by hints, by questions over UDP, by announcements; and saying what was tried."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from swisd.bus import announce
from swisd.bus.announce import Announced, Announcer, read_announcement
from swisd.bus.discovery import Attempts, Found, find
from swisd.bus.probing import Responder, Targets, ask_once, sweep
from swisd.core.checked import Malformed
from swisd.net.interfaces import Interface
from swisd.net.listener import Listener
from swisd.wire.handshake import Purpose
from swisd.wire.probe import HostAddress, encode_probe, read_reply
from swisd.wire.topics import swarm_id

from .worlds import KEY, LONG, Embedded, free_port

ME = "00000000000000ff"
HOST = "00000000000000aa"
LOOPBACK = Interface("lo-for-tests", "127.0.0.1", 32, None)


@pytest.fixture
async def responder() -> AsyncIterator[Responder]:
    made = await Responder.start("127.0.0.1", 0, KEY, lambda: HostAddress(HOST, "", 7000))
    yield made
    made.close()


OTHER_PROBE = encode_probe(b"o" * 16, b"n" * 16)


def port_of(responder: Responder) -> int:
    assert responder._transport is not None
    return int(responder._transport.get_extra_info("sockname")[1])


async def ask(port: int, data: bytes, *, then: bytes) -> list[bytes]:
    """What comes back for `data` before the answer to `then`, a probe that is answered."""
    loop = asyncio.get_running_loop()
    got: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        for datagram in (data, then):
            sock.sendto(datagram, ("127.0.0.1", port))
        async with asyncio.timeout(LONG):
            while True:
                got.append(await loop.sock_recv(sock, 2000))
                try:
                    read_reply(KEY, [then[4:20]], got[-1])
                except ValueError:
                    continue
                return got[:-1]


async def test_the_responder_answers_members_once_and_strangers_never(responder: Responder):
    port = port_of(responder)
    for number, stranger in enumerate(
        (
            b"",
            b"x",
            bytes(128),
            b"SWP1" + bytes(124),
            b"SWP1" + bytes(2000),
            OTHER_PROBE,
        )
    ):
        good = encode_probe(KEY, bytes([number]) * 16)
        assert await ask(port, stranger, then=good) == []
        assert await ask(port, good, then=encode_probe(KEY, bytes([100 + number]) * 16)) == []
    assert responder.answered == 12
    assert responder.refused == {"bad magic": 4, "wrong key": 2, "seen before": 6}


async def test_a_device_that_knows_no_host_says_nothing():
    known: list[HostAddress] = []
    responder = await Responder.start("127.0.0.1", 0, KEY, lambda: known[0] if known else None)
    port = port_of(responder)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(encode_probe(KEY, b"a" * 16), ("127.0.0.1", port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bad:
            bad.sendto(b"x", ("127.0.0.1", port))
        async with asyncio.timeout(LONG):
            while not responder.refused:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    assert responder.answered == 0
    known.append(HostAddress(HOST, "192.0.2.9", 7000))
    assert await ask(port, b"x", then=encode_probe(KEY, b"a" * 16)) == []
    responder.close()


async def test_a_known_host_is_found_first(embedded: Embedded):
    attempts = Attempts()
    found = await find(
        KEY, ME, hints=[("127.0.0.1", free_port()), ("127.0.0.1", embedded.port)], interfaces=[],
        attempts=attempts, timeout=LONG,
    )  # fmt: skip
    assert found == Found("127.0.0.1", embedded.port, "a known address")
    assert all("refused" in line for line in attempts.tried)


async def test_commands_of_one_home_find_the_host_at_the_same_time(embedded: Embedded):
    hints = [("127.0.0.1", embedded.port)]
    searches = (find(KEY, ME, hints=hints, timeout=LONG, zeroconf=False, interfaces=[]) for _ in range(8))
    found = await asyncio.gather(*searches)
    assert [each.how if each else "" for each in found] == ["a known address"] * 8


async def test_a_worker_that_was_host_once_tells_where_the_host_is(embedded: Embedded):
    async def unused(*_: object) -> None: ...

    worker = await Listener.start("127.0.0.1", 0, KEY, {Purpose.LANE: unused})
    responder = await Responder.start(
        "127.0.0.1", worker.port, KEY, lambda: HostAddress(HOST, "127.0.0.1", embedded.port)
    )
    attempts = Attempts()
    found = await find(
        KEY, ME, hints=[("127.0.0.1", worker.port)], interfaces=[], attempts=attempts, timeout=LONG
    )
    assert found == Found("127.0.0.1", embedded.port, "an answer over UDP")
    assert f"127.0.0.1:{worker.port}: a device of this swarm, but not its host now" in attempts.tried
    responder.close()
    await worker.close()


async def test_a_host_on_another_port_is_found_over_udp(embedded: Embedded):
    responder = await Responder.start(
        "127.0.0.1", embedded.port, KEY, lambda: HostAddress(HOST, "", embedded.port)
    )
    found = await find(KEY, ME, interfaces=[], extra_ports=[embedded.port], timeout=LONG, zeroconf=False)
    assert found == Found("127.0.0.1", embedded.port, "an answer over UDP")
    responder.close()


async def test_a_dead_host_that_is_still_named_is_not_returned():
    dead = free_port()
    responder = await Responder.start("127.0.0.1", 0, KEY, lambda: HostAddress(HOST, "127.0.0.1", dead))
    attempts = Attempts()
    found = await find(
        KEY,
        ME,
        interfaces=[],
        extra_ports=[port_of(responder)],
        timeout=1.0,
        zeroconf=False,
        attempts=attempts,
    )
    assert found is None
    assert f"127.0.0.1:{dead}: connection refused" in attempts.tried
    responder.close()


async def test_a_fruitless_search_says_what_it_did(embedded: Embedded):
    attempts = Attempts()
    other = b"another swarm 16"
    wlan, gone = (
        Interface("wlan9", "127.0.0.9", 30, "127.0.0.11"),
        Interface("gone", "198.51.100.7", 24, None),
    )
    found = await find(
        other, ME, hints=[("127.0.0.1", embedded.port), ("no-such-host.invalid", 1)], timeout=1.5,
        interfaces=[wlan, gone],
        extra_ports=[9999], zeroconf=False, attempts=attempts,
    )  # fmt: skip
    assert found is None and attempts.wrong_key
    told = "\n".join(attempts.tried)
    assert f"127.0.0.1:{embedded.port}: not a device of this swarm" in told
    assert "wlan9 (127.0.0.9/30): broadcast, each address; UDP port 7947, 9999" in told
    assert "from 198.51.100.7:" in told and "no-such-host.invalid:1:" in told


async def test_no_interface_is_told():
    attempts = Attempts()
    assert await find(KEY, ME, interfaces=[], timeout=0.2, attempts=attempts) is None
    assert any("no network interface" in line for line in attempts.tried)


def test_the_sweep_goes_outwards_and_is_bounded():
    small = Interface("a", "192.168.1.5", 29, None)
    assert [address for _, address in sweep([small])] == [
        f"192.168.1.{last}" for last in (6, 4, 3, 2, 1)
    ]  # fmt: skip
    large = Interface("b", "10.1.2.3", 8, None)
    both = list(sweep([small, large, Interface("c", "10.0.0.1", 32, None)], 100))
    assert len(both) == len(set(both)) == 100
    assert sum(source == "192.168.1.5" for source, _ in both) == 5
    assert ("10.1.2.3", "10.1.2.4") in both and ("10.1.2.3", "10.1.1.255") not in both[:5]
    assert len(list(sweep([large]))) == 1024
    assert list(sweep([])) == []
    edge = Interface("d", "10.0.0.254", 24, None)
    assert len(list(sweep([edge]))) == 253


def test_whom_to_ask_is_in_order():
    targets = Targets([Interface("a", "10.0.0.1", 30, "10.0.0.3")], [1, 2], [("hint", 3)])
    assert [target for _, target in targets.each()] == [
        ("10.0.0.3", 1), ("255.255.255.255", 1), ("10.0.0.3", 2), ("255.255.255.255", 2),
        ("127.0.0.1", 1), ("127.0.0.1", 2), ("hint", 3), ("10.0.0.2", 1), ("10.0.0.2", 2),
    ]  # fmt: skip


@pytest.mark.skipif(not announce.available(), reason="zeroconf is not installed")
async def test_announced_and_found_over_multicast_on_the_loopback(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(announce, "local_addresses", lambda: [LOOPBACK])
    announcer = Announcer(swarm_id(KEY), HOST, "0.1.0", embedded.port)
    if not await announcer.publish():
        pytest.skip("no multicast on the loopback here")
    stranger = Announcer("00000000000000bb", "00000000000000cc", "0.1.0", 1)
    await stranger.publish()
    assert await announcer.publish()  # nothing has changed: no second announcement
    attempts = Attempts()
    found = await find(KEY, ME, interfaces=[LOOPBACK], timeout=LONG, attempts=attempts)
    assert found == Found("127.0.0.1", embedded.port, "multicast DNS")
    await announcer.withdraw()
    await announcer.withdraw()
    attempts = Attempts()
    search = asyncio.create_task(find(KEY, ME, interfaces=[LOOPBACK], timeout=LONG, attempts=attempts))
    while not attempts.others and not search.done():  # noqa: ASYNC110 (a set has no event to wait for)
        await asyncio.sleep(0.01)
    assert attempts.others == {"00000000000000bb"} and not search.done()
    search.cancel()
    await asyncio.wait([search], timeout=LONG)
    await stranger.withdraw()


def test_announcements_are_checked():
    def info(port: int | None = 7947, **texts: str) -> SimpleNamespace:
        return SimpleNamespace(
            properties={key.encode(): value.encode() for key, value in texts.items()},
            port=port,
            parsed_addresses=lambda: ["10.0.0.1"] * 20,
        )

    good = {"id": swarm_id(KEY), "d": HOST}
    assert read_announcement(info(**good)) == Announced(swarm_id(KEY), HOST, ("10.0.0.1",) * 8, 7947)
    for bad in (info(), info(id="x", d=HOST), info(**good, port=None), info(**{**good, "d": "é" * 16})):
        with pytest.raises(Malformed):
            read_announcement(bad)


async def test_hosts_that_speak_of_themselves_are_found_and_others_words_are_followed(responder: Responder):
    host = replace(HostAddress(HOST, "", 7000), epoch=5, rank=9, followed=True)
    itself = await Responder.start("127.0.0.1", 0, KEY, lambda: host)
    pointer = HostAddress(HOST, "127.0.0.1", port_of(itself))
    worker = await Responder.start("127.0.0.1", 0, KEY, lambda: pointer)
    try:
        for target in (itself, worker):
            found = await ask_once(KEY, [("127.0.0.1", port_of(target)), ("127.0.0.1", 9)], 0.3)
            assert found == [replace(host, address="127.0.0.1")]
        assert await ask_once(b"o" * 16, [("127.0.0.1", port_of(itself))], 0.1) == []
        assert await ask_once(KEY, [], 9.0) == []
    finally:
        itself.close(), worker.close()
