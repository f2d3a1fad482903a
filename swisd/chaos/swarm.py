"""A swarm of real processes on loopback, with an asker's home beside it that outlives every device."""

import os
import secrets
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from swisd.chaos.device import DeviceProcess, Line
from swisd.core.errors import BadInput, SessionFailed
from swisd.core.model import SHA256, Manifest
from swisd.node.home import Home, Identity, Peers
from swisd.store.disk import BlobStore
from swisd.store.models import ModelIndex
from swisd.wire.joincode import JoinCode, parse_join_code

NAMES = (
    "ann", "bob", "cyd", "dan", "eve", "fay", "gus", "hal",
    "ida", "jim", "kit", "leo", "mia", "ned", "oda", "pat",
)  # fmt: skip
START_S = 60.0
PLAN_S = 180.0
LOOPBACK = "127.0.0.1"
# Below the ports that systems give to outgoing connections: a device that returns finds its own free.
PORTS = range(21000, 29000)


class LocalSwarm:
    """`count` devices, all with the model on disk by links; use as a context manager.

    `offers` are the bytes that they offer (default: 1 GiB each), `threads` those of each, `homes[0]` the home
    of the first host, `asker` a home with key, model and all addresses that runs no device. Raises
    `SessionFailed` if the devices do not come up.
    """

    def __init__(
        self, root: Path, model_home: Path, count: int, *, model: str = "",
        offers: Sequence[int] = (), lane: str = "auto", objective: str = "", speculation: bool = True,
        threads: int = 1,
    ) -> None:  # fmt: skip
        if not 1 <= count <= len(NAMES):
            raise BadInput(f"{count} devices: choose 1 to {len(NAMES)}")
        self.names = NAMES[:count]
        self.homes = [root / name for name in self.names]
        self.asker = root / "asker"
        self._root, self._model_home = root, model_home
        self._offers = dict(zip(self.names, offers or [1 << 30] * count, strict=True))
        self._settings = f'[swarm]\nlane = "{lane}"\nmulticast = false\n'
        self._settings += f"[device]\nspeculation = {str(speculation).lower()}\n"
        self._wishes = ["--threads", str(threads), *_given("--model", model)]
        self._wishes += _given("--objective", objective)
        self._devices: dict[str, DeviceProcess] = {}
        self._before: list[Line] = []  # what devices said in their former lives
        self._ports = dict(zip(self.names, _free_ports(count), strict=True))
        self._code: JoinCode | None = None

    def __enter__(self) -> "LocalSwarm":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for device in reversed(self._devices.values()):
            device.ask_to_end()
        for device in self._devices.values():
            device.wait_end()

    def start(self) -> None:
        """Start all devices as a new swarm, the first one as its host, and the asker's home."""
        for home in (*self.homes, self.asker):
            home.mkdir(parents=True, exist_ok=True)
            (home / "swisd.toml").write_text(self._settings)
            for path in (*home.glob("swarm.key*"), home / "peers.json"):
                path.unlink(missing_ok=True)  # of an earlier swarm in this folder
            link_model(self._model_home, home)
        since = int(time.time() * 1000)
        for number, home in enumerate(self.homes):
            # In line for the host's place in the order of their names.
            Home(home).write("device.json", Identity(secrets.token_hex(8), since + number))
        self._code = None
        first, *others = self.names
        self._launch(first)
        code = self._devices[first].wait_for("join code: ", START_S).partition("join code: ")[2]
        self._code = parse_join_code(code)
        for name in others:
            self._launch(name)
        for name in others:
            self._devices[name].wait_for("join code: ", START_S)
        asker = Home(self.asker)
        asker.set_key(self._code.key)
        self.remember(self.names)

    def start_anew(self) -> None:
        """End every device and form a new swarm of all: what helps when nothing else does."""
        self.__exit__()
        self.start()

    def remember(self, names: Sequence[str]) -> None:
        """Tell the asker where to look for the host, the likeliest first."""
        order = dict.fromkeys((*names, *self.names))
        hosts = tuple((LOOPBACK, self._ports[name]) for name in order)
        Home(self.asker).write("peers.json", Peers(hosts[:16]))

    def wait_plan(self) -> None:
        """Wait until the first host has a plan over all devices in force. Raises `SessionFailed`."""
        host = self._devices[self.names[0]]
        deadline = time.monotonic() + PLAN_S
        text = host.wait_for(f": {len(self.names)} device(s)", PLAN_S)
        epoch = text.partition("plan ")[2].partition(" ")[0]
        host.wait_for(f"plan {epoch} is in force", max(deadline - time.monotonic(), 0.0))

    def send(self, name: str, number: int) -> None:
        """Send a signal to a device."""
        self._devices[name].send(number)

    def wait_end(self, name: str) -> None:
        """Wait for the end of a device that was told to end; after a deadline it is killed."""
        self._devices[name].wait_end()

    def manifest(self, model_id: str) -> Manifest:
        """The manifest of a model that the swarm runs. Raises `ModelError`."""
        return ModelIndex(self.asker / "models", BlobStore(self.asker / "blobs")).manifest(model_id)

    def start_again(self, name: str, host: str) -> None:
        """Start a device that has ended; `host` is the name of the device that leads now."""
        assert self._code is not None
        self._code = JoinCode(self._code.key, LOOPBACK, self._ports[host])
        self._launch(name)

    def pids(self) -> dict[str, int]:
        """The process of each device, by name."""
        return {name: device.pid for name, device in self._devices.items()}

    def ended(self) -> list[str]:
        """Devices whose process has ended."""
        return [name for name, device in self._devices.items() if not device.running]

    def lines(self, since: float) -> list[Line]:
        """What all devices said from a moment on, in the order in which it was heard."""
        said = [*self._before, *(line for device in self._devices.values() for line in list(device.lines))]
        return sorted((line for line in said if line.at >= since), key=lambda line: line.at)

    def forget_lines(self) -> None:
        """Drop what the former lives of devices said: a long campaign does not need it."""
        self._before.clear()

    def _launch(self, name: str) -> None:
        former = self._devices.get(name)
        if former is not None:
            if former.running:
                raise SessionFailed(f"{name} is still running")
            self._before.extend(former.lines)
        join = ["--join", str(self._code)] if self._code is not None else []
        offer, port = f"{self._offers[name]}B", str(self._ports[name])
        arguments = ["--memory", offer, "--port", port, *self._wishes, *join]
        self._devices[name] = DeviceProcess(name, self._root / name, arguments)


def link_model(source: Path, home: Path) -> None:
    """The models of one home in another: by hard links, or copied where the file system has none."""
    for folder in ("blobs", "models"):
        (home / folder).mkdir(parents=True, exist_ok=True)
        for path in (source / folder).iterdir():
            target = home / folder / path.name
            # Half a download is no blob yet: its file would grow in both homes.
            if target.exists() or not (SHA256.fullmatch(path.name) or path.suffix == ".json"):
                continue
            try:
                os.link(path, target)
            except OSError:  # another file system
                shutil.copyfile(path, target)


def _given(option: str, value: str) -> list[str]:
    return [option, value] if value else []


def _free_ports(count: int) -> list[int]:
    """Free TCP ports, starting at a place that other swarms of this machine hardly start at."""
    found: list[int] = []
    first = os.getpid() * 37 % len(PORTS)
    for step in range(len(PORTS)):
        port = PORTS[(first + step) % len(PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SessionFailed(f"this machine has no {count} free ports between {PORTS.start} and {PORTS.stop}")
