"""Which addresses are announced, on machines nobody has at hand."""

import socket

import pytest

from swisd.net import interfaces
from swisd.net.interfaces import Interface, Raw, local_addresses, usable


def names(*raws: Raw) -> list[str]:
    return [each.name for each in usable(raws)]


def test_a_laptop_with_docker_and_a_virtual_machine():
    found = usable(
        [
            Raw("lo", "127.0.0.1", "255.0.0.0"),
            Raw("docker0", "172.17.0.1", "255.255.0.0"),
            Raw("br-9f3ac01b22de", "172.18.0.1", "255.255.0.0"),
            Raw("veth12ab", "169.254.9.9", "255.255.0.0"),
            Raw("virbr0", "192.168.122.1", "255.255.255.0"),
            Raw("wlp3s0", "192.168.1.20", "255.255.255.0"),
            Raw("enp0s31f6", "10.0.0.5", "255.0.0.0", up=False),
        ]
    )
    assert found == [Interface("wlp3s0", "192.168.1.20", 24, "192.168.1.255")]


@pytest.mark.parametrize(
    "name", ["podman0", "podman1", "cni0", "cni-podman0", "flannel.1", "cali1234", "tun0", "tap1", "utun3",
             "vboxnet0", "vmnet8", "lxcbr0", "lxdbr0", "dummy0", "lo0", "vEthernet (WSL (Hyper-V firewall))"],
)  # fmt: skip
def test_nobody_on_the_network_is_behind(name: str):
    assert names(Raw(name, "10.1.1.1", "255.255.255.0")) == []


@pytest.mark.parametrize(
    "name", ["eth0", "dev0", "en0", "wlan0", "br0", "bridge100", "usb0", "rndis0", "Wi-Fi", "ap0", "bat0",
             "lan", "Ethernet 2", "vEthernet (External)", "enx00e04c", "wg0", "ppp0"],
)  # fmt: skip
def test_others_are_behind(name: str):
    assert names(Raw(name, "10.1.1.1", "255.255.255.0")) == [name]


def test_self_assigned_addresses_come_last():
    assert names(
        Raw("a", "169.254.1.1", "255.255.0.0"),
        Raw("b", "10.0.0.1", "255.255.255.0"),
        Raw("c", "192.168.0.1", "255.255.255.0"),
    ) == ["b", "c", "a"]


def test_odd_lines_do_no_harm():
    assert usable(
        [
            Raw("a", "fe80::1", None),
            Raw("b", "0.0.0.0", None),
            Raw("c", "224.0.0.1", None),
            Raw("d", "10.0.0.1", "255.0.255.0"),
            Raw("e", "", ""),
            Raw("f", "10.0.0.2", None),
            Raw("g", "10.0.0.2", None),
            Raw("wg0", "10.9.0.1", "255.255.255.255"),
        ]
    ) == [Interface("f", "10.0.0.2", 24, "10.0.0.255"), Interface("wg0", "10.9.0.1", 32, None)]


def test_without_psutil_the_routes_tell(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interfaces, "_listed", list)
    monkeypatch.setattr(interfaces, "_guessed", lambda: [Raw("default", "192.168.7.3", None)])
    assert local_addresses() == [Interface("default", "192.168.7.3", 24, "192.168.7.255")]


def test_guessing_contacts_nobody_and_survives_no_network(monkeypatch: pytest.MonkeyPatch):
    for raw in interfaces._guessed():
        socket.inet_aton(raw.address)

    class Offline(socket.socket):
        def connect(self, _address: object) -> None:
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(interfaces.socket, "socket", Offline)
    assert interfaces._guessed() == []


def test_this_machine_has_no_loopback_among_them():
    assert all(not each.address.startswith("127.") for each in local_addresses())
