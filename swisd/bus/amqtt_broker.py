"""amqtt's broker with what a swarm needs and amqtt lacks. Imported only where a broker is embedded.

The overridden methods are amqtt's own, private ones: pyproject.toml bounds its version, and the tests in
tests/bus fail if an override no longer takes part.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import AMQTTError, MQTTError
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from swisd.bus.connect_packet import ACCEPTED, Connect

LISTENER = "default"
MAX_PACKET_BYTES = 66 << 20
"""The largest packet a client may send: a shard frame and its envelope."""
MAX_BACKLOG_BYTES = 16 << 20
"""Bytes that may wait for a slow client before its next message; beyond, it is disconnected."""
MAX_QUEUE = 1000
MAX_QUEUE_BYTES = 16 << 20
"""Messages, and about as many bytes, of one client that may wait in the broker before it stops reading from
that client: amqtt itself would take in all it sends."""
REFUSED_FILTER = 0x80
MAX_RETAINED = 4096
"""Topics with a retained message, and filters that are subscribed to, in all. A swarm has one topic of each
device."""
MAX_BROADCASTS = 64
"""Messages of all clients that are on their way to subscribers before the clients wait."""
_PIECE = 256 << 10


class QuietBytes(bytes):
    """A payload that amqtt can format into its log strings at no cost: it does so for every message, whatever
    the log level, which made a 1 MiB message take longer to describe than to deliver."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class Admission(BaseAuthPlugin):  # type: ignore[misc]
    """Lets in the connections that `EmbeddedBroker.serve` brought, under the client id it checked."""

    async def authenticate(self, *, session: Session) -> bool:
        admitted: dict[int, str] = self.context._broker_instance.admitted
        return session.client_id is not None and admitted.get(session.remote_port) == session.client_id


class SwarmBroker(Broker):  # type: ignore[misc]
    """Carries the topics below one prefix, for clients in `admitted` (connection number -> client id)."""

    def __init__(self, prefix: str, refused: Counter[str]) -> None:
        self.admitted: dict[int, str] = {}
        self._prefix, self._refused = prefix, refused
        super().__init__(
            BrokerConfig(
                listeners={LISTENER: ListenerConfig(type=ListenerType.EXTERNAL, bind="swisd")},
                plugins={f"{__name__}.{Admission.__name__}": {}},
            )
        )

        # amqtt's has no limit: clients that say more than it can pass on would fill the memory.
        self._broadcast_queue: asyncio.Queue[Any] = asyncio.Queue(MAX_BROADCASTS)

    def backlog(self, client_id: str) -> int:
        """Messages of a client that are read and not yet passed on."""
        session, _ = self._sessions.get(client_id, (None, None))
        return session.delivered_message_queue.qsize() if session is not None else 0

    async def _broadcast_message(
        self, session: Any, topic: str | None, data: bytes | None, force_qos: int | None = None
    ) -> None:
        # Checked here and not in a topic plugin: that costs a task for every message and subscriber, and lets
        # others change the subscriptions in the middle of a broadcast, which then is lost.
        if not (topic or "").startswith(self._prefix):
            self._refused["foreign topic"] += 1
            return
        await super()._broadcast_message(session, topic, QuietBytes(data or b""), force_qos)

    async def retain_message(
        self, source_session: Any, topic_name: str | None, data: bytes | None, qos: int | None = None
    ) -> None:
        if not (topic_name or "").startswith(self._prefix):
            return
        if (
            data
            and topic_name not in self._retained_messages
            and len(self._retained_messages) >= MAX_RETAINED
        ):
            self._refused["too many retained"] += 1
            return
        await super().retain_message(source_session, topic_name, data, qos)

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        if subscription[0] not in self._subscriptions and len(self._subscriptions) >= MAX_RETAINED:
            self._refused["too many filters"] += 1
            return REFUSED_FILTER
        code: int = await super().add_subscription(subscription, session)
        return code

    async def _handle_unsubscription(self, client_session: Session, handler: Any, waiter: Any) -> None:
        await super()._handle_unsubscription(client_session, handler, waiter)
        # amqtt keeps a filter that nobody subscribes to any more, and compares it with every message.
        for name in waiter.result().topics:
            if not self._subscriptions.get(name, True):
                del self._subscriptions[name]

    async def _handle_client_session(
        self, reader: Any, writer: Any, client_session: Session, handler: Any, *rest: Any
    ) -> None:
        publish = handler.mqtt_publish

        async def publish_if_there(*arguments: Any, **options: Any) -> Any:
            # To a client that is gone amqtt would publish too, and wait five seconds for each answer.
            gone = handler._reader_task is not None and handler._reader_task.done()
            return None if gone else await publish(*arguments, **options)

        handler.mqtt_publish = self._counted("unacknowledged", publish_if_there)
        handler.handle_publish = self._counted("bad packet", handler.handle_publish)
        await super()._handle_client_session(reader, writer, client_session, handler, *rest)

    def _counted(self, reason: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The method, with its errors counted: they would end in tasks whose results nobody asks for."""

        async def call(*arguments: Any, **options: Any) -> Any:
            try:
                return await method(*arguments, **options)
            except (AMQTTError, MQTTError, TimeoutError):
                self._refused[reason] += 1
                return None

        return call

    async def _client_message_loop(self, client_session: Session, handler: Any) -> None:
        # Of a client that hung up while amqtt began to serve it nobody is told: it would stay for ever.
        if handler._reader_task.done():
            await handler.handle_connection_closed()
        await super()._client_message_loop(client_session, handler)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        # amqtt sends every newcomer what is retained under everybody's filters; only its own concern it.
        subscribers = self._subscriptions.get(subscription[0], ())
        if any(other is session for other, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)


class Reader(ReaderAdapter):  # type: ignore[misc]
    """A client's bytes for amqtt: first the CONNECT that was read already, then the stream.

    It ends where the client is silent for `idle_s` seconds (amqtt itself leaves silent clients connected).
    """

    def __init__(
        self, reader: asyncio.StreamReader, connect: Connect, idle_s: float, broker: SwarmBroker
    ) -> None:
        self._reader, self._idle_s, self._broker = reader, idle_s, broker
        self._first, self._client_id = connect.without_keepalive, connect.client_id
        self._handed = 0  # bytes since nothing waited
        self._turns = 0
        self._ended = False

    async def read(self, n: int = -1) -> bytes:
        if self._first:
            data, self._first = self._first[:n], self._first[n:]
            return data
        if self._ended or not 0 <= n <= MAX_PACKET_BYTES:
            self._ended = True
            return b""  # amqtt takes it for the end of the stream
        pieces: list[bytes] = []
        left = n
        try:
            while left or not pieces:
                async with asyncio.timeout(self._idle_s):
                    pieces.append(await self._reader.readexactly(min(left, _PIECE)))
                left -= len(pieces[-1])
        except (OSError, asyncio.IncompleteReadError):
            self._ended = True
            return b""
        if n == 1:  # the start of a packet, or a digit of its length
            await self._room()
        self._handed += n
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _room(self) -> None:
        """Make a client that publishes faster than the broker works wait."""
        self._turns = (self._turns + 1) % 32
        if self._turns == 0:
            await asyncio.sleep(
                0
            )  # else all that is buffered is read before a message of it counts as waiting
        while waiting := self._broker.backlog(self._client_id):
            if waiting <= MAX_QUEUE and self._handed <= MAX_QUEUE_BYTES:
                return
            await asyncio.sleep(0.002)  # a Queue tells nobody that it shrank
        self._handed = 0

    def feed_eof(self) -> None:
        self._ended = True


class Writer(WriterAdapter):  # type: ignore[misc]
    """A client's socket for amqtt, which never waits.

    amqtt would keep a task and a copy of each message for a client that does not read. Here what waits is
    bounded in bytes, and a client beyond the bound is cut.
    """

    def __init__(self, writer: asyncio.StreamWriter, device: str, number: int, refused: Counter[str]) -> None:
        self._writer, self._device, self._number, self._refused = writer, device, number, refused
        self.welcomed = False  # amqtt took the client

    def write(self, data: bytes) -> None:
        self.welcomed = self.welcomed or data == ACCEPTED
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            self._refused["slow client"] += 1
            transport.abort()
            return
        self._writer.write(data)

    async def drain(self) -> None:
        """Nothing: see the class."""

    def get_peer_info(self) -> tuple[str, int]:
        return self._device, self._number  # amqtt hands it to `Admission` as the session's address

    def get_ssl_info(self) -> ssl.SSLObject | None:
        return None

    async def close(self) -> None:
        self._writer.close()
