"""The switch with real kernels at both ends: what is configured is what sockets see, within wide bounds."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import BALLAST, Host, Lab, pause, permitted

REASON = permitted()
pytestmark = [
    pytest.mark.live,
    pytest.mark.netns,
    pytest.mark.timeout(60),
    pytest.mark.skipif(bool(REASON), reason=REASON),
]

# What runs on the hosts. Each says a line when it is ready, so nobody has to wait by the clock.
UDP_ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9000))
if len(sys.argv) > 1:
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                 socket.inet_aton("239.1.2.3") + socket.inet_aton(sys.argv[1]))
print("ready", flush=True)
while True:
    data, who = s.recvfrom(2000)
    s.sendto(data, who)
"""
UDP_ASK = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[2]))
s.settimeout(float(sys.argv[3]))
best = float("inf")
for number in range(int(sys.argv[4])):
    at = time.monotonic()
    s.sendto(b"%d" % number, (sys.argv[1], 9000))
    try:
        while s.recv(2000) != b"%d" % number:
            pass
    except TimeoutError:
        continue
    best = min(best, time.monotonic() - at)
print(best)
"""
TCP_SINK = """
import socket
s = socket.create_server(("", 9001))
print("ready", flush=True)
while True:
    c, _ = s.accept()
    while c.recv(65536):
        pass
    c.sendall(b"!")
    c.close()
"""
TCP_SEND = """
import socket, sys, time
c = socket.create_connection((sys.argv[1], 9001), 10)
at = time.monotonic()
c.sendall(bytes(int(sys.argv[2])))
c.shutdown(socket.SHUT_WR)
c.recv(1)
print(time.monotonic() - at)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, seed=1) as made:
        yield made


def start(host: Host, program: str, *arguments: str) -> "subprocess.Popen[str]":
    """A server on a host, once it is ready. The lab ends it."""
    process = subprocess.Popen(
        [*host.prefix, sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


def run(host: Host, program: str, *arguments: str) -> float:
    command = [*host.prefix, sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def round_trip(host: Host, to: str, *, within: float = 1.0, times: int = 3) -> float:
    """The best of some round trips in seconds; infinite if none came back."""
    return run(host, UDP_ASK, to, host.address, str(within), str(times))


def test_a_round_trip_takes_both_delays_twice(lab: Lab) -> None:
    a, b = lab.host("a", delay_ms=10), lab.host("b", delay_ms=15)
    start(b, UDP_ECHO)
    assert 0.050 <= round_trip(a, b.address) < 0.150
    lab.link(b, delay_s=0.065)
    assert 0.150 <= round_trip(a, b.address) < 0.250


@pytest.mark.parametrize(("options", "link", "mbit"), [({"air_rate": 16e6}, {}, 8), ({}, {"rate": 8e6}, 8)])
def test_a_stream_gets_the_configured_rate_and_half_of_the_air(
    options: dict[str, float], link: dict[str, float], mbit: float, tmp_path: Path
) -> None:
    with Lab(tmp_path, **options) as lab:
        a, b = lab.host("a", **link), lab.host("b", **link)
        start(b, TCP_SINK)
        size = 1_500_000
        took = run(a, TCP_SEND, b.address, str(size))
        assert mbit / 3 < size * 8 / took / 1e6 <= mbit


def test_a_cut_stops_a_pair_and_only_it_and_heals(lab: Lab) -> None:
    a, b, c = (lab.host(name, delay_ms=1) for name in "abc")
    for host in (b, c):
        start(host, UDP_ECHO)
    assert round_trip(a, b.address) < 0.1
    lab.cut(a, b)
    assert round_trip(a, b.address, within=0.2) == float("inf")
    assert round_trip(a, c.address) < 0.1
    assert round_trip(c, b.address) < 0.1
    lab.heal(b, a)
    assert round_trip(a, b.address, times=5) < 0.1
    lab.cut(a)
    assert round_trip(a, c.address, within=0.2) == float("inf")
    assert lab.stats()["ports"]["a"]["cut"] > 0
    lab.heal(a)
    assert round_trip(a, c.address, times=5) < 0.1


def test_filtered_multicast_does_not_arrive_and_addresses_are_still_found(lab: Lab) -> None:
    a, b, c = (lab.host(name) for name in "abc")
    for host in (b, c):
        start(host, UDP_ECHO, host.address)
    groups = ("239.1.2.3", "10.78.0.255", "255.255.255.255")
    for group in groups[:2]:
        assert round_trip(a, group) < 0.1, group
    lab.multicast(False)
    for group in groups[:2]:
        assert round_trip(a, group, within=0.2) == float("inf"), group
    assert round_trip(a, c.address) < 0.1  # ARP had to pass for this
    assert lab.stats()["ports"]["a"]["filtered"] > 0


def test_the_switch_outlives_hosts_that_do_not_answer_and_orders_that_cannot_be(lab: Lab) -> None:
    a, b, c = (lab.host(name) for name in "abc")
    echo = start(b, UDP_ECHO)
    start(c, UDP_ECHO)
    pause(echo)
    assert round_trip(a, b.address, within=0.2) == float("inf")
    lab.link(b, loss=1.0)
    assert round_trip(a, b.address, within=0.2, times=1) == float("inf")
    assert round_trip(a, c.address) < 0.1
    with pytest.raises(ValueError, match="not a probability"):
        lab.link(b, loss=2.0)
    with pytest.raises(ValueError, match="no order"):
        lab.tell({"op": "explode"})
    assert round_trip(a, c.address) < 0.1


def test_a_share_of_the_cpu_is_honoured_or_said_not_to_be(lab: Lab) -> None:
    work = "import time; a = time.process_time(), time.monotonic()\nfor _ in range(6_000_000): pass\n"
    work += "print((time.process_time() - a[0]) / (time.monotonic() - a[1]))"
    slow = lab.host("slow", cpu=0.25)
    share = run(slow, work)
    if "cgroup" in slow.limits:
        assert share < 0.4
    else:
        assert "not" in slow.limits
    assert lab.host("free").limits == "no limits"


def test_memory_above_the_limit_is_refused(lab: Lab) -> None:
    small = lab.host("small", memory=64 << 20)
    command = [*small.prefix, sys.executable, "-c", "x = b'x' * (%d << 20)"]
    for size, fails in ((16, False), (200, True)):
        words = [*command[:-1], command[-1] % size]
        done = subprocess.run(words, capture_output=True, timeout=20, check=False)
        assert (done.returncode != 0) is fails, (small.limits, done.stderr)


def test_a_disk_of_ones_own_can_be_filled_and_emptied(lab: Lab, tmp_path: Path) -> None:
    host = lab.host("a", disk=4 << 20)
    lab.fill_disk(host)
    with pytest.raises(OSError, match="No space"):
        (host.home / "more").write_bytes(bytes(8192))
    lab.empty_disk(host)
    (host.home / "more").write_bytes(bytes(8192))
    lab.fill_disk(host, leave=1 << 20)
    assert (host.home / BALLAST).stat().st_size < 3 << 20
    with pytest.raises(ValueError, match="disk="):
        lab.fill_disk(lab.host("b"))


def test_nothing_is_left_of_a_lab_even_after_a_failure(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    host = lab.host("a", cpu=0.5, memory=64 << 20, disk=1 << 20)
    groups = list(host.made.groups)
    echo = start(host, UDP_ECHO)
    pause(echo)  # a frozen process does not keep anything alive
    with pytest.raises(ValueError, match="already"):
        lab.host("a")
    with pytest.raises((ValueError, TypeError)):
        lab.host("b", nonsense=1.0)
    for _ in range(2):
        lab.close()
    assert echo.wait(5) != 0
    assert lab.tag not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert not any(group.exists() for group in groups)
    with pytest.raises((ValueError, OSError, RuntimeError)):
        lab.stats()
