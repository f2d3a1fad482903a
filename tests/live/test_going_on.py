"""Devices go and nobody can take over: a clear error, and the answer goes on when they are back."""

import json
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.swarm import DeviceProcess, Swarm, run
from tests.live.test_host_loss import ASK, form, status
from tests.live.test_swarm import Streaming

pytestmark = [pytest.mark.live, pytest.mark.model, pytest.mark.timeout(240)]


def again(swarm: Swarm, gone: DeviceProcess, memory: str) -> None:
    """Start a device again in its home."""
    arguments = ["--memory", memory, "--threads", "1", "--address", "127.0.0.1"]
    swarm.devices.append(DeviceProcess(gone.name, gone.home, arguments))


def test_an_answer_breaks_off_and_goes_on_with_the_same_tokens(new_swarm: Callable[[], Swarm]) -> None:
    swarm = new_swarm()
    form(swarm, {"ann": "90MiB", "bob": "80MiB"})
    host, worker = swarm.devices
    whole = swarm.ask(*ASK, device=host)["token_ids"]
    stream = Streaming(host.home, *ASK)
    stream.wait_for_tokens(20)
    worker.stop(signal.SIGKILL)
    began = time.monotonic()
    code, words = stream.fail()
    print(f"told after {time.monotonic() - began:.1f} s")
    found = re.search(r"missing.*; go on with: swisd ask --continue ([0-9a-f]{16})$", words)
    assert code == 7 and found is not None, words
    kept = json.loads((host.home / "sessions" / f"{found[1]}.json").read_text())
    assert kept["emitted"] == stream.tokens == whole[: len(stream.tokens)]

    swarm.devices.remove(worker)
    again(swarm, worker, "80MiB")
    done = run(["ask", "--continue", found[1], "--wait", "90", "--json", "--home", str(host.home)])
    assert json.loads(done.stdout.splitlines()[-1])["token_ids"] == whole
    assert list((host.home / "sessions").iterdir()) == []


def test_who_waits_is_answered_when_devices_are_back(new_swarm: Callable[[], Swarm]) -> None:
    swarm = new_swarm()
    form(swarm, {"ann": "90MiB", "bob": "80MiB"})
    host, worker = swarm.devices
    whole = swarm.ask(*ASK, device=host)["token_ids"]
    stream = Streaming(host.home, *ASK, "--wait")
    stream.wait_for_tokens(20)
    worker.stop(signal.SIGKILL)
    host.wait_for("no plan: .*missing")
    swarm.devices.remove(worker)
    again(swarm, worker, "80MiB")
    assert stream.finish() == whole


def test_it_is_told_who_stands_in_for_whom(new_swarm: Callable[[], Swarm]) -> None:
    swarm = new_swarm()
    home = swarm.root / "ann"
    home.mkdir(parents=True)
    (home / "swisd.toml").write_text("[model]\ncontext = 256\n")  # a larger one would take all the room
    form(swarm, {"ann": "100MiB", "bob": "100MiB", "cyd": "100MiB"})
    deadline = time.monotonic() + 60
    cover: list[Any] = []
    while not any(row["state"] == "loaded" for row in cover):
        assert time.monotonic() < deadline, (cover, status(swarm.devices[0]))
        cover = json.loads(run(["plan", "--json", "--home", str(home)]).stdout)["cover"]
        time.sleep(0.3)
    assert all(row["by"] != row["device"] for row in cover)
    assert "taken over by" in run(["plan", "--home", str(home)]).stdout
    assert "Spares: " in run(["status", "--home", str(home)]).stdout
