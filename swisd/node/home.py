"""A device's home folder: everything that lasts lies in it, so several devices can live on one machine.

device.json   who this device is, made once
swarm.key     the swarm key, mode 0600
peers.json    where the host was last
node.json     the running `swisd up`, if any
blobs/        weights, graphs, tokenizers, named by their sha256
models/       which models are known here
sessions/     answers that broke off: what is needed to go on with them, mode 0600
swisd.toml    settings of this device, optional
"""

import os
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

from swisd.core.checked import Items, Malformed, Range, Text, from_json, to_json
from swisd.core.errors import BadInput
from swisd.core.types import DeviceId
from swisd.node.process import alive, birth
from swisd.wire.joincode import KEY_BYTES, key_from_text, key_text
from swisd.wire.topics import swarm_id

T = TypeVar("T")
MAX_FILE = 64 << 10


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device is, for good. `since` (ms since 1970) orders the devices when a host is needed."""

    device: DeviceId
    since: Annotated[int, Range(0, 1 << 62)]


@dataclass(frozen=True, slots=True)
class Running:
    """A running `swisd up` of this home: its process and the bus it is on."""

    pid: Annotated[int, Range(1, 1 << 31)]
    host: Annotated[str, Text(256)]
    port: Annotated[int, Range(0, 65535)]
    lane_port: Annotated[int, Range(0, 65535)]
    broker: Annotated[str, Text(500)] = ""
    address: Annotated[str, Text(64)] = ""  # the only address it listens on, if it was told one
    born: Annotated[str, Text(64)] = ""  # when the process started: ids of processes are used again


@dataclass(frozen=True, slots=True)
class Peers:
    """Addresses where the swarm's host was reached before, latest first."""

    hosts: Annotated[
        tuple[tuple[Annotated[str, Text(256)], Annotated[int, Range(1, 65535)]], ...], Items(16)
    ] = ()


class Home:
    """The folder and its small files. Creating it makes the folder."""

    def __init__(self, path: Path | None = None) -> None:
        chosen = path or Path(os.environ.get("SWISD_HOME") or "~/.swisd")
        try:
            self.path = chosen.expanduser().resolve()
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: ~ of a user that is not there
            raise BadInput(
                f"cannot make the home folder {chosen}: {getattr(error, 'strerror', None) or error}; "
                "choose one with --home"
            ) from None

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def sessions(self) -> Path:
        return self.path / "sessions"

    @property
    def key_file(self) -> Path:
        return self.path / "swarm.key"

    def identity(self) -> Identity:
        """This device's id; made on first use. A damaged file means a new id: the old one is lost."""
        known = self.read("device.json", Identity)
        if known is not None:
            return known
        made = Identity(secrets.token_hex(8), int(time.time() * 1000))
        self.write("device.json", made)
        return self.read("device.json", Identity) or made  # two commands may come first at once

    def key(self) -> bytes | None:
        """The swarm key, or None. Raises `BadInput` for a damaged key file."""
        try:
            return key_from_text(self.key_file.read_text())
        except FileNotFoundError:
            return None
        except BadInput as error:
            raise BadInput(f"{self.key_file} is damaged: {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read the swarm key in {self.key_file}: {error}") from None

    def make_key(self) -> bytes:
        """A new swarm: a new key, only readable by its owner."""
        key = secrets.token_bytes(KEY_BYTES)
        self.set_key(key)
        return key

    def set_key(self, key: bytes) -> None:
        """Keep the key; another swarm's key is kept beside it, in case this was a mistake."""
        before = self.key()
        if before == key:
            return
        if before is not None:
            self.key_file.replace(self.path / f"swarm.key.{swarm_id(before)}")
            (self.path / "peers.json").unlink(missing_ok=True)  # they belong to the other swarm
        self._write_private(self.key_file, key_text(key) + "\n")

    def hosts(self) -> tuple[tuple[str, int], ...]:
        """Where the host was reached before, latest first."""
        known = self.read("peers.json", Peers)
        return known.hosts if known else ()

    def remember_host(self, host: str, port: int) -> None:
        others = [item for item in self.hosts() if item != (host, port)]
        self.write("peers.json", Peers(((host, port), *others[:7])))

    def remember_hosts(self, hosts: Sequence[tuple[str, int]]) -> None:
        """Where the host is, and who could be host after it."""
        known = tuple(dict.fromkeys((*hosts, *self.hosts())))[:8]
        if known != self.hosts():
            self.write("peers.json", Peers(known))

    def running(self) -> Running | None:
        """The `swisd up` that runs in this home now, or None."""
        known = self.read("node.json", Running)
        if known is None or not alive(known.pid):
            return None
        return known if birth(known.pid) in ("", known.born) else None

    def must_be_free(self) -> None:
        """Raises `BadInput` if another process runs `swisd up` in this home."""
        running = self.running()
        if running is not None and running.pid != os.getpid():
            raise BadInput(
                f"`swisd up` runs already in {self.path} (process {running.pid}): "
                "use it, or give this one another folder with --home"
            )

    def set_running(self, running: Running | None) -> None:
        if running is None:
            (self.path / "node.json").unlink(missing_ok=True)
        else:
            self.write("node.json", replace(running, born=birth(running.pid)))

    def read(self, name: str, kind: type[T], limit: int = MAX_FILE) -> T | None:
        """A JSON file of the home, or None if it is missing, damaged or longer than `limit` bytes.

        Raises `BadInput`.
        """
        try:
            with (self.path / name).open("rb") as file:
                return from_json(kind, file.read(limit + 1), limit)
        except (FileNotFoundError, Malformed):
            return None
        except OSError as error:
            raise BadInput(f"cannot read {self.path / name}: {error.strerror}") from None

    def write(self, name: str, value: object) -> None:
        """Write a dataclass as such a file. Raises `BadInput`."""
        self._write_private(self.path / name, to_json(value).decode() + "\n")

    def _write_private(self, path: Path, text: str) -> None:
        """Never half-written, and never readable by others, not even for a moment."""
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(text)
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise BadInput(f"cannot write {path}: {error.strerror}") from None


def default_name() -> str:
    """The device's host name, shortened."""
    return (socket.gethostname().split(".")[0] or "device")[:32]
