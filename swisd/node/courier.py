"""Between machine and bus: puts messages on their topics with the proof of the key, checks what comes in."""

import logging
from collections.abc import Callable

from swisd.bus.api import Bus
from swisd.core.checked import Malformed
from swisd.core.errors import SwisdError
from swisd.core.messages import Message
from swisd.wire.envelope import Foreign, open_sealed, seal
from swisd.wire.messages import decode_message, encode_message, topic_of
from swisd.wire.topics import Kind, Topic, parse, pattern, swarm_id

log = logging.getLogger(__name__)
ENVELOPE = 64  # room for version, tag and sender beside the body


class Courier:
    """Speaks for `sender` (16 hex digits) on a bus.

    `on_message(sender, message)` gets control messages, `on_shard(sender, body)` activation frames,
    `on_drop(reason)` the reason of each payload that was refused.
    """

    def __init__(
        self,
        key: bytes,
        sender: str,
        on_message: Callable[[str, Message], None],
        on_drop: Callable[[str], None],
        on_shard: Callable[[str, memoryview], None] | None = None,
    ) -> None:
        self._key, self._sender = key, sender
        self._swarm = swarm_id(key)
        self._on_message, self._on_shard, self._on_drop = on_message, on_shard, on_drop
        self._bus: Bus | None = None

    def attach(self, bus: Bus) -> None:
        self._bus = bus

    def sealed(self, message: Message, to: str = "") -> tuple[str, bytes]:
        """Topic path and payload of a message, as for a will."""
        path = topic_of(message, to).path(self._swarm)
        return path, seal(self._key, path, self._sender, encode_message(message))

    def publish(self, message: Message, to: str = "") -> None:
        """Put a message on its topic; one that is longer than the topic takes is dropped and counted."""
        delivery = topic_of(message, to).kind.delivery
        path, payload = self.sealed(message, to)
        if len(payload) > delivery.limit + ENVELOPE:
            log.error("%d bytes are too much for %s: nobody would read them", len(payload), path)
            self._on_drop("own message too large")
        elif self._bus is not None:
            self._bus.publish(path, payload, delivery.qos, delivery.retain)

    def publish_shard(self, device: str, body: bytes) -> None:
        """An activation frame on the shard topic of a device. Raises `SwisdError` without a bus."""
        if self._bus is None or not self._bus.connected:
            raise SwisdError("the bus is not connected")
        path = Topic(Kind.SHARD, device).path(self._swarm)
        delivery = Kind.SHARD.delivery
        self._bus.publish(path, seal(self._key, path, self._sender, body), delivery.qos, delivery.retain)

    def subscribe(self, kind: Kind, ident: str | None = None) -> None:
        """All topics of a kind, or the one of a device or session."""
        if self._bus is not None:
            self._bus.subscribe(self._pattern(kind, ident), kind.delivery.qos)

    def unsubscribe(self, kind: Kind, ident: str | None = None) -> None:
        if self._bus is not None:
            self._bus.unsubscribe(self._pattern(kind, ident))

    def _pattern(self, kind: Kind, ident: str | None) -> str:
        return pattern(kind, self._swarm) if ident is None else Topic(kind, ident).path(self._swarm)

    def receive(self, path: str, payload: bytes) -> None:
        """Check one payload of the bus and hand it on."""
        topic = parse(path, self._swarm)
        if topic is None:
            self._on_drop("unknown topic")
            return
        if not payload and topic.kind.delivery.retain:
            return  # somebody cleared what was retained
        try:
            opened = open_sealed(self._key, path, payload, topic.kind.delivery.limit + ENVELOPE)
            if topic.kind is Kind.SHARD:
                if self._on_shard is not None:
                    self._on_shard(opened.sender, opened.body)
                return
            message = decode_message(topic.kind, opened.body)
            expected = topic_of(message, topic.ident)
        except Foreign:
            self._on_drop("foreign message")
        except (Malformed, ValueError) as error:
            log.debug("malformed message on %s: %s", path, error)
            self._on_drop("malformed message")
        else:
            if expected != topic:
                self._on_drop("message on another's topic")
                return
            self._on_message(opened.sender, message)
