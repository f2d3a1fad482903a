"""A userspace switch over TAP devices: real frames from namespaces through `ether.py` and back.

    python -m tests.lab.switch --air-rate 30e6 --seed 1

It is told what to do by JSON lines on its standard input and answers each with one line on standard output.
It ends with its input, so it cannot outlive whoever started it; its TAP devices go with it.

    {"op": "add", "port": "a", "link": {"delay_s": 0.005}}   -> {"ok": true, "device": "tap1"}
    {"op": "link", "port": "a", "link": {"loss": 0.1}}       changes only what it names
    {"op": "cut" | "heal", "a": "a", "b": "b"}               without "b": the whole port
    {"op": "multicast", "on": false}
    {"op": "stats"}                                          -> {"ok": true, "ports": {...}}
"""

import argparse
import dataclasses
import fcntl
import heapq
import itertools
import json
import os
import select
import stat
import struct
import sys
import time
from pathlib import Path
from typing import Any

from tests.lab.ether import Delivery, Ether, Link

TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_LONGEST = 65536
_BURST = 64  # frames taken from one port before the others and the timers have their turn


def permitted() -> str:
    """Why TAP devices cannot be made here; empty if they can."""
    try:
        os.close(open_tap(f"swlab{os.getpid() % 100000}"))
    except OSError as problem:
        return f"this machine does not let us make TAP devices: {problem}"
    return ""


def open_tap(name: str) -> int:
    """A TAP device of this name in the present namespace; it lives as long as the descriptor."""
    if not TUN.exists():
        TUN.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(TUN, 0o600 | stat.S_IFCHR, os.makedev(10, 200))
    tap = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError:
        os.close(tap)
        raise
    return tap


class Switch:
    """TAP devices, a heap of deliveries to come, and one loop for both."""

    def __init__(self, ether: Ether) -> None:
        self.ether = ether
        self._taps: dict[str, int] = {}
        self._ports: dict[int, str] = {}
        self._heap: list[tuple[float, int, str, bytes]] = []
        self._number = itertools.count(1)
        self._late = 0.0  # the worst delay of this process itself; a measurement is no better than that
        self._unwritten = 0

    def run(self, orders: int, answers: int) -> None:
        """Until the orders end. Both are descriptors."""
        pending = b""
        while True:
            # select, not epoll: its timeout is exact to the microsecond, epoll's to the millisecond.
            ready, _, _ = select.select([orders, *self._ports], [], [], self._pause())
            for descriptor in ready:
                if descriptor == orders:
                    came = os.read(orders, 65536)
                    if not came:
                        return
                    *lines, pending = (pending + came).split(b"\n")
                    for line in lines:
                        answer = json.dumps(self.obey(line)).encode() + b"\n"
                        os.write(answers, answer)
                elif descriptor in self._ports:
                    self._read(descriptor)
            self._deliver_due()

    def obey(self, line: bytes) -> dict[str, Any]:
        """One order; a bad one is answered, not fatal."""
        try:
            order = json.loads(line)
            return {"ok": True, **self._obey(order)}
        except (ValueError, TypeError, KeyError, OSError) as problem:
            return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        match order["op"]:
            case "add":
                return {"device": self._add(order["port"], Link(**order.get("link", {})))}
            case "link":
                old = self.ether.links[order["port"]]
                self.ether.set_link(order["port"], dataclasses.replace(old, **order["link"]))
            case "cut":
                self.ether.cut(order["a"], order.get("b"))
            case "heal":
                self.ether.heal(order["a"], order.get("b"))
            case "multicast":
                self.ether.multicast = bool(order["on"])
            case "stats":
                counts = {port: dict(each) for port, each in self.ether.counts.items()}
                return {
                    "ports": counts,
                    "air_s": self.ether.air_s,
                    "late_s": self._late,
                    "unwritten": self._unwritten,
                }
            case unknown:
                raise ValueError(f"no order {unknown!r}")
        return {}

    def _add(self, port: str, link: Link) -> str:
        device = f"tap{next(self._number)}"
        tap = open_tap(device)
        try:
            self.ether.add(port, link)
        except ValueError:
            os.close(tap)
            raise
        self._taps[port], self._ports[tap] = tap, port
        return device

    def _pause(self) -> float | None:
        times = [
            at for at in (self.ether.next_at, self._heap[0][0] if self._heap else None) if at is not None
        ]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _read(self, tap: int) -> None:
        port = self._ports[tap]
        for _ in range(_BURST):
            try:
                frame = os.read(tap, _LONGEST)
            except BlockingIOError:
                return
            except OSError:  # its namespace is gone, and the device with it
                os.close(tap)
                del self._ports[tap], self._taps[port]
                return
            self._later(self.ether.push(port, frame, time.monotonic()))

    def _later(self, deliveries: list[Delivery]) -> None:
        for each in deliveries:
            heapq.heappush(self._heap, (each.at, next(self._number), each.port, each.frame))

    def _deliver_due(self) -> None:
        now = time.monotonic()
        self._later(self.ether.advance(now))
        while self._heap and self._heap[0][0] <= now:
            at, _, port, frame = heapq.heappop(self._heap)
            self._late = max(self._late, now - at)
            tap = self._taps.get(port)
            try:
                if tap is not None:
                    os.write(tap, frame)
            except OSError:  # the interface is down or its buffer full: as on the air, the frame is lost
                self._unwritten += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="a userspace switch over TAP devices")
    parser.add_argument("--air-rate", type=float, default=None, help="bit/s that all stations share")
    parser.add_argument("--air-overhead", type=float, default=0.0, help="seconds of air lost with each frame")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-multicast", action="store_true", help="filter group frames, all but ARP")
    given = parser.parse_args()
    ether = Ether(
        air_rate=given.air_rate, air_overhead_s=given.air_overhead, seed=given.seed,
        multicast=not given.no_multicast,
    )  # fmt: skip
    Switch(ether).run(sys.stdin.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main()
