"""What a bus is to the node: publish and subscribe on MQTT's terms, whoever carries it.

Payloads are raw bytes: sealing them with the swarm key (wire/envelope.py) is the node's part.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

OnMessage = Callable[[str, bytes], None]
"""Called with (topic, payload) in the event loop's thread."""
OnState = Callable[[bool, str], None]
"""Called with (connected, reason in words) in the event loop's thread, at every change of either."""

KEEPALIVE_S = 15
"""Seconds without traffic after which a client pings; a peer silent for twice this is taken for gone."""
MAX_WAITING = 1024
"""Messages that wait to be sent (or acknowledged, QoS 1) before further ones are dropped and counted."""
MAX_WAITING_BYTES = 16 << 20
"""Bytes that may wait before a further message is dropped; one larger message is taken when less waits."""

NOT_CONNECTED, QUEUE_FULL, LOST, REFUSED = "not connected", "queue full", "connection lost", "refused"


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for a client whose connection breaks."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


class Bus(Protocol):
    """One client of the bus. Every method is called in the event loop's thread and none blocks.

    Overlapping patterns of one client may deliver a message once or once per pattern. QoS 1 is at least once.
    """

    drops: Counter[str]
    """Messages that were not sent, by reason."""

    @property
    def connected(self) -> bool:
        """Whether the broker has taken us; False from the moment the connection is seen to break."""

    async def start(self) -> None:
        """Begin to connect, and to reconnect whenever the connection breaks. `on_state` tells how it goes."""

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Send, or queue for sending. Not connected: QoS 0 is dropped and counted, QoS 1 waits within bounds.

        An empty retained payload clears what is retained. Raises `ValueError` for a topic with wildcards.
        """

    def subscribe(self, pattern: str, qos: int) -> None:
        """Receive what matches from now on, over reconnects. Raises `ValueError` for a bad pattern."""

    def unsubscribe(self, pattern: str) -> None:
        """No longer receive what matches; unknown patterns are ignored."""

    async def settled(self, *, timeout: float = 5.0) -> None:
        """Wait until the broker has confirmed every subscription. Raises `TimeoutError`."""

    async def close(self, *, timeout: float = 2.0) -> None:
        """Send what waits, then disconnect properly (no will), within `timeout` seconds.

        No callback is called after it.
        """
