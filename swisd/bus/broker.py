"""The broker inside the swarm's host: amqtt without a socket of its own, fed by the listener."""

import asyncio
import importlib.util
import logging
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from swisd.bus.connect_packet import (
    CONNECT,
    REFUSED_IDENTIFIER,
    REFUSED_VERSION,
    Connect,
    length,
    parse_connect,
)
from swisd.core.checked import Malformed
from swisd.core.errors import BadInput
from swisd.wire.handshake import Hello
from swisd.wire.topics import PREFIX

if TYPE_CHECKING:
    from swisd.bus.amqtt_broker import SwarmBroker

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
UNSET_KEEPALIVE_S = 60


def available() -> bool:
    """Whether this device can embed a broker (a phone without amqtt cannot)."""
    return importlib.util.find_spec("amqtt") is not None


class EmbeddedBroker:
    """An MQTT 3.1.1 broker for the clients that a `Listener` admitted: give it `serve` for `Purpose.BUS`.

    A client's id is the device id it proved the key with, or `<device id>.<anything>`. It may publish below
    `swisd/1/<swarm id>/`, must ask for a clean session, and is disconnected when it is silent for twice its
    keep-alive or does not read (16 MiB behind). Nothing is kept on disk. `refused` counts by reason.
    """

    def __init__(self, swarm: str) -> None:
        self.refused: Counter[str] = Counter()
        self._prefix = f"{PREFIX}/{swarm}/"
        self._broker: SwarmBroker | None = None
        self._numbers = count(1)
        self._clients: dict[str, tuple[asyncio.StreamWriter, asyncio.Event]] = {}

    @property
    def clients(self) -> list[str]:
        """The ids of the clients that are connected now."""
        return list(self._clients)

    async def start(self) -> None:
        """Begin to serve. Raises `BadInput` where amqtt is not installed."""
        if not available():
            raise BadInput(
                "this device cannot host the swarm: the package amqtt is not installed; "
                "start another device first, or give an external broker"
            )
        # amqtt tells in log lines what a host's person cannot act on, tracebacks included.
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)
        logging.getLogger("transitions").setLevel(logging.WARNING)
        from swisd.bus.amqtt_broker import SwarmBroker

        broker = SwarmBroker(self._prefix, self.refused)
        await broker.start()
        self._broker = broker

    async def serve(self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves; the caller closes the connection."""
        broker = self._broker
        if broker is None:
            return
        try:
            connect = await _read_connect(reader)
        except (Malformed, OSError, asyncio.IncompleteReadError) as error:
            self.refused["bad connect"] += 1
            log.debug("no MQTT CONNECT from %s: %s", hello.device, error)
            writer.write(REFUSED_VERSION)
            return
        client_id = connect.client_id
        if client_id.partition(".")[0] != hello.device or not connect.clean:
            self.refused["client id"] += 1
            writer.write(REFUSED_IDENTIFIER)
            return
        await self._take_over(client_id)
        from swisd.bus.amqtt_broker import LISTENER, Reader, Writer

        number, gone = next(self._numbers), asyncio.Event()
        self._clients[client_id] = (writer, gone)
        broker.admitted[number] = client_id
        idle_s = 2.0 * (connect.keepalive_s or UNSET_KEEPALIVE_S)
        speaker = Writer(writer, hello.device, number, self.refused)
        try:
            await broker.external_connected(Reader(reader, connect, idle_s, broker), speaker, LISTENER)
            if not speaker.welcomed:
                self.refused["bad connect"] += 1
        finally:
            del broker.admitted[number]
            if self._clients.get(client_id, (None,))[0] is writer:
                del self._clients[client_id]
            gone.set()

    def cut(self, client_id: str) -> None:
        """Break a client's connection; its will is published."""
        if client_id in self._clients:
            self._clients[client_id][0].transport.abort()

    async def left(self, *, timeout: float) -> None:
        """Wait until every client has gone elsewhere, at most `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._clients:
                    _, gone = next(iter(self._clients.values()))
                    await gone.wait()

    async def close(self, *, timeout: float = 3.0) -> None:
        """Disconnect everybody and stop; what has not ended after `timeout` seconds is cut."""
        broker, self._broker = self._broker, None
        if broker is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await broker.shutdown()
        except TimeoutError:
            log.warning("the embedded broker did not stop within %g s", timeout)
        for writer, _ in list(self._clients.values()):
            writer.transport.abort()

    async def _take_over(self, client_id: str) -> None:
        """A client that comes back before its old connection was seen to break (MQTT-3.1.4-2)."""
        while client_id in self._clients:
            writer, gone = self._clients[client_id]
            writer.transport.abort()
            with suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await gone.wait()
                continue
            del self._clients[client_id]  # it holds on to something; its socket is closed in any case


async def _read_connect(reader: asyncio.StreamReader) -> Connect:
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        if await reader.readexactly(1) != bytes((CONNECT,)):
            raise Malformed("the first packet is not CONNECT")
        digits = await reader.readexactly(1)
        while (size := length(digits)) is None:
            digits += await reader.readexactly(1)
        return parse_connect(digits, await reader.readexactly(size))
