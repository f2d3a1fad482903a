"""The host dies, freezes, comes back: streams go on with the same tokens, and the swarm has one host."""

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.swarm import DeviceProcess, Swarm, give_model, run
from tests.live.test_swarm import GREEDY, Streaming

pytestmark = [pytest.mark.live, pytest.mark.model, pytest.mark.timeout(240)]

ASK = ("Tell me a story.", *GREEDY, "--max-tokens", "120")


def form(swarm: Swarm, memory: dict[str, str]) -> None:
    """Start devices with these offers.

    All have the model on their disks: a unit that only the host had would be lost with it.
    """
    for name, offer in memory.items():
        if swarm.devices:
            (swarm.root / name).mkdir(parents=True, exist_ok=True)
            give_model(swarm.model_home, swarm.root / name)
        swarm.start(name, "--memory", offer)
    everyone = set(memory)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = status(swarm.devices[0])
        members = {member["name"] for member in state["swarm"]["members"] if member["layer_ms"] > 0}
        if members >= everyone and state["plan"] and state["plan"]["active"]:
            return
        time.sleep(0.3)
    raise AssertionError("the swarm did not form")


def status(device: DeviceProcess) -> dict[str, Any]:
    return json.loads(run(["status", "--json", "--home", str(device.home)]).stdout)


def ident(device: DeviceProcess) -> str:
    return str(json.loads((device.home / "device.json").read_text())["device"])


def one_host(devices: list[DeviceProcess], within: float = 20.0) -> DeviceProcess:
    """Wait until all of these name the same host, one of them, as the host of all of them."""
    deadline = time.monotonic() + within
    seen: list[Any] = []
    while time.monotonic() < deadline:
        seen = [status(device)["swarm"] for device in devices]
        hosts = {digest["host"] for digest in seen}
        alive = [{m["name"] for m in digest["members"] if m["liveness"] == "alive"} for digest in seen]
        if len(hosts) == 1 and all(names >= {device.name for device in devices} for names in alive):
            return next(device for device in devices if ident(device) in hosts)
        time.sleep(0.3)
    raise AssertionError(f"no single host: {[(item['host'], item['members']) for item in seen]}")


def test_a_stream_goes_on_when_the_host_is_killed(new_swarm: Callable[[], Swarm]) -> None:
    """Whether it drives is up to the plan; `swisd chaos` strikes hosts of both kinds (its own test)."""
    swarm = new_swarm()
    form(swarm, {"ann": "88MiB", "bob": "36MiB", "cyd": "36MiB"})
    form(swarm, {"dan": "88MiB"})
    host, *others = swarm.devices
    undisturbed = swarm.ask(*ASK, device=others[-1])["token_ids"]

    stream = Streaming(others[-1].home, *ASK)
    stream.wait_for_tokens(20)
    host.stop(signal.SIGKILL)
    assert stream.finish() == undisturbed

    swarm.devices.remove(host)
    first = one_host(others)
    arguments = ["--memory", "36MiB", "--threads", "1", "--address", "127.0.0.1"]
    again = DeviceProcess("ann", host.home, arguments)
    swarm.devices.append(again)
    assert one_host([*others, again]) is first
    assert swarm.ask(*ASK, device=again)["token_ids"] == undisturbed


def test_a_host_that_was_frozen_joins_the_one_that_took_its_place(new_swarm: Callable[[], Swarm]) -> None:
    swarm = new_swarm()
    form(swarm, {"ann": "64MiB", "bob": "64MiB", "cyd": "64MiB", "dan": "80MiB"})
    host, *others = swarm.devices
    undisturbed = swarm.ask(*ASK, device=others[-1])["token_ids"]
    stream = Streaming(others[-1].home, *ASK)
    stream.wait_for_tokens(20)
    host.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(8)
    finally:
        host.process.send_signal(signal.SIGCONT)
    assert stream.finish() == undisturbed
    assert one_host(swarm.devices) is not host
    host.wait_for("stepping down")
