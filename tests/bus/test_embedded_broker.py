"""The embedded broker against clients that are wrong, rude, slow or silent."""

import asyncio
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.bus import amqtt_broker, broker
from swisd.bus.broker import EmbeddedBroker
from swisd.bus.connect_packet import MAX_CONNECT_BYTES, length, parse_connect
from swisd.bus.endpoint import SwarmBroker
from swisd.bus.mqtt import MqttBus
from swisd.core.checked import Malformed
from swisd.net.secure import dial
from swisd.wire.handshake import Hello, Purpose

from .worlds import KEY, LONG, ROOT, SWARM, Embedded, Peer

ME = "00000000000000f1"
ACCEPTED, BAD_VERSION, BAD_IDENTIFIER = b"\x20\x02\x00\x00", b"\x20\x02\x00\x01", b"\x20\x02\x00\x02"


def text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def connect(client_id: str, *, flags: int = 2, keepalive: int = 60, level: int = 4, will: str = "") -> bytes:
    body = text("MQTT") + bytes([level, flags]) + struct.pack("!H", keepalive) + text(client_id)
    if will:
        body += text(will) + text("will")
    return bytes([0x10, len(body)]) + body


async def raw(world: Embedded, packet: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A hand-made client that holds the key."""
    reader, writer = await dial("127.0.0.1", world.port, KEY, ME, Purpose.BUS)
    writer.write(packet)
    return reader, writer


async def until(condition) -> None:
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 (a counter has no event to wait for)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("packet", "answer", "reason"),
    [
        (connect("00000000000000f2"), BAD_IDENTIFIER, "client id"),
        (connect(ME + "x"), BAD_IDENTIFIER, "client id"),
        (connect(""), BAD_IDENTIFIER, "client id"),
        (connect(ME, flags=0), BAD_IDENTIFIER, "client id"),
        (connect(ME, level=5), BAD_VERSION, "bad connect"),
        (b"\x10\xff\xff\xff\xff", BAD_VERSION, "bad connect"),
        (b"\xc0\x00", BAD_VERSION, "bad connect"),
        (b"GET / HTTP", BAD_VERSION, "bad connect"),
    ],
)
async def test_who_is_not_taken(embedded: Embedded, packet: bytes, answer: bytes, reason: str):
    honest = await embedded.peer(1)
    reader, writer = await raw(embedded, packet)
    async with asyncio.timeout(LONG):
        assert await reader.readexactly(4) == answer
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(1)
    assert embedded.broker.refused == {reason: 1}
    assert embedded.broker.clients == [honest.name]
    writer.close()


async def test_a_client_that_never_says_connect_has_a_deadline(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(broker, "CONNECT_TIMEOUT_S", 0.1)
    reader, writer = await raw(embedded, b"\x10")
    async with asyncio.timeout(LONG):
        assert await reader.read(100) == BAD_VERSION
    writer.close()


async def test_an_asker_beside_its_device_has_an_id_of_its_own(embedded: Embedded):
    reader, writer = await raw(embedded, connect(f"{ME}.7f"))
    async with asyncio.timeout(LONG):
        assert await reader.readexactly(4) == ACCEPTED
    assert embedded.broker.clients == [f"{ME}.7f"]
    writer.close()


async def test_only_topics_of_the_swarm_are_carried(embedded: Embedded):
    a, b = await embedded.peer(1), await embedded.peer(2)
    b.bus.subscribe("#", 1)
    b.bus.subscribe("$SYS/#", 1)
    await b.bus.settled()
    a.bus.publish("swisd/1/0000000000000000/plan", b"foreign", 1, True)
    a.bus.publish("elsewhere", b"foreign", 0, False)
    a.says("plan", b"ours")
    await b.until(lambda: b.got)
    assert b.got == [("plan", b"ours")]
    assert embedded.broker.refused == {"foreign topic": 2}
    late = await embedded.peer(3)
    late.bus.subscribe("#", 1)
    await late.bus.settled()
    a.says("plan", b"more")
    await late.until(lambda: late.got)
    assert late.got == [("plan", b"more")]


async def test_a_silent_client_is_taken_for_gone_and_its_will_is_spoken(embedded: Embedded):
    watcher = await embedded.peer(1)
    await watcher.hears("gone/+")
    _, writer = await raw(embedded, connect(ME, flags=6, keepalive=1, will=f"{ROOT}/gone/x"))
    await watcher.until(lambda: watcher.got)
    assert watcher.got == [("gone/x", b"will")]
    await until(lambda: embedded.broker.clients == [watcher.name])
    writer.close()


async def test_a_client_that_does_not_read_is_cut_and_others_are_served(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(amqtt_broker, "MAX_BACKLOG_BYTES", 1 << 20)
    a, b = await embedded.peer(1), await embedded.peer(2)
    await b.hears("shard/+", qos=0)
    reader, writer = await raw(embedded, connect(ME))
    topic = text(f"{ROOT}/shard/+")
    writer.write(bytes([0x82, 2 + len(topic) + 1, 0, 1]) + topic + b"\0")
    async with asyncio.timeout(LONG):
        assert (await reader.readexactly(9))[4] == 0x90
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    sent, payload = 0, os.urandom(1 << 20)
    while embedded.broker.refused["slow client"] == 0 and sent < 100:
        a.says("shard/b", payload, qos=0)
        sent += 1
        await b.until(lambda: len(b.got) == sent)  # noqa: B023
    assert embedded.broker.refused["slow client"] == 1
    await until(lambda: sorted(embedded.broker.clients) == [a.name, b.name])
    a.says("shard/b", b"still here", qos=0)
    await b.until(lambda: b.got[-1][1] == b"still here")
    writer.transport.abort()


async def test_a_publisher_in_a_hurry_waits_for_the_broker(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(amqtt_broker, "MAX_QUEUE", 20)
    b = await embedded.peer(2)
    await b.hears("out/+", qos=0)
    _, writer = await raw(embedded, connect(ME))
    topic = text(f"{ROOT}/out/x")
    packet = bytes([0x30, len(topic) + 4]) + topic
    largest = 0
    for number in range(3000):
        writer.write(packet + struct.pack("!I", number))
        if number % 100 == 0:
            await asyncio.sleep(0.001)
            largest = max(largest, embedded.broker._broker.backlog(ME))  # type: ignore[union-attr]
    await b.until(lambda: len(b.got) == 3000)
    assert [struct.unpack("!I", payload)[0] for _, payload in b.got] == list(range(3000))
    assert 0 < largest < 100
    writer.close()


async def test_a_payload_is_not_formatted_into_log_lines(embedded: Embedded, monkeypatch: pytest.MonkeyPatch):
    described: list[int] = []

    def short(self: bytes) -> str:
        described.append(len(self))
        return "..."

    monkeypatch.setattr(amqtt_broker.QuietBytes, "__repr__", short)
    a, b = await embedded.peer(1), await embedded.peer(2)
    await b.hears("x")
    a.says("x", bytes(5000))
    await b.until(lambda: b.got)
    assert set(described) == {5000}  # once amqtt no longer formats payloads, the class can go


async def test_a_bus_says_in_words_why_it_is_refused(embedded: Embedded):
    def peer(key: bytes, device: str, client_id: str) -> Peer:
        where = SwarmBroker("127.0.0.1", embedded.port, key, device)
        made = Peer(lambda _n, m, s, w: MqttBus(where, client_id, m, s, will=w), client_id, None)
        embedded.peers.append(made)
        return made

    wrong = peer(b"o" * 16, ME, ME)
    await wrong.bus.start()
    await wrong.until(lambda: wrong.states)
    assert wrong.states[0][0] is False and "did not prove this swarm's key" in wrong.states[0][1]
    alias = peer(KEY, ME, "00000000000000f2")
    await alias.bus.start()
    await alias.until(lambda: alias.states)
    assert alias.states[0] == (False, "the broker refused: client identifier not valid")


async def test_a_bus_follows_the_swarm_to_a_new_host(embedded: Embedded):
    other = Embedded()
    await other.start()
    a = await embedded.peer(1)
    await a.hears("plan")
    a.bus.set_endpoint("127.0.0.1", other.port)
    await a.until(lambda: a.states[-1] == (True, f"connected to 127.0.0.1:{other.port}"))
    await a.bus.settled()
    b = await other.peer(2)
    b.says("plan", b"new host")
    await a.until(lambda: a.got)
    assert a.bus.connected
    await a.bus.close()
    await other.close()


async def test_closing_the_broker_lets_everybody_know(embedded: Embedded):
    a = await embedded.peer(1)
    await embedded.broker.close()
    await embedded.broker.close()
    await a.until(lambda: not a.bus.connected)
    assert embedded.broker.clients == []


async def test_a_broker_that_is_not_started_serves_nobody():
    reader = asyncio.StreamReader()
    await EmbeddedBroker(SWARM).serve(Hello(Purpose.BUS, ME, b"n" * 16), reader, None)  # type: ignore[arg-type]


@given(st.binary(max_size=300))
def test_garbage_is_no_connect(data: bytes):
    with pytest.raises(Malformed):
        parse_connect(b"\0", data)


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60),
    st.integers(0, 65535),
    st.booleans(),
)
def test_a_connect_is_read_and_its_keepalive_taken_out(client_id: str, keepalive: int, clean: bool):
    packet = connect(client_id, flags=2 if clean else 0, keepalive=keepalive)
    read = parse_connect(packet[1:2], packet[2:])
    assert (read.client_id, read.keepalive_s, read.clean) == (client_id, keepalive, clean)
    assert read.without_keepalive == connect(client_id, flags=2 if clean else 0, keepalive=0)


def test_the_length_of_a_connect():
    assert length(b"") is None and length(b"\x80") is None
    assert length(b"\x7f") == 127 and length(b"\x80\x01") == 128
    for digits in (b"\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x80\x80\x01"):
        with pytest.raises(Malformed):
            length(digits)
    assert MAX_CONNECT_BYTES == 65536
