"""The three carriers that must behave alike: memory, the embedded broker behind the listener, Mosquitto."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swisd.bus.api import Will
from swisd.bus.broker import EmbeddedBroker
from swisd.bus.endpoint import SwarmBroker, parse_broker_url
from swisd.bus.memory import MemoryBroker, MemoryBus
from swisd.bus.mqtt import MqttBus
from swisd.net.listener import Listener
from swisd.wire.handshake import Purpose
from swisd.wire.topics import swarm_id

KEY = b"a swarm key 16 b"
SWARM = swarm_id(KEY)
ROOT = f"swisd/1/{SWARM}"
LONG = 20.0
MOSQUITTO = shutil.which(
    "mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin"
)


class Peer:
    """A bus with a memory of what it was told."""

    def __init__(self, make: Callable[..., Any], name: str, will: Will | None) -> None:
        self.name = name
        self.got: list[tuple[str, bytes]] = []
        self.states: list[tuple[bool, str]] = []
        self._news = asyncio.Event()
        self.bus = make(name, self._message, self._state, will)

    def _message(self, topic: str, payload: bytes) -> None:
        self.got.append((topic.removeprefix(ROOT + "/"), payload))
        self._news.set()

    def _state(self, connected: bool, reason: str) -> None:
        self.states.append((connected, reason))
        self._news.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(LONG):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def online(self) -> "Peer":
        await self.until(lambda: self.bus.connected)
        return self

    async def hears(self, *patterns: str, qos: int = 1) -> None:
        for pattern in patterns:
            self.bus.subscribe(f"{ROOT}/{pattern}", qos)
        await self.bus.settled(timeout=LONG)

    def says(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> None:
        self.bus.publish(f"{ROOT}/{topic}", payload, qos, retain)


class World:
    """Makes peers, and breaks things for them."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    async def peer(self, number: int, will: Will | None = None, *, start: bool = True) -> Peer:
        peer = Peer(self.make, f"{number:016x}", will)
        self.peers.append(peer)
        if start:
            await peer.bus.start()
            await peer.online()
        return peer

    def make(self, name: str, on_message: Any, on_state: Any, will: Will | None) -> Any:
        raise NotImplementedError

    def cut(self, peer: Peer) -> None:
        """Break the connection of a peer without a farewell."""
        peer.bus.reconnect()

    async def start(self) -> None: ...

    async def stop_broker(self) -> None: ...

    async def start_broker(self) -> None: ...

    async def close(self) -> None:
        for peer in self.peers:
            await peer.bus.close()
        await self.stop_broker()


class Memory(World):
    def __init__(self) -> None:
        super().__init__()
        self.broker = MemoryBroker()

    def make(self, name: str, on_message: Any, on_state: Any, will: Will | None) -> Any:
        return MemoryBus(self.broker, name, on_message, on_state, will=will)

    def cut(self, peer: Peer) -> None:
        self.broker.cut(peer.name)

    async def stop_broker(self) -> None:
        self.broker.stop()

    async def start_broker(self) -> None:
        self.broker.resume()


class Embedded(World):
    listener: Listener
    broker: EmbeddedBroker
    port = 0

    def make(self, name: str, on_message: Any, on_state: Any, will: Will | None) -> Any:
        where = SwarmBroker("127.0.0.1", self.port, KEY, name)
        return MqttBus(where, name, on_message, on_state, will=will)

    async def start(self) -> None:
        await self.start_broker()

    async def start_broker(self) -> None:
        self.broker = EmbeddedBroker(SWARM)
        await self.broker.start()
        self.listener = await Listener.start("127.0.0.1", self.port, KEY, {Purpose.BUS: self.broker.serve})
        self.port = self.listener.port

    async def stop_broker(self) -> None:
        await self.broker.close()
        await self.listener.close()


class Mosquitto(World):
    """The real broker with a password file, on a free port of the loopback."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.config = folder / "mosquitto.conf"
        passwords = folder / "passwords"
        passwords.touch(mode=0o600)
        subprocess.run(
            ["mosquitto_passwd", "-b", str(passwords), "swisd", "p@ss:/word"], check=True, capture_output=True
        )
        self.config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
            "set_tcp_nodelay true\nuser root\n"
        )

    def url(self, password: str = "p%40ss%3A%2Fword") -> str:
        return f"mqtt://swisd:{password}@127.0.0.1:{self.port}"

    def make(self, name: str, on_message: Any, on_state: Any, will: Will | None) -> Any:
        return MqttBus(parse_broker_url(self.url()), name, on_message, on_state, will=will)

    async def start(self) -> None:
        await self.start_broker()

    async def start_broker(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(  # noqa: ASYNC220 (starting it takes a millisecond)
            [MOSQUITTO, "-c", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await listens(self.port)

    async def stop_broker(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, LONG)
            self._process = None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def listens(port: int) -> None:
    """Wait until something accepts connections on a port of the loopback."""
    end = time.monotonic() + LONG
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
