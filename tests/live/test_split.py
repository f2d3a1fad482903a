"""The swarm does not change the answer: any cut, any lane, the same tokens as one device alone."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.swarm import DeviceProcess, Swarm, run
from tests.live.test_host_loss import status

pytestmark = [pytest.mark.live, pytest.mark.model, pytest.mark.timeout(400)]

PROMPT = "Explain how rain forms."
GREEDY = ("--temperature", "0", "--max-tokens", "100")


@pytest.fixture(scope="module")
def alone(model_home: Path) -> list[int]:
    """Token ids of one device without any swarm."""
    import json

    done = run(["ask", PROMPT, "--json", "--home", str(model_home), *GREEDY])
    answer = json.loads(done.stdout.splitlines()[-1])
    assert len(answer["plan"]["shards"]) == 1
    assert len(answer["token_ids"]) == 100 or answer["finish_reason"] == "stop"
    return list(answer["token_ids"])


@pytest.mark.parametrize("lane", ["tcp", "mqtt"])
def test_every_cut_over_both_lanes_gives_the_tokens_of_one_device(
    lane: str, alone: list[int], new_swarm: Callable[[], Swarm]
) -> None:
    """Five devices, then four, three, two: each departure makes another cut."""
    swarm = new_swarm()
    lanes = f'[swarm]\nlane = "{lane}"\n'
    swarm.start("host", "--objective", "spread", "--memory", "200MiB", settings=lanes)
    for name in ("w1", "w2", "w3", "w4"):
        swarm.start(name, "--memory", "200MiB", settings=lanes)
    host = swarm.devices[0]
    cuts: set[tuple[int, ...]] = set()
    for count in (5, 4, 3, 2):
        another_cut(host, count, cuts)
        answer = swarm.ask(PROMPT, *GREEDY, device=host)
        shards = answer["plan"]["shards"]
        assert len({shard["device"] for shard in shards}) == count
        assert answer["token_ids"] == alone, f"{count} devices over {lane}, cut {shards}"
        cuts.add(tuple(shard["start"] for shard in shards))
        if count > 2:
            swarm.devices.pop().stop()
    assert len(cuts) == 4


def another_cut(host: DeviceProcess, count: int, cuts: set[tuple[int, ...]]) -> None:
    """Wait for a plan over so many devices whose cut was not seen yet.

    A device that leaves just after an answer is replaced first, and its part shared out anew a little later.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        plan = status(host)["plan"]
        stages = plan["pipelines"][0]["stages"] if plan and plan["active"] and plan["pipelines"] else []
        devices = {stage["members"][0]["device"] for stage in stages}
        if len(devices) == count and tuple(stage["start"] for stage in stages) not in cuts:
            return
        time.sleep(0.3)
    raise AssertionError(f"no new cut over {count} devices: {host.lines[-20:]}")
