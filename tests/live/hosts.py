"""Hosts of our own: network namespaces on one bridge, each with an address, and rules that drop multicast."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field

SUBNET = "10.77.0"


def permitted() -> str:
    """Why namespaces cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    if shutil.which("ip") is None:
        return "the command `ip` (iproute2) is not installed"
    probe = f"swisd-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"this machine does not let us make network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=False)
    return ""


@dataclass
class Hosts:
    """A bridge in a namespace of its own, and hosts on it. `close` removes what was made."""

    tag: str = field(default_factory=lambda: f"sw{os.getpid() % 100000}")
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sh("ip", "netns", "add", self._bridge)
        self._in(self._bridge, "ip", "link", "add", "br0", "type", "bridge")
        self._in(self._bridge, "ip", "link", "set", "br0", "up")

    @property
    def _bridge(self) -> str:
        return f"{self.tag}-bridge"

    def add(self, *, docker: bool = False) -> str:
        """A new host with `eth0`; `docker` gives it a container bridge too, which must never be announced."""
        number = len(self.names) + 1
        name = f"{self.tag}-{number}"
        self._sh("ip", "netns", "add", name)
        self.names.append(name)
        self._in(
            self._bridge,
            "ip",
            "link",
            "add",
            f"p{number}",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            name,
        )
        self._in(self._bridge, "ip", "link", "set", f"p{number}", "master", "br0", "up")
        self._in(name, "ip", "link", "set", "lo", "up")
        self._in(name, "ip", "address", "add", self.address(name) + "/24", "brd", "+", "dev", "eth0")
        self._in(name, "ip", "link", "set", "eth0", "up")
        if docker:
            self._in(name, "ip", "link", "add", "docker0", "type", "bridge")
            self._in(name, "ip", "address", "add", "172.17.0.1/16", "dev", "docker0")
            self._in(name, "ip", "link", "set", "docker0", "up")
        return name

    def address(self, name: str) -> str:
        return f"{SUBNET}.{int(name.rpartition('-')[2]) + 10}"

    def drop_multicast(self, name: str) -> None:
        """As an access point does that filters it: neither multicast nor broadcast arrives."""
        for chain, target in (
            ("INPUT", "224.0.0.0/4"),
            ("INPUT", "255.255.255.255"),
            ("INPUT", f"{SUBNET}.255"),
        ):
            self._in(name, "iptables", "-A", chain, "-d", target, "-j", "DROP")

    def drop_probes(self, name: str) -> None:
        """No datagram reaches swisd's own port: multicast DNS is the only way to be found."""
        self._in(name, "iptables", "-A", "INPUT", "-p", "udp", "--dport", "7947", "-j", "DROP")

    def drop_lanes(self, name: str, other: str) -> None:
        """Cut the direct way between two hosts; both still reach the third."""
        self._in(name, "iptables", "-A", "INPUT", "-s", self.address(other), "-j", "DROP")
        self._in(name, "iptables", "-A", "OUTPUT", "-d", self.address(other), "-j", "DROP")

    def prefix(self, name: str) -> list[str]:
        """What runs a command on a host."""
        return ["ip", "netns", "exec", name]

    def close(self) -> None:
        for name in [*self.names, self._bridge]:
            subprocess.run(["ip", "netns", "del", name], check=False)

    def _in(self, name: str, *command: str) -> None:
        self._sh(*self.prefix(name), *command)

    def _sh(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
