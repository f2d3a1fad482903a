"""The bus without a network: for tests, and for a device that is alone."""

import asyncio
from collections import Counter, deque
from itertools import count

from swisd.bus.api import MAX_WAITING, NOT_CONNECTED, QUEUE_FULL, OnMessage, OnState, Will
from swisd.bus.filters import matches, valid_pattern, valid_topic

RECONNECT_S = 0.01


class MemoryBroker:
    """Carries messages between the `MemoryBus`es that were made with it; all live in one event loop."""

    def __init__(self) -> None:
        self._clients: dict[str, MemoryBus] = {}
        self._retained: dict[str, bytes] = {}
        self._up = True

    def cut(self, client_id: str) -> None:
        """Break a client's connection: its will is spoken, and it reconnects."""
        if client_id in self._clients:
            self._lose(self._clients[client_id], "the connection broke")

    def stop(self) -> None:
        """Break all connections and take no new ones; retained messages are forgotten."""
        self._up = False
        self._retained.clear()
        for client in list(self._clients.values()):
            self._lose(client, "the broker stopped")

    def resume(self) -> None:
        """Take connections again."""
        self._up = True

    def _connect(self, client: "MemoryBus") -> bool:
        if not self._up:
            return False
        other = self._clients.get(client.client_id)
        if other is not None and other is not client:
            self._lose(other, "another client took over its id")
        self._clients[client.client_id] = client
        return True

    def _leave(self, client: "MemoryBus") -> None:
        if self._clients.get(client.client_id) is client:
            del self._clients[client.client_id]

    def _lose(self, client: "MemoryBus", reason: str) -> None:
        self._leave(client)
        if client.will is not None:
            self._publish(client.will.topic, client.will.payload, client.will.retain)
        client._lost(reason)

    def _publish(self, topic: str, payload: bytes, retain: bool) -> None:
        if retain and payload:
            self._retained[topic] = payload
        elif retain:
            self._retained.pop(topic, None)
        for client in self._clients.values():
            if any(matches(pattern, topic) for pattern in client._patterns):
                client._take(topic, payload)

    def _replay(self, client: "MemoryBus", pattern: str) -> None:
        for topic, payload in self._retained.items():
            if matches(pattern, topic):
                client._take(topic, payload)


class MemoryBus:
    """A `Bus` on a `MemoryBroker`."""

    def __init__(
        self,
        broker: MemoryBroker,
        client_id: str,
        on_message: OnMessage,
        on_state: OnState,
        *,
        will: Will | None = None,
    ) -> None:
        self.client_id, self.will = client_id, will
        self.drops: Counter[str] = Counter()
        self._broker = broker
        self._on_message, self._on_state = on_message, on_state
        self._patterns: dict[str, int] = {}
        self._waiting: deque[tuple[str, bytes, bool]] = deque()
        self._connected = False
        self._closed = False
        self._lives = count(1)
        self._life = 0  # grows with every connection: what was on its way in an old one is lost
        self._retry: asyncio.Handle | None = None

    @property
    def connected(self) -> bool:
        return self._connected

    async def start(self) -> None:
        self._retry = asyncio.get_running_loop().call_soon(self._connect)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if not valid_topic(topic):
            raise ValueError(f"{topic[:80]!r} is not a topic to publish on")
        if self._connected:
            self._broker._publish(topic, bytes(payload), retain)
        elif qos == 0 or self._closed:
            self.drops[NOT_CONNECTED] += 1
        elif len(self._waiting) >= MAX_WAITING:
            self.drops[QUEUE_FULL] += 1
        else:
            self._waiting.append((topic, bytes(payload), retain))

    def subscribe(self, pattern: str, qos: int) -> None:
        if not valid_pattern(pattern):
            raise ValueError(f"{pattern[:80]!r} is not a topic filter")
        self._patterns[pattern] = qos
        if self._connected:
            self._broker._replay(self, pattern)

    def unsubscribe(self, pattern: str) -> None:
        self._patterns.pop(pattern, None)

    async def settled(self, *, timeout: float = 5.0) -> None:
        async with asyncio.timeout(timeout):
            while not self._connected:  # noqa: ASYNC110 (a few turns of the loop at most)
                await asyncio.sleep(0.001)

    async def close(self, *, timeout: float = 2.0) -> None:
        self._broker._leave(self)
        self._connected, self._closed = False, True
        if self._retry is not None:
            self._retry.cancel()

    def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._broker._connect(self):
            self._retry = loop.call_later(RECONNECT_S, self._connect)
            return
        self._life = next(self._lives)
        self._connected = True
        self._on_state(True, "connected in memory")
        for pattern in self._patterns:
            self._broker._replay(self, pattern)
        while self._waiting and self._connected:
            self._broker._publish(*self._waiting.popleft())

    def _lost(self, reason: str) -> None:
        self._connected = False
        loop = asyncio.get_running_loop()
        loop.call_soon(self._tell_lost, reason)
        self._retry = loop.call_later(RECONNECT_S, self._connect)

    def _tell_lost(self, reason: str) -> None:
        if not self._closed:
            self._on_state(False, reason)

    def _take(self, topic: str, payload: bytes) -> None:
        # Never within publish(): a handler that publishes must not be entered again.
        asyncio.get_running_loop().call_soon(self._deliver, self._life, topic, payload)

    def _deliver(self, life: int, topic: str, payload: bytes) -> None:
        if not self._closed and life == self._life and self._connected:
            self._on_message(topic, payload)
