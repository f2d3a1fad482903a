"""Real devices on an emulated Wi-Fi, and trouble in the middle of an answer: the tokens stay the same."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.devices import Devices
from tests.lab.lab import Host, Lab, pause, permitted, resume
from tests.live.swarm import run

REASON = permitted()
pytestmark = [
    pytest.mark.live,
    pytest.mark.model,
    pytest.mark.netns,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(REASON), reason=REASON),
]

WIFI = 30e6  # bit/s of air; between two stations half of it arrives
NEAR_MS = 2.5  # to the access point: 5 ms from device to device
PROMPT = "Tell me a story."
GREEDY = ("--temperature", "0", "--max-tokens", "80")
EARLY = 10  # tokens before the trouble starts
NOTICED_S = 40.0  # 6 s until a silent device counts as dead, then a plan and loading, on a busy machine
ANSWER_S = 60.0


@pytest.fixture(scope="module")
def alone(model_home: Path) -> list[int]:
    """The answer of one device without any swarm."""
    done = run(["ask", PROMPT, "--json", "--home", str(model_home), *GREEDY])
    answer = json.loads(done.stdout.splitlines()[-1])
    assert len(answer["plan"]["shards"]) == 1
    return list(answer["token_ids"])


@pytest.fixture(scope="module")
def three(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    """Three devices of 64 MiB, none of which could run the model alone."""
    with Lab(tmp_path_factory.mktemp("lab"), air_rate=WIFI, seed=1) as lab:
        devices = Devices(lab, model_home)
        try:
            for name in ("ann", "bob", "cyd"):
                devices.start(lab.host(name, delay_ms=NEAR_MS), "--memory", "64MiB")
            in_force(devices, 3, after=0)
            devices.first_plan_air_s = lab.stats()["air_s"]
            yield devices
        finally:
            devices.close()


@pytest.fixture(scope="module")
def four(three: Devices) -> Devices:
    """One more, so that three of them are enough when one is in trouble."""
    ann = three.running["ann"]
    mark = ann.mark
    three.start(three.lab.host("dan", delay_ms=NEAR_MS), "--memory", "64MiB")
    in_force(three, 4, after=mark)
    return three


def in_force(devices: Devices, count: int, *, after: int) -> int:
    """Until the host has brought a plan over so many devices into force; a mark behind that."""
    ann = devices.running["ann"]
    try:
        epoch = ann.wait_for(rf"plan (\d+) .*: {count} device\(s\)", after=after, within=NOTICED_S)[1]
        ann.wait_for(rf"plan {epoch} is in force", after=after, within=NOTICED_S)
    except AssertionError:
        raise AssertionError(f"no plan over {count} devices came into force\n{devices.said()}") from None
    return ann.mark


def worker(devices: Devices) -> Host:
    """A device in the plan that neither leads nor drives."""
    driver, *others = devices.stages("ann")
    return devices.lab.hosts[next(name for name in others if name not in ("ann", driver))]


def test_the_answer_over_wifi_is_that_of_one_device(three: Devices, alone: list[int]) -> None:
    assert len(set(three.stages("ann"))) >= 3
    answer = three.ask("bob", PROMPT, *GREEDY)
    assert answer.finish(within=ANSWER_S) == alone, three.said()


def test_measuring_its_links_leaves_the_air_to_the_swarm(three: Devices) -> None:
    assert three.first_plan_air_s < 2.0


def test_a_worker_that_freezes_in_mid_answer_changes_no_token(four: Devices, alone: list[int]) -> None:
    victim = worker(four)
    process = four.running[victim.name].process
    answer = four.ask("ann", PROMPT, *GREEDY)
    answer.wait_for_tokens(EARLY, within=ANSWER_S)
    mark = four.running["ann"].mark
    pause(process)
    try:
        mark = in_force(four, 3, after=mark)  # so it was silent for longer than the deadline
    finally:
        resume(process)  # and now it comes back with an old plan and half a step
    assert answer.finish(within=ANSWER_S) == alone, four.said()
    in_force(four, 4, after=mark)  # it belongs to the swarm again


def test_a_worker_out_of_reach_in_mid_answer_changes_no_token(four: Devices, alone: list[int]) -> None:
    victim = worker(four)
    answer = four.ask("ann", PROMPT, *GREEDY)
    answer.wait_for_tokens(EARLY, within=ANSWER_S)
    mark = four.running["ann"].mark
    four.lab.cut(victim)
    try:
        assert answer.finish(within=ANSWER_S) == alone, four.said()
        mark = in_force(four, 3, after=mark)
    finally:
        four.lab.heal(victim)
    in_force(four, 4, after=mark)  # it belongs to the swarm again


def test_a_full_disk_on_a_newcomer_is_said_there_and_the_others_go_on(
    model_home: Path, tmp_path: Path, alone: list[int]
) -> None:
    with Lab(tmp_path) as lab, contextlib.closing(Devices(lab, model_home)) as devices:
        for name in ("ann", "bob"):
            devices.start(lab.host(name), "--memory", "100MiB")
        in_force(devices, 2, after=0)
        host = lab.host("eve", cpu=0.5, memory=1 << 30, disk=32 << 20)
        lab.fill_disk(host, leave=4 << 20)
        eve = devices.start(host, "--memory", "64MiB", model=False)
        error = eve.wait_for("error: .*", within=NOTICED_S)[0]
        assert "disk is full" in error and "free some space" in error
        assert "Traceback" not in "\n".join(eve.lines)
        answer = devices.ask("ann", PROMPT, *GREEDY)
        assert answer.finish(within=ANSWER_S) == alone, devices.said()
        members = {each["name"]: each for each in devices.json("bob", "status")["swarm"]["members"]}
        assert members["eve"]["liveness"] == "alive"  # it stays, and everybody can read why it does nothing
        assert "disk is full" in members["eve"]["note"]
        assert eve.stop() == 0
