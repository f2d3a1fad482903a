"""A broker the user runs: its URL, its password, its certificate, and what it may do to us."""

import asyncio
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import MQTTErrorCode

from swisd.bus import mqtt
from swisd.bus.endpoint import OutsideBroker, parse_broker_url
from swisd.bus.link import Link
from swisd.bus.mqtt import MqttBus
from swisd.core.errors import BadInput

from .worlds import LONG, Mosquitto, Peer


def peer(broker: OutsideBroker, name: str = "0000000000000001") -> Peer:
    return Peer(lambda n, m, s, w: MqttBus(broker, n, m, s, will=w), name, None)


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "password", "tls"),
    [
        ("mqtt://broker", "broker", 1883, None, None, False),
        ("mqtt://10.0.0.1:2000/", "10.0.0.1", 2000, None, None, False),
        ("mqtts://broker.example", "broker.example", 8883, None, None, True),
        (" mqtt://me@broker ", "broker", 1883, "me", None, False),
        ("mqtt://me%40x:p%3Aw%2F@[fe80::1]:9", "fe80::1", 9, "me@x", "p:w/", False),
    ],
)
def test_urls(url: str, host: str, port: int, user: str | None, password: str | None, tls: bool):
    broker = parse_broker_url(url)
    assert (broker.host, broker.port, broker.username, broker.password) == (host, port, user, password)
    assert (broker.tls is not None) == tls
    assert password is None or password not in repr(broker)


@pytest.mark.parametrize(
    "url",
    ["", "broker", "http://broker", "mqtt://", "mqtt://h:99999", "mqtt://h:x", "mqtt://h/topic", "mqtt://h?q=1",
     "mqtt://:secret@h", "mqtt://[::1", "ws://h"],
)  # fmt: skip
def test_bad_urls_are_told_without_their_password(url: str):
    with pytest.raises(BadInput, match="mqtt://") as caught:
        parse_broker_url(url)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_broker_or_bad_input(text: str):
    for url in (text, f"mqtt://{text}"):
        with suppress(BadInput):
            assert parse_broker_url(url).host


def test_a_ca_file_that_is_none(tmp_path: Path):
    for bad in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        if bad.name == "empty.pem":
            bad.write_text("nothing")
        with pytest.raises(BadInput, match="CA file"):
            parse_broker_url("mqtts://h", bad)


@pytest.mark.parametrize("url", ["mqtt://swisd:wrong@127.0.0.1:{}", "mqtt://127.0.0.1:{}"])
async def test_a_wrong_password_is_said_in_words(mosquitto: Mosquitto, url: str):
    bad = peer(parse_broker_url(url.format(mosquitto.port)))
    await bad.bus.start()
    await bad.until(lambda: bad.states)
    assert bad.states[0] == (False, "the broker refused: not authorized")
    await bad.bus.close()


async def test_a_broker_that_is_away_and_a_name_that_is_none():
    gone = peer(parse_broker_url("mqtt://127.0.0.1:1"))
    odd = peer(parse_broker_url(f"mqtt://{'x' * 70}.invalid"))
    for each, words in ((gone, "refused"), (odd, "")):
        await each.bus.start()
        await each.until(lambda: each.states)  # noqa: B023
        assert each.states[0][0] is False and words in each.states[0][1].lower() and each.states[0][1]
        await each.bus.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_tls_with_an_own_ca(tmp_path: Path, mosquitto: Mosquitto):
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)

    def ca(name: str) -> None:
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", f"{name}.key",
                "-out", f"{name}.pem")  # fmt: skip

    ca("ours")
    ca("other")
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", "s.key", "-out", "s.csr"
    )
    (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "s.csr", "-CA", "ours.pem", "-CAkey", "ours.key", "-CAcreateserial",
            "-days", "2", "-extfile", "ext", "-out", "s.pem")  # fmt: skip
    await mosquitto.stop_broker()
    mosquitto.config.write_text(
        mosquitto.config.read_text() + f"certfile {tmp_path}/s.pem\nkeyfile {tmp_path}/s.key\n"
    )
    await mosquitto.start_broker()
    url = mosquitto.url().replace("mqtt://", "mqtts://")
    good = peer(parse_broker_url(url, tmp_path / "ours.pem"))
    await good.bus.start()
    await good.online()
    await good.hears("x")
    good.says("x", bytes(1 << 20))
    await good.until(lambda: good.got)
    assert good.got == [("x", bytes(1 << 20))]
    for distrustful in (parse_broker_url(url, tmp_path / "other.pem"), parse_broker_url(url)):
        bad = peer(distrustful, "0000000000000002")
        await bad.bus.start()
        await bad.until(lambda: bad.states)  # noqa: B023
        assert bad.states[0][0] is False and "certificate" in bad.states[0][1].lower()
        await bad.bus.close()
    await good.bus.close()


CONNACK = b"\x20\x02\x00\x00"


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 64, b"\x30\x05\x00\xff\x00\x00\x00", b"\x30\x00", b"\x90\x00", b"\x20\x00",
     b"\x30\xff\xff\xff\xff\xff", b"\x32\x02\x00\x01", b"\x30\x04\x00\x02\xff\xfe",
     b"GET / HTTP/1.1\r\n\r\n", b"\x20\x02\x00\x77"],
)  # fmt: skip
async def test_a_broker_that_sends_garbage_cannot_stop_the_client(garbage: bytes):
    """After it, the client still connects anew and works."""
    visits = 0
    served = asyncio.Event()

    async def mad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        await reader.read(1000)
        writer.write(CONNACK if visits > 1 else CONNACK + garbage)
        if visits > 1:
            served.set()
            await reader.read(1000)
        writer.close()

    server = await asyncio.start_server(mad, "127.0.0.1", 0)
    client = peer(OutsideBroker("127.0.0.1", server.sockets[0].getsockname()[1]))
    await client.bus.start()
    async with asyncio.timeout(LONG):
        await served.wait()
    await client.until(lambda: client.states and client.states[-1][0])
    assert (False in [state for state, _ in client.states]) and client.bus.connected
    await client.bus.close()
    server.close()


async def test_an_error_inside_paho_does_not_end_its_thread(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
):
    client = peer(parse_broker_url(mosquitto.url()))
    await client.bus.start()
    await client.online()
    read = Link._packet_handle

    def broken(self: Link) -> MQTTErrorCode:
        monkeypatch.setattr(Link, "_packet_handle", read)
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr(Link, "_packet_handle", broken)
    client.bus.subscribe("x", 0)  # its answer is read by the broken method
    await client.until(lambda: client.states[-1][0] and len(client.states) == 3)
    assert client.states[1] == (False, "what the broker sent could not be read (error)")
    await client.hears("y")
    client.says("y", b"works")
    await client.until(lambda: client.got)
    await client.bus.close()


async def test_a_full_inbox_makes_the_network_thread_wait(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mqtt, "MAX_INBOX_BYTES", 10)
    client = peer(parse_broker_url(mosquitto.url()))
    await client.bus.start()
    await client.online()
    await client.hears("x")
    for number in range(200):
        client.says("x", f"{number:08d}".encode())
    await client.until(lambda: len(client.got) == 200)
    assert [int(payload) for _, payload in client.got] == list(range(200))
    assert not client.bus.drops
    await client.bus.close()


async def test_an_outside_broker_does_not_move(mosquitto: Mosquitto):
    fixed = peer(parse_broker_url(mosquitto.url()))
    with pytest.raises(TypeError):
        fixed.bus.set_endpoint("127.0.0.1", 1)
