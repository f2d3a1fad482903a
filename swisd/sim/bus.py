"""Brokers and connections of a simulated swarm.

A device's broker is reached while the device is up, not frozen and not cut off; what it retains dies with it.
The bus "" is an external broker, which never fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swisd.core import deadlines
from swisd.core.messages import Message
from swisd.wire.messages import decode_message
from swisd.wire.topics import Kind, Topic

if TYPE_CHECKING:
    from swisd.sim.world import World

EXTERNAL = ""
BREAK_S = 0.02  # until the other end of a broken connection knows
RETRY_S = 0.2
OPEN_S = 0.01


@dataclass(slots=True)
class Broker:
    """What one broker keeps, and what waits while its process is stopped."""

    retained: dict[Topic, tuple[str, bytes]] = field(default_factory=dict)
    waiting: list[Callable[[], None]] = field(default_factory=list)


@dataclass(slots=True)
class Client:
    """One bus client: a device's or an asker's. `number` tells its connections apart."""

    wants: str | None  # whose broker it connects to; None: whichever it finds
    lives: Callable[[], bool]
    gained: Callable[[Broker], None]
    lost: Callable[[str], None]
    number: int = 0
    connected: bool = False
    trying: int = 0


class Buses:
    """All brokers and clients of a world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.brokers: dict[str, Broker] = {EXTERNAL: Broker()}
        self.clients: dict[str, Client] = {}

    def open(self, ident: str) -> None:
        """A device's broker begins."""
        self.brokers.setdefault(ident, Broker())

    def close(self, ident: str) -> None:
        """It ends, and with it its connections."""
        if self.brokers.pop(ident, None) is not None:
            self.break_off(lambda client: client.wants == ident)

    def of(self, name: str) -> str | None:
        """Whose broker a client is connected to."""
        client = self.clients.get(name)
        return client.wants if client is not None and client.connected else None

    def move(self, name: str, to: str | None) -> None:
        """Connect to another broker instead."""
        client = self.clients[name]
        was = client.connected
        client.wants, client.connected = to, False
        client.number += 1
        if was:
            client.lost("moved")
        self._try_soon(name, OPEN_S)

    def join(self, name: str, client: Client, after: float) -> None:
        """A new client, or one that began anew."""
        self.clients[name] = client
        self._try_soon(name, after)

    def join_now(self, name: str, client: Client) -> None:
        """A new client that has its connection at once, if any broker answers."""
        self.clients[name] = client
        self._try(name, client, client.trying)

    def break_off(self, which: Callable[[Client], bool], why: str = "the connection broke") -> None:
        """Connections break; each client hears of it in a moment, and tries again."""
        for name, client in self.clients.items():
            if client.connected and which(client):
                self._break(name, client, why)

    def check(self) -> None:
        """Break the connections whose ends no longer reach each other."""
        for name, client in self.clients.items():
            if client.connected and not self._way(name, client.wants or EXTERNAL):
                self._break(name, client, "no route")

    def found(self, name: str) -> str | None:
        """A broker that a search would find: one with a host, the first by id."""
        reached = [ident for ident in sorted(self.brokers) if ident and self._answers(name, ident)]
        return reached[0] if reached else None

    def _break(self, name: str, client: Client, why: str) -> None:
        client.connected = False
        client.number += 1
        number = client.number

        def tell() -> None:
            if client.number == number and self.clients.get(name) is client:
                client.lost(why)
                self._try_soon(name, RETRY_S)

        self._world._later(BREAK_S, tell)

    def _try_soon(self, name: str, delay: float) -> None:
        client = self.clients[name]
        client.trying += 1
        token = client.trying
        self._world._later(delay, lambda: self._try(name, client, token))

    def _try(self, name: str, client: Client, token: int) -> None:
        if self.clients.get(name) is not client or client.trying != token or client.connected:
            return
        if not client.lives():
            return
        target = client.wants if client.wants is not None else self.found(name)
        if target is not None and self._answers(name, target):
            client.wants, client.connected = target, True
            client.number += 1
            client.gained(self.brokers[target])
            return
        silent = target is not None and self._frozen(target)
        self._try_soon(name, deadlines.DIAL if silent else RETRY_S)

    def _answers(self, name: str, ident: str) -> bool:
        return ident in self.brokers and self._way(name, ident) and not self._frozen(ident)

    def _way(self, name: str, ident: str) -> bool:
        if name == ident:
            return True
        if ident == EXTERNAL:
            return name not in self._world.devices or self._world.devices[name].online
        if name in self._world.devices:
            return self._world.meets(name, ident)
        device = self._world.devices[ident]  # askers stay with those that a partition does not name
        return device.alive and device.online and device.side == 0

    def _frozen(self, ident: str) -> bool:
        device = self._world.devices.get(ident)
        return device is not None and device.frozen is not None


def kept_by(broker: Broker) -> list[tuple[str, Message]]:
    """What a newcomer hears at once."""
    kept = sorted(broker.retained.items(), key=lambda item: item[0].kind.value)
    return [
        (sender, decode_message(topic.kind, body))
        for topic, (sender, body) in kept
        if topic.kind in (Kind.PLAN, Kind.SWARM)
    ]
