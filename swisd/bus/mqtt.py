"""The bus over MQTT 3.1.1: a client of the host's embedded broker, or of a broker outside the swarm.

paho runs in a thread of its own; everything it has to tell goes through one bounded queue into the event
loop, so callbacks come in order and in one thread.
"""

import asyncio
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode

from swisd.bus.api import (
    LOST,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    NOT_CONNECTED,
    QUEUE_FULL,
    REFUSED,
    OnMessage,
    OnState,
    Will,
)
from swisd.bus.endpoint import CONNECT_TIMEOUT_S, OutsideBroker, SwarmBroker
from swisd.bus.filters import valid_pattern, valid_topic
from swisd.bus.link import EAGER_WAIT_S, Link

log = logging.getLogger(__name__)

MAX_INBOX_BYTES = 32 << 20
"""Received bytes that wait for the event loop before the network thread stops reading from the broker."""
INBOX_PATIENCE_S = 5.0
"""How long it stops; then messages are dropped and counted, so that a stuck event loop stays visible."""
STUCK = "event loop stuck"


def _broken(code: Any) -> str:
    """In words; paho's code for a connection that just ended tells nothing."""
    said = str(code).lower()
    return "the connection to the broker broke" + ("" if "unspecified" in said else f" ({said})")


class MqttBus:
    """A `Bus` on an MQTT broker; see `swisd.bus.api.Bus`."""

    def __init__(
        self,
        endpoint: SwarmBroker | OutsideBroker,
        client_id: str,
        on_message: OnMessage,
        on_state: OnState,
        *,
        will: Will | None = None,
    ) -> None:
        self.drops: Counter[str] = Counter()
        self._on_message, self._on_state = on_message, on_state
        self._patterns: dict[str, int] = {}
        self._unconfirmed: set[int] = set()
        self._settled = asyncio.Event()
        self._waiting: dict[int, tuple[int, int]] = {}  # message id -> QoS, bytes
        self._waiting_bytes = 0
        self._emptied = asyncio.Event()
        self._connected = False
        self._closed = False
        self._last_state: tuple[bool, str] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: deque[tuple[int, Callable[..., None], tuple[Any, ...]]] = deque()
        self._inbox_bytes = 0
        self._room = threading.Condition()
        self._link = Link(endpoint, client_id)
        # Bounds are kept here, by bytes too; paho's own would only differ.
        self._link.max_queued_messages_set(0)
        if will is not None:
            self._link.will_set(will.topic, will.payload, will.qos, will.retain)
        self._link.on_connect = self._paho_connect
        self._link.on_disconnect = self._paho_disconnect
        self._link.on_connect_fail = self._paho_connect_fail
        self._link.on_crash = lambda reason: self._post(0, self._lost, reason)
        self._link.on_message = self._paho_message
        self._link.on_publish = lambda _c, _u, mid, _r, _p: self._post(0, self._sent, mid)
        self._link.on_subscribe = self._paho_subscribe

    @property
    def connected(self) -> bool:
        return self._connected

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._link.begin()

    @property
    def moves(self) -> bool:
        """Whether the broker is a device's, so that another may take its place."""
        return isinstance(self._link.endpoint, SwarmBroker)

    @property
    def where(self) -> tuple[str, int]:
        """The address of the broker that was reached last."""
        return self._link.where

    def set_endpoint(
        self,
        host: str,
        port: int,
        *,
        others: Iterable[tuple[str, int]] = (),
        timeout: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """Follow the swarm to a new host: the connection is cut and made anew, subscriptions and what waits
        are kept. The host may have `others` as addresses too, and `timeout` seconds at each to answer.
        Raises `TypeError` on a bus whose broker is outside the swarm."""
        if not isinstance(self._link.endpoint, SwarmBroker):
            raise TypeError("a broker outside the swarm does not move")
        self._link.endpoint = replace(
            self._link.endpoint, host=host, port=port, others=tuple(others), timeout=timeout
        )
        self._link.longest_wait_s = EAGER_WAIT_S
        self.reconnect()

    def reconnect(self) -> None:
        """Cut the connection, if there is one, and connect again at once."""
        self._link.hurry(cut=True)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if not valid_topic(topic):
            raise ValueError(f"{topic[:80]!r} is not a topic to publish on")
        if self._closed or (qos == 0 and not self._connected):
            self.drops[NOT_CONNECTED] += 1
            return
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            self.drops[QUEUE_FULL] += 1
            return
        info = self._link.publish(topic, payload, qos, retain)
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS or (
            qos > 0 and info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN  # paho keeps it for the next connection
        ):
            self._waiting[info.mid] = (qos, len(payload))
            self._waiting_bytes += len(payload)
        else:
            self.drops[NOT_CONNECTED] += 1

    def subscribe(self, pattern: str, qos: int) -> None:
        if not valid_pattern(pattern):
            raise ValueError(f"{pattern[:80]!r} is not a topic filter")
        self._patterns[pattern] = qos
        if self._connected:
            self._ask_for(pattern, qos)

    def unsubscribe(self, pattern: str) -> None:
        if self._patterns.pop(pattern, None) is not None and self._connected:
            self._link.unsubscribe(pattern)

    async def flushed(self, *, timeout: float) -> None:
        """Wait until what was published has left, at most `timeout` seconds."""
        if self._connected and self._waiting:
            self._emptied.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._emptied.wait()

    async def settled(self, *, timeout: float = 5.0) -> None:
        async with asyncio.timeout(timeout):
            await self._settled.wait()

    async def close(self, *, timeout: float = 2.0) -> None:
        if self._closed:
            return
        await self.flushed(timeout=timeout / 2)
        self._closed = True
        self._connected = False
        if self._loop is None:
            return  # never started
        self._link.disconnect()
        stopped = asyncio.Event()
        # A thread of our own, not the loop's pool: that is waited for at exit, and a dial may take seconds.
        threading.Thread(target=self._stop, args=(stopped,), name="bus close", daemon=True).start()
        try:
            async with asyncio.timeout(timeout / 2):
                await stopped.wait()
        except TimeoutError:
            log.debug("the bus did not disconnect within %g s: cut", timeout)
            self._link.hurry(cut=True)

    # What follows up to the next comment runs in paho's thread and only hands over.

    def _stop(self, stopped: asyncio.Event) -> None:
        self._link.hurry()
        with suppress(AttributeError):  # paho forgets its thread while it is being joined
            self._link.loop_stop()
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(stopped.set)

    def _paho_connect(self, _c: Any, _u: Any, _flags: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            self._post(0, self._lost, f"the broker refused: {str(code).lower()}")
        else:
            self._link.accepted()
            self._post(0, self._gained)

    def _paho_disconnect(self, _c: Any, _u: Any, _flags: Any, code: Any, _p: Any) -> None:
        self._post(0, self._lost, _broken(code))

    def _paho_connect_fail(self, _c: Any, _u: Any) -> None:
        self._post(0, self._lost, self._link.failure)

    def _paho_subscribe(self, _c: Any, _u: Any, mid: int, codes: list[Any], _p: Any) -> None:
        self._post(0, self._confirmed, mid, any(code.is_failure for code in codes))

    def _paho_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return  # no topic of ours
        with self._room:
            roomy = self._room.wait_for(lambda: self._inbox_bytes <= MAX_INBOX_BYTES, INBOX_PATIENCE_S)
        if not roomy:
            self.drops[STUCK] += 1
            return
        self._post(len(message.payload), self._take, topic, message.payload)

    def _post(self, size: int, what: Callable[..., None], *args: Any) -> None:
        with self._room:
            first = not self._inbox
            self._inbox.append((size, what, args))
            self._inbox_bytes += size
        if first and self._loop is not None:
            with suppress(RuntimeError):  # the loop has closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._next)

    # From here on everything runs in the event loop.

    def _next(self) -> None:
        with self._room:
            size, what, args = self._inbox.popleft()
            self._inbox_bytes -= size
            more = bool(self._inbox)
            self._room.notify()
        if more and self._loop is not None:  # before the call: a callback that raises must not end the chain
            self._loop.call_soon(self._next)
        if not self._closed:
            what(*args)

    def _take(self, topic: str, payload: bytes) -> None:
        self._on_message(topic, payload)

    def _gained(self) -> None:
        self._connected = True
        for pattern, qos in self._patterns.items():
            self._ask_for(pattern, qos)
        if not self._unconfirmed:
            self._settled.set()
        self._tell(True, f"connected to {self._link.endpoint.host}:{self._link.endpoint.port}")

    def _lost(self, reason: str) -> None:
        # A refusal is followed by the disconnect it causes: keep the reason that says more.
        if not self._connected and self._last_state is not None and reason.startswith("the connection to"):
            return
        self._connected = False
        self._unconfirmed.clear()
        self._settled.clear()
        for mid, (qos, _) in list(self._waiting.items()):
            if qos == 0:
                self.drops[LOST] += 1
                self._sent(mid)
        self._tell(False, reason)

    def _tell(self, connected: bool, reason: str) -> None:
        if (connected, reason) != self._last_state:
            self._last_state = (connected, reason)
            self._on_state(connected, reason)

    def _ask_for(self, pattern: str, qos: int) -> None:
        code, mid = self._link.subscribe(pattern, qos)
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
            self._unconfirmed.add(mid)
            self._settled.clear()

    def _confirmed(self, mid: int, refused: bool) -> None:
        self._unconfirmed.discard(mid)
        if refused:
            self.drops[REFUSED] += 1
            log.warning("the broker refused a subscription: check the rights of its user")
        if not self._unconfirmed:
            self._settled.set()

    def _sent(self, mid: int) -> None:
        _, size = self._waiting.pop(mid, (0, 0))
        self._waiting_bytes -= size
        if not self._waiting:
            self._emptied.set()
