"""The swarm changes while it answers: devices join and leave, a broker outside is away. No token differs."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.swarm import Swarm, give_model
from tests.live.test_host_loss import form, ident, status
from tests.live.test_swarm import GREEDY, Streaming

pytestmark = [pytest.mark.live, pytest.mark.model, pytest.mark.timeout(240)]

LONG = ("Tell me a story.", *GREEDY, "--max-tokens", "400")


def users(swarm: Swarm) -> set[str]:
    """Names of the devices that the plan uses."""
    names = {ident(device): device.name for device in swarm.devices}
    stages = status(swarm.devices[0])["plan"]["pipelines"][0]["stages"]
    return {names[stage["members"][0]["device"]] for stage in stages}


def test_a_device_joins_and_another_leaves_in_mid_answer(new_swarm: Callable[[], Swarm]) -> None:
    swarm = new_swarm()
    swarm.start("ann", "--memory", "250MiB", "--objective", "spread")
    form(swarm, {"bob": "250MiB"})
    ann = swarm.devices[0]
    undisturbed = swarm.ask(*LONG, device=ann)["token_ids"]

    stream = Streaming(ann.home, *LONG)
    stream.wait_for_tokens(5)
    mark = ann.mark
    (swarm.root / "cyd").mkdir()
    give_model(swarm.model_home, swarm.root / "cyd")
    cyd = swarm.start("cyd", "--memory", "250MiB")
    # It measures itself while the others answer; a slow machine may be through with the answer by then.
    ann.wait_for(r"plan \d+ .*: 3 device\(s\)", after=mark)
    cyd.wait_for("ready: runs")
    assert stream.finish() == undisturbed
    assert users(swarm) == {"ann", "bob", "cyd"}

    stream = Streaming(ann.home, *LONG)
    stream.wait_for_tokens(20)
    assert cyd.stop(signal.SIGTERM) == 0
    swarm.devices.remove(cyd)
    assert stream.finish() == undisturbed
    assert users(swarm) == {"ann", "bob"}


class OutsideBroker:
    """A real Mosquitto on a loopback port that can be away for a while."""

    def __init__(self, folder: Path) -> None:
        self._program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n{user}")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._config)], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "running" in line:
                return
        raise AssertionError("mosquitto does not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            assert self._process.stderr is not None
            self._process.stderr.close()
            self._process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[OutsideBroker]:
    if not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()):
        pytest.skip("mosquitto is not installed")
    made = OutsideBroker(tmp_path)
    made.start()
    yield made
    made.kill()


def test_an_answer_goes_on_when_the_outside_broker_was_away(
    new_swarm: Callable[[], Swarm], broker: OutsideBroker
) -> None:
    swarm = new_swarm()
    settings = f'[swarm]\nbroker = "mqtt://127.0.0.1:{broker.port}"\n'
    for name in ("ann", "bob"):
        swarm.start(name, "--memory", "100MiB", settings=settings)
    swarm.devices[0].wait_for(r"plan \d+ is in force")
    undisturbed = swarm.ask(*LONG)["token_ids"]
    stream = Streaming(swarm.devices[1].home, *LONG)
    stream.wait_for_tokens(20)
    marks = [device.mark for device in swarm.devices]
    broker.kill()
    for device, mark in zip(swarm.devices, marks, strict=True):
        device.wait_for("the bus is lost", after=mark)
    broker.start()
    for device, mark in zip(swarm.devices, marks, strict=True):
        device.wait_for("connected to the swarm's bus", after=mark)
    assert stream.finish() == undisturbed
