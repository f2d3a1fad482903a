"""The proof of the key on real sockets, and what a stranger gets: no byte, a deadline, a closed door."""

import asyncio
import socket

import pytest

from swisd.core.errors import BadInput, WrongKey
from swisd.net.listener import BAD_MAGIC, CLOSED_EARLY, NO_HANDLER, TIMEOUT, TOO_MANY, WRONG_KEY, Listener
from swisd.net.secure import dial, dial_blocking, hang_up
from swisd.wire import handshake
from swisd.wire.handshake import Hello, Purpose

KEY, OTHER_KEY = b"k" * 16, b"o" * 16
DEVICE = "00112233445566aa"
LONG = 10.0


async def echo(_hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def start(**options: float) -> Listener:
    handlers = {Purpose.LANE: echo, Purpose.STORE: echo}
    return await Listener.start("127.0.0.1", 0, KEY, handlers, **options)  # type: ignore[arg-type]


async def until(condition) -> None:
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 (a counter has no event to wait for)
            await asyncio.sleep(0.005)


async def stranger(port: int, data: bytes, *, then_eof: bool = False) -> bytes:
    """Every byte a raw client gets until it is shut out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if then_eof:
            writer.write_eof()
        async with asyncio.timeout(LONG):
            try:
                return await reader.read()
            except ConnectionResetError:
                return b""
    finally:
        writer.transport.abort()


async def test_two_holders_of_the_key_talk():
    listener = await start()
    reader, writer = await dial("127.0.0.1", listener.port, KEY, DEVICE, Purpose.LANE)
    big = bytes(range(256)) * 8192
    writer.write(big)
    async with asyncio.timeout(LONG):
        assert await reader.readexactly(len(big)) == big
    await hang_up(writer)
    await until(lambda: listener.connections == 0)
    assert not listener.refused
    await listener.close()


async def test_blocking_dial_reads_not_a_byte_more_than_the_proof():
    async def eager(_hello: Hello, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"at once")

    listener = await Listener.start("127.0.0.1", 0, KEY, {Purpose.STORE: eager})

    def talk() -> bytes:
        with dial_blocking("127.0.0.1", listener.port, KEY, DEVICE, Purpose.STORE) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            sock.settimeout(LONG)
            return sock.recv(100)

    assert await asyncio.to_thread(talk) == b"at once"
    await listener.close()


async def test_a_wrong_key_is_told_on_both_ways_of_dialling():
    listener = await start()
    with pytest.raises(WrongKey, match="did not prove"):
        await dial("127.0.0.1", listener.port, OTHER_KEY, DEVICE, Purpose.LANE)
    with pytest.raises(WrongKey, match="did not prove"):
        await asyncio.to_thread(dial_blocking, "127.0.0.1", listener.port, OTHER_KEY, DEVICE, Purpose.LANE)
    await until(lambda: listener.refused[WRONG_KEY] == 2)
    await listener.close()


async def test_an_acceptor_that_guesses_a_proof_is_refused():
    async def liar(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(handshake.HELLO_BYTES)
        writer.write(bytes(handshake.ACCEPT_BYTES))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(liar, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(WrongKey):
        await dial("127.0.0.1", port, KEY, DEVICE, Purpose.LANE)
    with pytest.raises(WrongKey):
        await asyncio.to_thread(dial_blocking, "127.0.0.1", port, KEY, DEVICE, Purpose.LANE)
    server.close()


async def test_a_silent_or_absent_peer_has_a_deadline():
    mute = socket.create_server(("127.0.0.1", 0))
    port = mute.getsockname()[1]
    with pytest.raises(TimeoutError, match=f"127.0.0.1:{port} did not answer"):
        await dial("127.0.0.1", port, KEY, DEVICE, Purpose.LANE, timeout=0.2)
    with pytest.raises(TimeoutError, match=f"127.0.0.1:{port} did not answer"):
        await asyncio.to_thread(dial_blocking, "127.0.0.1", port, KEY, DEVICE, Purpose.LANE, timeout=0.2)
    mute.close()
    with pytest.raises(ConnectionRefusedError):
        await dial("127.0.0.1", port, KEY, DEVICE, Purpose.LANE)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(dial_blocking, "127.0.0.1", port, KEY, DEVICE, Purpose.LANE)


MQTT_CONNECT = bytes.fromhex("101000044d5154540402003c000473706965")
GOOD_HELLO = handshake.hello(KEY, Purpose.LANE, DEVICE, b"n" * 16)


@pytest.mark.parametrize(
    ("words", "eof", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", False, BAD_MAGIC),
        (MQTT_CONNECT, False, BAD_MAGIC),
        (bytes(1 << 20), False, BAD_MAGIC),
        (GOOD_HELLO[:4] + b"?" + GOOD_HELLO[5:], False, BAD_MAGIC),
        (handshake.hello(OTHER_KEY, Purpose.LANE, DEVICE, b"n" * 16), False, WRONG_KEY),
        (GOOD_HELLO[:4] + b"B" + GOOD_HELLO[5:], False, WRONG_KEY),
        (b"", False, TIMEOUT),
        (GOOD_HELLO[:30], False, TIMEOUT),
        (GOOD_HELLO[:3], True, CLOSED_EARLY),
        (GOOD_HELLO[:60], True, CLOSED_EARLY),
    ],
)
async def test_a_stranger_gets_no_byte_and_is_counted(words: bytes, eof: bool, reason: str):
    listener = await start(proof_timeout=0.2 if reason == TIMEOUT else LONG)
    assert await stranger(listener.port, words, then_eof=eof) == b""
    await until(lambda: listener.refused[reason] == 1 and listener.connections == 0)
    assert listener.refused.total() == 1
    await listener.close()


async def test_a_replayed_hello_cannot_confirm():
    listener = await start()
    answer = await stranger(listener.port, GOOD_HELLO + bytes(handshake.CONFIRM_BYTES))
    assert len(answer) in (0, handshake.ACCEPT_BYTES)  # the proof for that hello, and nothing after it
    await until(lambda: listener.refused[WRONG_KEY] == 1)
    await listener.close()


async def test_a_flood_of_strangers_cuts_the_oldest_and_lets_a_member_in():
    listener = await start(max_pending=4, proof_timeout=60.0)
    strangers = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(10)]
    await until(lambda: listener.refused[TOO_MANY] == 6)
    assert listener.connections <= 5
    async with asyncio.timeout(LONG):
        assert await strangers[0][0].read() == b""
    reader, writer = await dial("127.0.0.1", listener.port, KEY, DEVICE, Purpose.LANE)
    writer.write(b"hi")
    async with asyncio.timeout(LONG):
        assert await reader.readexactly(2) == b"hi"
    for _, other in strangers:
        other.transport.abort()
    writer.transport.abort()
    await listener.close()


async def test_a_purpose_nobody_serves_is_closed_until_somebody_does():
    listener = await start()
    reader, writer = await dial("127.0.0.1", listener.port, KEY, DEVICE, Purpose.BUS)
    async with asyncio.timeout(LONG):
        assert await reader.read() == b""
    await hang_up(writer)
    assert listener.refused[NO_HANDLER] == 1
    listener.set_handler(Purpose.BUS, echo)
    reader, writer = await dial("127.0.0.1", listener.port, KEY, DEVICE, Purpose.BUS)
    writer.write(b"now")
    async with asyncio.timeout(LONG):
        assert await reader.readexactly(3) == b"now"
    await listener.close()
    async with asyncio.timeout(LONG):
        assert await reader.read() == b""
    writer.close()


async def test_a_handler_that_fails_is_logged_and_closes_its_connection(caplog: pytest.LogCaptureFixture):
    async def broken(_hello: Hello, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        raise RuntimeError("a bug")

    listener = await Listener.start("127.0.0.1", 0, KEY, {Purpose.LANE: broken})
    reader, writer = await dial("127.0.0.1", listener.port, KEY, DEVICE, Purpose.LANE)
    async with asyncio.timeout(LONG):
        assert await reader.read() == b""
    await until(lambda: "a bug" in caplog.text)
    writer.close()
    await listener.close()


async def test_closing_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture):
    release = asyncio.Event()

    async def stubborn(_hello: Hello, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    listener = await Listener.start("127.0.0.1", 0, KEY, {Purpose.LANE: stubborn})
    reader, writer = await dial("127.0.0.1", listener.port, KEY, DEVICE, Purpose.LANE)
    await until(lambda: not listener._pending)
    await listener.close(timeout=0.1)
    assert "did not end" in caplog.text
    async with asyncio.timeout(LONG):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    await hang_up(writer)
    release.set()
    await until(lambda: listener.connections == 0)


async def test_a_port_in_use_is_one_clear_line():
    listener = await start()
    with pytest.raises(BadInput, match=rf"port {listener.port} is in use.*--port"):
        await Listener.start("127.0.0.1", listener.port, KEY, {})
    with pytest.raises(BadInput, match=r"cannot listen on 192\.0\.2\.1"):
        await Listener.start("192.0.2.1", 0, KEY, {})
    await listener.close()
