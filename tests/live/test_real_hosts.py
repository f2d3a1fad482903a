"""Each device on a host of its own: discovery with and without multicast, lanes that are cut."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from swisd.wire.joincode import JoinCode, parse_join_code
from tests.live.hosts import Hosts, permitted
from tests.live.swarm import DeviceProcess, give_model, run

REASON = permitted()
pytestmark = [
    pytest.mark.live, pytest.mark.model, pytest.mark.netns, pytest.mark.timeout(240),
    pytest.mark.skipif(bool(REASON), reason=REASON),
]  # fmt: skip


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    yield made
    made.close()


class Lab:
    """Devices on hosts; those after the first know the key and no address."""

    def __init__(self, hosts: Hosts, root: Path, model_home: Path) -> None:
        self.hosts, self.root, self.model_home = hosts, root, model_home
        self.devices: list[DeviceProcess] = []
        self.key = b""

    def start(
        self, *arguments: str, settings: str = "", only_multicast: bool = False, **host: bool
    ) -> DeviceProcess:
        name = self.hosts.add(**host)
        home = self.root / name
        home.mkdir()
        if only_multicast:
            self.hosts.drop_probes(name)
        if settings:
            (home / "swisd.toml").write_text(settings)
        options = ["--threads", "1", *arguments]
        if self.devices:
            options += ["--join", str(JoinCode(self.key))]
        else:
            give_model(self.model_home, home)
        device = DeviceProcess(name, home, options, self.hosts.prefix(name))
        self.devices.append(device)
        if not self.key:
            code = parse_join_code(device.wait_for(r"join code: (swisd://\S+)")[1])
            assert code.host == self.hosts.address(name)
            self.key = code.key
        return device

    def ask(self, device: DeviceProcess, *options: str) -> dict:
        done = run(
            ["ask", "Name three colours.", "--temperature", "0", "--max-tokens", "24", "--json", "--home",
             str(device.home), *options],
            prefix=self.hosts.prefix(device.name),
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    def close(self) -> None:
        for device in reversed(self.devices):
            device.stop()


@pytest.fixture
def lab(hosts: Hosts, tmp_path: Path, model_home: Path) -> Iterator[Lab]:
    made = Lab(hosts, tmp_path, model_home)
    yield made
    made.close()


@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed")
def test_devices_find_each_other_by_multicast_and_answer(lab: Lab) -> None:
    """Three hosts, 64 MiB each, the model on one; no docker bridge is mistaken for a network."""
    first = lab.start("--memory", "64MiB", docker=True, only_multicast=True)
    for _ in range(2):
        device = lab.start("--memory", "64MiB", docker=True, only_multicast=True)
        assert "multicast" in device.wait_for(r"found by (.*)")[1]
    first.wait_for("is in force")
    answer = lab.ask(lab.devices[-1])
    assert len({shard["device"] for shard in answer["plan"]["shards"]}) == 3
    assert len(answer["token_ids"]) == 24 or answer["finish_reason"] == "stop"
    status = json.loads(
        run(["status", "--json", "--home", str(first.home)], prefix=lab.hosts.prefix(first.name)).stdout
    )
    for member in status["swarm"]["members"]:
        assert len(member["addresses"]) == 1
        assert member["addresses"][0].startswith("10.77.0.")


@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed")
def test_devices_find_each_other_where_multicast_and_broadcast_are_dropped(lab: Lab) -> None:
    """A phone asks each address of its network; the host answers to it alone."""
    first = lab.start("--memory", "100MiB")
    lab.hosts.drop_multicast(first.name)
    lab.hosts.add()  # an address in between where nobody listens
    second = lab.start("--memory", "100MiB", settings="[swarm]\nfind_seconds = 10.0\n")
    assert "multicast" not in second.wait_for(r"found by (.*)")[1]
    first.wait_for("is in force")
    assert len({shard["device"] for shard in lab.ask(second)["plan"]["shards"]}) == 2


@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed")
def test_rows_go_over_the_bus_where_two_devices_cannot_reach_each_other(lab: Lab) -> None:
    first = lab.start("--memory", "64MiB")
    second = lab.start("--memory", "64MiB")
    third = lab.start("--memory", "64MiB")
    lab.hosts.drop_lanes(second.name, third.name)
    lab.hosts.drop_lanes(third.name, second.name)
    first.wait_for("is in force")
    answer = lab.ask(first)
    assert len({shard["device"] for shard in answer["plan"]["shards"]}) == 3
    second.wait_for("go over the bus")


def test_a_join_code_that_leads_nowhere_says_what_was_tried(lab: Lab) -> None:
    name = lab.hosts.add()
    home = lab.root / "lost"
    code = JoinCode(b"k" * 16, lab.hosts.address(name).rpartition(".")[0] + ".99", 7947)
    done = run(
        ["up", "--headless", "--home", str(home), "--join", str(code)], check=False,
        prefix=lab.hosts.prefix(name),
    )  # fmt: skip
    assert done.returncode == 3
    assert "tried:" in done.stderr and "eth0" in done.stderr
    assert "Traceback" not in done.stderr
