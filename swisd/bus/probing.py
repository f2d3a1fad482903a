"""Finding the host by asking every address of the local networks over UDP, and answering who asks.

Many access points drop multicast and broadcast between their clients; a question to each address and an
answer to the asker pass them all.
"""

import asyncio
import errno
import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import Self, cast

from swisd.core.checked import Malformed
from swisd.net.interfaces import Interface
from swisd.wire.handshake import Refused
from swisd.wire.probe import HostAddress, encode_probe, encode_reply, read_probe, read_reply

log = logging.getLogger(__name__)

MAX_ADDRESSES = 1024
"""Addresses asked one by one in a round; of larger networks those nearest to our own."""
_BATCH, _PAUSE_S = 32, 0.02  # 1600 datagrams of 128 bytes a second: no burden for a slow Wi-Fi
_ROUND_S = 1.0
_REMEMBERED = 4096
_NONCES = 8
_CALLS = 32
_NOBODY_THERE = (errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.EHOSTDOWN)
HERE, ANYWHERE, EVERYBODY = "127.0.0.1", "0.0.0.0", "255.255.255.255"


class Responder(asyncio.DatagramProtocol):
    """Answers the probes of this swarm on a UDP port with where its host is; strangers get nothing.

    `refused` counts by reason. Each nonce is answered once, so a recorded probe gets no second answer.
    """

    def __init__(self, key: bytes, where: Callable[[], HostAddress | None]) -> None:
        self.answered = 0
        self.refused: Counter[str] = Counter()
        self._key, self._where = key, where
        self._seen: dict[bytes, None] = {}
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def start(cls, host: str, port: int, key: bytes, where: Callable[[], HostAddress | None]) -> Self:
        """Answer on `host` and `port` with what `where` says then (None: say nothing). Raises `OSError`."""
        self = cls(key, where)
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, local_addr=(host, port)
        )
        return self

    def close(self) -> None:
        """Stop answering."""
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            nonce = read_probe(self._key, data)
        except Malformed:
            self.refused["bad magic"] += 1
            return
        except Refused:
            self.refused["wrong key"] += 1
            return
        if nonce in self._seen:
            self.refused["seen before"] += 1  # mostly our own swarm: a broadcast and then the address itself
            return
        where = self._where()
        if where is None or self._transport is None:
            return
        self._seen[nonce] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._transport.sendto(encode_reply(self._key, nonce, where), addr)
        self.answered += 1

    def error_received(self, exc: Exception) -> None:
        log.debug("an answer to a probe was not delivered: %s", exc)


class _Asker(asyncio.DatagramProtocol):
    """Reads the answers on one of our sockets; `trouble` is what went wrong with sending, in words."""

    def __init__(self, key: bytes, nonces: deque[bytes], found: Callable[[HostAddress], None]) -> None:
        self.trouble: str | None = None
        self._key, self._nonces, self._found = key, nonces, found

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            host = read_reply(self._key, list(self._nonces), data)
        except (Malformed, Refused):
            return
        self._found(replace(host, address=host.address or addr[0]))

    def error_received(self, exc: Exception) -> None:
        # Some errors tell of an earlier probe: nobody is at that address.
        if getattr(exc, "errno", None) not in _NOBODY_THERE:
            self.trouble = getattr(exc, "strerror", None) or str(exc)


@dataclass(frozen=True, slots=True)
class Targets:
    """Whom to ask: the networks of our interfaces on some ports, and some IPv4 addresses besides."""

    interfaces: list[Interface]
    ports: list[int]
    also: list[tuple[str, int]]

    def each(self) -> Iterator[tuple[str, tuple[str, int]]]:
        """(our address, whom to ask): all at once, this device, the extra ones, then one after the other."""
        for ours in self.interfaces:
            for port in self.ports:
                if ours.broadcast is not None:
                    yield ours.address, (ours.broadcast, port)
                yield ours.address, (EVERYBODY, port)
        for port in self.ports:
            yield HERE, (HERE, port)
        for where in self.also:
            yield ANYWHERE, where
        for source, address in sweep(self.interfaces):
            for port in self.ports:
                yield source, (address, port)


async def ask_around(
    key: bytes, targets: Targets, found: Callable[[HostAddress], None], failed: Callable[[str], None]
) -> None:
    """Probe in rounds of about a second until cancelled. `found` gets every answer, `failed` every trouble in
    words."""
    nonces: deque[bytes] = deque(maxlen=_NONCES)
    sockets: dict[str, tuple[asyncio.DatagramTransport, _Asker]] = {}
    mute = {ANYWHERE}  # sources whose trouble was told, or means nothing (what lies beyond a router)
    try:
        for source in dict.fromkeys([HERE, ANYWHERE, *(each.address for each in targets.interfaces)]):
            try:
                sockets[source] = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: _Asker(key, nonces, found), local_addr=(source, 0), allow_broadcast=True
                )
            except OSError as error:
                failed(f"from {source}: {error.strerror or error}")
        while True:
            nonces.append(os.urandom(16))
            probe = encode_probe(key, nonces[-1])
            coming = targets.each()
            while batch := list(islice(coming, _BATCH)):
                for source, target in batch:
                    if source not in sockets:
                        continue
                    transport, asker = sockets[source]
                    asker.trouble = None
                    transport.sendto(probe, target)
                    if asker.trouble is not None and source not in mute and target[0] != EVERYBODY:
                        mute.add(source)
                        failed(f"from {source} to {target[0]}: {asker.trouble}")
                await asyncio.sleep(_PAUSE_S)
            await asyncio.sleep(_ROUND_S)
    finally:
        for transport, _ in sockets.values():
            transport.abort()  # what is still buffered need not leave


class _Seeker(asyncio.DatagramProtocol):
    """Collects hosts that speak of themselves, and asks those that others name."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self.hosts: dict[str, HostAddress] = {}
        self._key, self._nonce = key, nonce
        self._asked: set[tuple[str, int]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def ask(self, where: tuple[str, int]) -> None:
        if self._transport is not None and len(self._asked) < _CALLS:
            self._asked.add(where)
            self._transport.sendto(encode_probe(self._key, self._nonce), where)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            host = read_reply(self._key, [self._nonce], data)
        except (Malformed, Refused):
            return
        if not host.address:
            self.hosts[host.device] = replace(host, address=addr[0])
        elif (host.address, host.port) not in self._asked:
            self.ask((host.address, host.port))  # what others know of a host may be old

    def error_received(self, exc: Exception) -> None:
        log.debug("a question was not delivered: %s", exc)


async def ask_once(key: bytes, targets: Iterable[tuple[str, int]], seconds: float) -> list[HostAddress]:
    """Ask at these IPv4 addresses who is host; those that say it of themselves within `seconds`."""
    targets = list(targets)
    if not targets:
        return []
    seeker = _Seeker(key, os.urandom(16))
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: seeker, local_addr=(ANYWHERE, 0)
    )
    try:
        for where in targets:
            seeker.ask(where)
        await asyncio.sleep(seconds)
    finally:
        transport.abort()
    return list(seeker.hosts.values())


def sweep(interfaces: list[Interface], most: int = MAX_ADDRESSES) -> Iterator[tuple[str, str]]:
    """(our address, address to ask) for at most `most` neighbours.

    They are taken from all networks in turn, and in each from our own address outwards.
    """
    ours = {each.address for each in interfaces}
    rows = zip_longest(*(_outwards(each, most) for each in interfaces))
    return islice((pair for row in rows for pair in row if pair is not None and pair[1] not in ours), most)


def _outwards(interface: Interface, most: int) -> Iterator[tuple[str, str]]:
    network = interface.network
    if network.prefixlen > 30:
        return
    first, last = int(network.network_address) + 1, int(network.broadcast_address) - 1
    centre = int.from_bytes(socket.inet_aton(interface.address), "big")
    for distance in range(1, min(most, last - first) + 1):
        for number in (centre + distance, centre - distance):
            if first <= number <= last:
                yield interface.address, socket.inet_ntoa(number.to_bytes(4, "big"))
