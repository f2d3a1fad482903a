"""Connections between devices: TCP whose two ends have proved the swarm key to each other.

Whoever wants a socket to another device takes it from here, so that proof (and later encryption) has one
home. A deadline is an argument here because it spans several waits and says in its error what it was for.
"""

import asyncio
import os
import socket
import time
from contextlib import suppress

from swisd.core.checked import Malformed
from swisd.core.errors import WrongKey
from swisd.wire import handshake
from swisd.wire.handshake import Hello, Purpose, Refused

STREAM_LIMIT = 1 << 20
"""Bytes a StreamReader buffers before it stops reading from the socket (it stops at twice this). It does not
bound `readexactly`, so frames may be larger; it does bound `readline` and `readuntil`."""

UNHEARD_MS = 4000

# An idle peer that vanished without a word is noticed after about 10 + 3 * 5 seconds. Heartbeats notice it
# sooner; this only frees the socket.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class SaidNothing(ConnectionError):
    """A connection was closed before its first byte."""


async def dial(
    host: str, port: int, key: bytes, device: str, purpose: Purpose, *, timeout: float = 5.0
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a device and prove the key both ways, within `timeout` seconds in all.

    Raises `WrongKey` where the other side closed without proof or its proof was wrong (it is of another
    swarm, is not swisd, or broke off just then), `TimeoutError` and other `OSError`s where it cannot be
    reached.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                host, port, limit=STREAM_LIMIT, happy_eyeballs_delay=0.25
            )
            try:
                tune(writer.get_extra_info("socket"), purpose)
                greeting, words = _greet(key, device, purpose)
                writer.write(words)
                answer = await reader.readexactly(handshake.ACCEPT_BYTES)
                writer.write(handshake.read_accept(key, greeting, answer))
                await writer.drain()
            except BaseException:
                writer.transport.abort()
                raise
    except TimeoutError:
        raise TimeoutError(f"{host}:{port} did not answer within {timeout:g} s") from None
    except (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError, Refused):
        raise _wrong_key(host, port) from None
    return reader, writer


def dial_blocking(
    host: str, port: int, key: bytes, device: str, purpose: Purpose, *, timeout: float = 5.0
) -> socket.socket:
    """`dial` for a thread: a connected blocking socket with the same proof, and the same errors."""
    end = time.monotonic() + timeout
    try:
        sock = socket.create_connection((host, port), timeout)
        try:
            tune(sock, purpose)
            greeting, words = _greet(key, device, purpose)
            sock.sendall(words)
            answer = b""
            while len(answer) < handshake.ACCEPT_BYTES:  # and not a byte more: the rest is the caller's
                sock.settimeout(max(end - time.monotonic(), 0.001))
                piece = sock.recv(handshake.ACCEPT_BYTES - len(answer))
                if not piece:
                    raise ConnectionResetError("closed before its proof")
                answer += piece
            sock.sendall(handshake.read_accept(key, greeting, answer))
            sock.settimeout(None)
        except BaseException:
            sock.close()
            raise
    except TimeoutError:
        raise TimeoutError(f"{host}:{port} did not answer within {timeout:g} s") from None
    except (ConnectionResetError, BrokenPipeError, Refused):
        raise _wrong_key(host, port) from None
    return sock


def open_outside(host: str, port: int, *, timeout: float = 5.0) -> socket.socket:
    """A blocking TCP socket to a service that is no device of the swarm (a broker the user runs): nothing is
    proved, the messages carry their own proof. Raises `OSError`.
    """
    try:
        sock = socket.create_connection((host, port), timeout)
    except TimeoutError:
        raise TimeoutError(f"{host}:{port} did not answer within {timeout:g} s") from None
    tune(sock)
    return sock


async def admit(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes, *, timeout: float = 5.0
) -> Hello:
    """The accepting side: who connects and what for, once the key is proved, within `timeout` seconds.

    Nothing is written before the first words were right. Raises `Malformed` (not our protocol), `Refused`
    (not our key), `TimeoutError`, `asyncio.IncompleteReadError` or `ConnectionError` (it went away, as
    `SaidNothing` without a byte). The caller closes the connection.
    """
    async with asyncio.timeout(timeout):
        # The magic alone first: a browser or a port scanner is sent away at once, not at the deadline.
        try:
            start = await reader.readexactly(len(handshake.MAGIC))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            raise SaidNothing("closed without a word") from None
        if start != handshake.MAGIC:
            raise Malformed("not a swisd hello")
        rest = await reader.readexactly(handshake.HELLO_BYTES - len(start))
        greeting = handshake.read_hello(key, start + rest)
        tune(writer.get_extra_info("socket"), greeting.purpose)
        nonce = os.urandom(handshake.NONCE_BYTES)
        writer.write(handshake.accept(key, greeting, nonce))
        confirm = await reader.readexactly(handshake.CONFIRM_BYTES)
        handshake.read_confirm(key, greeting, nonce, confirm)
    return greeting


async def hang_up(writer: asyncio.StreamWriter, *, timeout: float = 1.0) -> None:
    """Close a connection: what is buffered may still leave for `timeout` seconds, then it is cut.

    Never raises for a connection that is broken already.
    """
    writer.close()
    try:
        with suppress(OSError):  # TimeoutError is one
            async with asyncio.timeout(timeout):
                await writer.wait_closed()
    finally:
        writer.transport.abort()


def tune(sock: socket.socket | None, purpose: Purpose | None = None) -> None:
    """Send small messages at once (a waiting Nagle costs 40 ms a hop) and notice a dead peer in the end.

    On a lane and on the bus nothing may lie about unheard: what is not acknowledged within `UNHEARD_MS`
    breaks the connection, where the system can do that. TCP alone would try for a quarter of an hour.
    """
    if sock is None:
        return
    with suppress(OSError):  # the peer may be gone already; the next read says so
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # not every system has each
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if purpose in (Purpose.LANE, Purpose.BUS) and hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_MS)


def _greet(key: bytes, device: str, purpose: Purpose) -> tuple[Hello, bytes]:
    nonce = os.urandom(handshake.NONCE_BYTES)
    return Hello(purpose, device, nonce), handshake.hello(key, purpose, device, nonce)


def _wrong_key(host: str, port: int) -> WrongKey:
    return WrongKey(
        f"{host}:{port} did not prove this swarm's key: it belongs to another swarm, or is not swisd; "
        "compare `swisd code` on both devices"
    )
