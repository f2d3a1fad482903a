"""Hosts on an emulated access point: namespaces joined by `switch.py`, each with limits and its own home.

    with Lab(tmp_path, air_rate=30e6) as lab:
        ann = lab.host("ann", cpu=0.5, delay_ms=2.5)
        subprocess.run([*ann.prefix, "ip", "address"])

Everything made is removed by `close`, in reverse order, whatever has failed in between.
"""

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import switch
from tests.lab.limits import Limits, limit
from tests.live import hosts

SUBNET = "10.78.0"
REPLY_S = 20.0
END_S = 5.0
BALLAST = "ballast"
_numbers = itertools.count(1)


def permitted() -> str:
    """Why there can be no lab on this machine; empty if there can."""
    return hosts.permitted() or switch.permitted()


@dataclass
class Host:
    """A namespace with `eth0`. `prefix` before a command runs it there, within the limits."""

    name: str
    namespace: str
    address: str
    home: Path
    own_disk: bool
    made: Limits = field(repr=False)

    @property
    def prefix(self) -> list[str]:
        # Into the groups first, then the namespace; every step execs, so the process keeps its id.
        return [*self.made.prefix, "ip", "netns", "exec", self.namespace]

    @property
    def limits(self) -> str:
        """In words, what is honoured on this machine."""
        return self.made.words


class Lab:
    """An access point (`air_rate` in bit/s) or, without it, a wired switch; and the hosts on it."""

    def __init__(
        self,
        root: Path,
        *,
        air_rate: float | None = None,
        air_overhead_s: float = 0.0,
        multicast: bool = True,
        seed: int = 0,
    ) -> None:
        self.root = root
        self.tag = f"lab{os.getpid()}-{next(_numbers)}"
        self.hosts: dict[str, Host] = {}
        self._undo = contextlib.ExitStack()
        self._pending = b""
        options = ["--seed", str(seed), "--air-overhead", str(air_overhead_s)]
        options += ["--air-rate", str(air_rate)] if air_rate is not None else []
        options += [] if multicast else ["--no-multicast"]
        try:
            # In a namespace of its own: not even by mistake is a TAP device ever up on the real machine.
            self._middle = self._namespace("ether")
            self._switch = subprocess.Popen(
                ["ip", "netns", "exec", self._middle, sys.executable, "-m", "tests.lab.switch", *options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
            )  # fmt: skip
            self._undo.callback(self._end_switch)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def host(
        self,
        name: str,
        *,
        cpu: float | None = None,
        memory: int | None = None,
        disk: int | None = None,
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        loss: float = 0.0,
        rate: float | None = None,
        **link: float,
    ) -> Host:
        """A host with a share of the CPU, bytes of memory, and a home on a disk of `disk` bytes of its own.

        `delay_ms` is the way to the access point: between two hosts, the delays of both. `link` takes the
        other fields of `ether.Link`.
        """
        if name in self.hosts:
            raise ValueError(f"there is a host {name!r} already")
        number = len(self.hosts) + 10
        namespace, address = self._namespace(name), f"{SUBNET}.{number}"
        limits = limit(f"{self.tag}-{name}", cpu, memory)
        self._undo.callback(limits.close)
        self._undo.callback(self._end_processes, namespace)  # a group with processes cannot be removed
        home = self.root / name
        home.mkdir(parents=True, exist_ok=True)
        if disk is not None:
            sh("mount", "-t", "tmpfs", "-o", f"size={disk}", f"{self.tag}-{name}", str(home))
            self._undo.callback(_quietly, "umount", "-l", str(home))
        ends = {"delay_s": delay_ms / 1000, "jitter_s": jitter_ms / 1000, "loss": loss, "rate": rate, **link}
        self._plug(name, namespace, ends)
        for words in (
            ["link", "set", "lo", "up"],
            ["address", "add", f"{address}/24", "brd", "+", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
        ):
            sh("ip", "-n", namespace, *words)
        made = Host(name, namespace, address, home, disk is not None, limits)
        self.hosts[name] = made
        return made

    def _plug(self, name: str, namespace: str, ends: dict[str, Any]) -> None:
        """Give a namespace its `eth0`."""
        device = self.tell({"op": "add", "port": name, "link": ends})["device"]
        sh("ip", "-n", self._middle, "link", "set", device, "netns", namespace, "name", "eth0")

    def link(self, host: Host, **changes: float | None) -> None:
        """Change fields of a host's `ether.Link` while it runs."""
        self.tell({"op": "link", "port": host.name, "link": changes})

    def cut(self, a: Host, b: Host | None = None) -> None:
        """No frame passes between the two, or to and from the one. Nobody is told, as when a radio fades."""
        self.tell({"op": "cut", "a": a.name, "b": b.name if b else None})

    def heal(self, a: Host, b: Host | None = None) -> None:
        self.tell({"op": "heal", "a": a.name, "b": b.name if b else None})

    def multicast(self, on: bool) -> None:
        self.tell({"op": "multicast", "on": on})

    def stats(self) -> dict[str, Any]:
        return self.tell({"op": "stats"})

    def fill_disk(self, host: Host, *, leave: int = 0) -> None:
        """Fill the disk of a host's home but for `leave` bytes."""
        if not host.own_disk:
            raise ValueError(f"{host.name} has no disk of its own; give it one with disk=")
        free = os.statvfs(host.home)
        size = free.f_bavail * free.f_frsize - leave
        if size > 0:
            with (host.home / BALLAST).open("ab") as file:
                os.posix_fallocate(file.fileno(), file.tell(), size)

    def empty_disk(self, host: Host) -> None:
        """Take away what `fill_disk` put there."""
        (host.home / BALLAST).unlink(missing_ok=True)

    def tell(self, order: dict[str, Any]) -> dict[str, Any]:
        """One order to the switch and its answer."""
        assert self._switch.stdin is not None and self._switch.stdout is not None
        self._switch.stdin.write(json.dumps(order).encode() + b"\n")
        self._switch.stdin.flush()
        deadline = time.monotonic() + REPLY_S
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._switch.stdout], [], [], max(0.0, deadline - time.monotonic()))
            came = os.read(self._switch.stdout.fileno(), 65536) if ready else b""
            if not came:
                raise RuntimeError(f"the switch {'ended' if ready else 'is silent'} (asked: {order})")
            self._pending += came
        line, self._pending = self._pending.split(b"\n", 1)
        answer = json.loads(line)
        if not answer.pop("ok"):
            raise ValueError(answer["error"])
        return answer

    def close(self) -> None:
        """Remove all that was made. Again is fine."""
        self._undo.close()

    def _namespace(self, name: str) -> str:
        namespace = f"{self.tag}-{name}"
        sh("ip", "netns", "add", namespace)
        self._undo.callback(_quietly, "ip", "netns", "del", namespace)
        return namespace

    def _end_switch(self) -> None:
        assert self._switch.stdin is not None and self._switch.stdout is not None
        with contextlib.suppress(OSError):
            self._switch.stdin.close()
        try:
            self._switch.wait(END_S)
        except subprocess.TimeoutExpired:
            self._switch.kill()
            self._switch.wait(END_S)
        self._switch.stdout.close()

    @staticmethod
    def _end_processes(namespace: str) -> None:
        """Whatever still runs in a namespace of ours was started for it; it ends with it, frozen or not."""
        found = subprocess.run(
            ["ip", "netns", "pids", namespace], capture_output=True, text=True, timeout=END_S, check=False
        )
        watched = []
        for pid in map(int, found.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                watched.append(os.pidfd_open(pid))
                signal.pidfd_send_signal(watched[-1], signal.SIGKILL)
        for descriptor in watched:
            select.select([descriptor], [], [], END_S)
            os.close(descriptor)


def pause(process: subprocess.Popen[Any]) -> None:
    """Freeze a process: it keeps its sockets and answers nothing, as a phone that sleeps."""
    process.send_signal(signal.SIGSTOP)


def resume(process: subprocess.Popen[Any]) -> None:
    process.send_signal(signal.SIGCONT)


def kill(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait(END_S)


def sh(*command: str) -> None:
    """Run a command; `RuntimeError` with its words if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=REPLY_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _quietly(*command: str) -> None:
    subprocess.run(command, capture_output=True, timeout=REPLY_S, check=False)
