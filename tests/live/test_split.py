"""The swarm does not change the answer: any cut, any lane, the same tokens as one device alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.swarm import Swarm, run

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
    mark = 0
    for count in (5, 4, 3, 2):
        host.wait_for(rf": {count} device\(s\)", after=mark)
        mark = host.mark - 1
        host.wait_for(r"is in force", after=mark)
        answer = swarm.ask(PROMPT, *GREEDY, device=host)
        shards = answer["plan"]["shards"]
        assert len({shard["device"] for shard in shards}) == count
        assert answer["token_ids"] == alone, f"{count} devices over {lane}, cut {shards}"
        cuts.add(tuple(shard["start"] for shard in shards))
        mark = host.mark
        if count > 2:
            swarm.devices.pop().stop()
    assert len(cuts) == 4
