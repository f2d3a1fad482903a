"""Finding the host of our swarm: hosts known before, then multicast DNS and questions over UDP at once.

Whatever is found has proved the swarm key and answered as a broker before it is returned.
"""

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from swisd.bus import announce
from swisd.bus.announce import Announced
from swisd.bus.probing import Targets, ask_around
from swisd.core.errors import WrongKey
from swisd.net.interfaces import Interface, local_addresses
from swisd.net.secure import dial, hang_up
from swisd.wire.handshake import Purpose
from swisd.wire.probe import HostAddress
from swisd.wire.topics import swarm_id

T = TypeVar("T")
DEFAULT_PORT = 7947
HINT_TIMEOUT_S = 3.0
_CANDIDATES = 64
_LOOK_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """Where the swarm's bus answers, and how it was found, in words."""

    host: str
    port: int
    how: str


@dataclass(slots=True)
class Attempts:
    """What a search has done so far, for the person it fails."""

    tried: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)  # ids of other swarms that were heard
    wrong_key: bool = False  # a hint belongs to another swarm

    def note(self, text: str) -> None:
        if text not in self.tried and len(self.tried) < 100:
            self.tried.append(text)


class _NotHost(Exception):
    """A device of our swarm that does not serve the bus."""


async def find(
    key: bytes,
    device: str,
    *,
    hints: Iterable[tuple[str, int]] = (),
    timeout: float = 5.0,
    zeroconf: bool = True,
    extra_ports: Iterable[int] = (),
    interfaces: list[Interface] | None = None,
    attempts: Attempts | None = None,
) -> Found | None:
    """Search for the host of the swarm of `key` for at most `timeout` seconds.

    `hints` are addresses known before, tried first (at most 3 s). UDP questions go to `DEFAULT_PORT`, the
    `extra_ports` and the hints. `attempts` is filled as it goes. Never raises for what the network does.
    """
    search = _Search(key, device, attempts if attempts is not None else Attempts())
    known = list(dict.fromkeys(hints))
    ports = list(dict.fromkeys([DEFAULT_PORT, *extra_ports]))
    interfaces = local_addresses() if interfaces is None else interfaces
    try:
        async with asyncio.timeout(timeout):
            found = await search.known(known, min(HINT_TIMEOUT_S, timeout))
            return found or await search.around(interfaces, ports, known, zeroconf)
    except TimeoutError:
        return None
    finally:
        await search.end()


class _Search:
    def __init__(self, key: bytes, device: str, attempts: Attempts) -> None:
        self._key, self._device, self._attempts = key, device, attempts
        self._candidates: asyncio.Queue[tuple[str, int, str]] = asyncio.Queue(_CANDIDATES)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def known(self, hints: list[tuple[str, int]], limit: float) -> Found | None:
        for done in asyncio.as_completed([self._start(self._check(*hint, limit)) for hint in hints]):
            where = await done
            if where is not None:
                return Found(*where, "a known address")
        return None

    async def around(
        self, interfaces: list[Interface], ports: list[int], hints: list[tuple[str, int]], zeroconf: bool
    ) -> Found | None:
        multicast = zeroconf and announce.available()
        self._tell_plan(interfaces, ports, zeroconf)
        targets = Targets(interfaces, ports, await _resolved(hints))
        ways = [ask_around(self._key, targets, self._answered, self._attempts.note)]
        if multicast and interfaces:
            ways.append(announce.listen(interfaces, self._heard))
        return await self._first_good([self._start(self._noting(way)) for way in ways])

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)
            await asyncio.sleep(0)  # sockets closed in this turn of the loop are given back in the next

    def _tell_plan(self, interfaces: list[Interface], ports: list[int], zeroconf: bool) -> None:
        note = self._attempts.note
        multicast = zeroconf and announce.available()
        if not interfaces:
            note("no network interface of this device is up and usable; only this device was asked")
        elif zeroconf and not multicast:
            note("multicast DNS: not available on this device (package zeroconf)")
        way = "multicast DNS, broadcast" if multicast else "broadcast"
        listed = ", ".join(str(port) for port in ports)
        for each in interfaces:
            note(f"{each.name} ({each.address}/{each.prefix}): {way}, each address; UDP port {listed}")

    def _heard(self, found: Announced) -> None:
        if found.swarm == swarm_id(self._key):
            for address in found.addresses:
                self._offer(address, found.port, "multicast DNS")
        elif len(self._attempts.others) < 64:
            self._attempts.others.add(found.swarm)

    def _answered(self, host: HostAddress) -> None:
        self._offer(host.address, host.port, "an answer over UDP")

    def _offer(self, host: str, port: int, how: str) -> None:
        if not self._candidates.full():
            self._candidates.put_nowait((host, port, how))

    async def _first_good(self, ways: list[asyncio.Task[None]]) -> Found | None:
        """Check candidates as they come; one that failed is checked again when it is offered again."""
        checks: dict[tuple[str, int], tuple[str, asyncio.Task[tuple[str, int] | None]]] = {}
        coming = self._start(self._candidates.get())
        while True:
            running = [check for _, check in checks.values()]
            await asyncio.wait([coming, *running, *ways], return_when=asyncio.FIRST_COMPLETED)
            for way in [way for way in ways if way.done()]:
                ways.remove(way)
                way.result()  # a bug in a way to search must not look like an empty network
            for where, (how, check) in list(checks.items()):
                if check.done():
                    del checks[where]
                    if check.result() is not None:
                        return Found(*where, how)
            if coming.done():
                host, port, how = coming.result()
                coming = self._start(self._candidates.get())
                if (host, port) not in checks and len(checks) < _CANDIDATES:
                    checks[host, port] = how, self._start(self._check(host, port, HINT_TIMEOUT_S))

    async def _check(self, host: str, port: int, limit: float) -> tuple[str, int] | None:
        """The same address if the swarm's bus answers there, else None and a note why not."""
        note = self._attempts.note
        try:
            async with asyncio.timeout(limit):
                reader, writer = await dial(host, port, self._key, self._device, Purpose.BUS, timeout=limit)
                try:
                    await _greet(reader, writer, self._device)
                finally:
                    await hang_up(writer, timeout=0.2)
        except WrongKey:
            self._attempts.wrong_key = True
            note(f"{host}:{port}: not a device of this swarm (another key, or not swisd)")
        except _NotHost:
            note(f"{host}:{port}: a device of this swarm, but not its host now")
        except TimeoutError:
            note(f"{host}:{port}: no answer within {limit:g} s")
        except (OSError, UnicodeError) as error:  # a host name that cannot be one is a UnicodeError
            note(f"{host}:{port}: {_words(error)}")
        else:
            return host, port
        return None

    async def _noting(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except OSError as error:
            self._attempts.note(f"search: {_words(error)}")

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, device: str) -> None:
    """An MQTT CONNECT and DISCONNECT: any device proves the key, only the host's broker answers this."""
    # A name of its own: commands of one home look at the same time, and the broker has one client per name.
    name = f"{device}.{secrets.token_hex(4)}".encode()
    body = b"\x00\x04MQTT\x04\x02" + struct.pack("!HH", 15, len(name)) + name
    try:
        writer.write(bytes((0x10, len(body))) + body)
        answer = await reader.readexactly(4)
        writer.write(b"\xe0\x00")
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        raise _NotHost from None
    if answer != b"\x20\x02\x00\x00":
        raise _NotHost


async def _resolved(hints: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The hints as IPv4 addresses: sending to a name would look it up in the event loop."""
    loop = asyncio.get_running_loop()
    found: list[tuple[str, int]] = []
    for host, port in hints:
        with suppress(OSError, UnicodeError):
            async with asyncio.timeout(_LOOK_UP_S):
                infos = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
            found.extend((str(where[0]), int(where[1])) for *_, where in infos[:1])
    return found


def _words(error: Exception) -> str:
    # asyncio's own text is about its call; the system's is about the network.
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
