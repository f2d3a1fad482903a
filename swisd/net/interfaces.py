"""Which addresses of this device other devices on the local network can reach.

Tools of this kind fail silently where they announce docker0 or a dead interface; so the choice is a pure
function, and what it leaves out is named in one place.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

# Bridges and pairs of containers and virtual machines, and tunnels: no neighbour is behind them.
_NOT_OURS = re.compile(
    r"(lo|lo0|dummy|docker|veth|br-|virbr|vmnet|vboxnet|podman|cni|flannel|cali|lxcbr|lxdbr|tun|tap|utun)\d*"
    r"|(docker|veth|br-|virbr|podman|cni|cali|flannel|vboxnet|vmnet).*"
    r"|Loopback Pseudo-Interface.*|vEthernet \((WSL|Default Switch|DockerNAT).*"
)
# Never contacted: connecting a UDP socket only makes the system choose a source address. The first finds the
# default route, the others networks without one.
_TOWARDS = ("192.0.2.1", "192.168.255.254", "10.255.255.254", "172.31.255.254")


@dataclass(frozen=True, slots=True)
class Interface:
    """One IPv4 address of this device, with the length of its network's prefix in bits."""

    name: str
    address: str
    prefix: int
    broadcast: str | None

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network((self.address, self.prefix), strict=False)


@dataclass(frozen=True, slots=True)
class Raw:
    """An address as the system lists it."""

    name: str
    address: str
    netmask: str | None
    up: bool = True


def local_addresses() -> list[Interface]:
    """The addresses to announce and to search from, the most likely first; empty without a network."""
    return usable(_listed() or _guessed())


def usable(listed: Iterable[Raw]) -> list[Interface]:
    """Of all listed addresses those another device may reach, self-assigned ones (169.254) last."""
    found: dict[str, Interface] = {}
    for raw in listed:
        try:
            address = ipaddress.IPv4Address(raw.address)
            network = ipaddress.IPv4Network((raw.address, raw.netmask or "255.255.255.0"), strict=False)
        except ValueError:
            continue  # IPv6, or a system that lists what is no address
        if not raw.up or _NOT_OURS.fullmatch(raw.name) or address.is_loopback or address.is_multicast:
            continue
        if address.is_unspecified:
            continue
        broadcast = str(network.broadcast_address) if network.prefixlen < 31 else None
        found.setdefault(raw.address, Interface(raw.name, raw.address, network.prefixlen, broadcast))
    return sorted(found.values(), key=lambda each: ipaddress.IPv4Address(each.address).is_link_local)


def _listed() -> list[Raw]:
    """All IPv4 addresses by psutil; empty where it is missing or not allowed to look (Android)."""
    try:
        import psutil

        up = {name: stats.isup for name, stats in psutil.net_if_stats().items()}
        addresses = psutil.net_if_addrs()
    except (ImportError, OSError, RuntimeError):
        return []
    return [
        Raw(name, entry.address, entry.netmask, up.get(name, True))
        for name, entries in addresses.items()
        for entry in entries
        if entry.family == socket.AF_INET
    ]


def _guessed() -> list[Raw]:
    """Source addresses the system would choose towards usual networks; their prefix is taken to be 24."""
    found = []
    for target in _TOWARDS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))
            except OSError:
                continue  # no route there
            found.append(Raw("default", probe.getsockname()[0], None))
    return found
