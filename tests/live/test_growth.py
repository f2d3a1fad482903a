"""Nothing grows: many sessions and many new plans on one swarm leave its processes as they were.

A tiny random model makes sessions short. Each round asks `SESSIONS` times over connections of their own, as
`swisd ask` does, four at a time, and then makes a new plan by asking the host for the other of two models:
every device drops its shards and caches, fetches and loads others. `--growth 25` is 1,000 sessions and 100
plans, and then holds memory, file handles and threads to 5 % of the level after the first 50 sessions. The
short run cannot: memory settles in steps of its allocators, some of them large and late. It allows `SLACK`
bytes.
"""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from swisd.client.link import SwarmLink
from swisd.client.reach import reach
from swisd.core import deadlines
from swisd.core.messages import Call
from swisd.core.request import Ended, Request
from swisd.core.types import SamplingParams
from swisd.node.home import Home
from swisd.node.settings import load_settings
from tests.live.swarm import DeviceProcess, Swarm, resident_bytes, run

pytestmark = [pytest.mark.live, pytest.mark.timeout(3600)]
MODELS = ("tiny-a", "tiny-b")
SESSIONS, ROUNDS = 10, 4
BASE_ROUNDS = 5  # 50 sessions, after which a long run measures its level
SLACK = 12 << 20
MEMORY = (
    "5MiB"  # room for two layers of six: what a device holds does not depend on how fast it measured itself
)
SETTINGS = '[model]\nid = "tiny-a"\nobjective = "spread"\ncontext = 256\nmin_context = 64\n'


@pytest.fixture(scope="module")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that holds two tiny models."""
    pytest.importorskip("gguf")
    from tests.tiny_models import write_model

    home = tmp_path_factory.mktemp("tiny-home")
    for seed, name in enumerate(MODELS):
        file = write_model(home / f"{name}.gguf", layers=6, seed=seed)
        run(["models", "add", str(file), "--id", name, "--home", str(home)])
    return home


@pytest.fixture
def swarm(tiny_home: Path, tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path / "swarm", tiny_home)
    yield made
    made.close()


def usage(device: DeviceProcess) -> dict[str, int]:
    """Resident bytes, open files and threads of a process."""
    process = Path("/proc") / str(device.process.pid)
    return {
        "bytes": resident_bytes(device.process.pid),
        "files": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
    }


class Askers:
    """Whoever uses the swarm of one home."""

    def __init__(self, home: Path) -> None:
        self._home, self._settings = Home(home), load_settings(home)
        self._turn = asyncio.Semaphore(4)

    def link(self):  # type: ignore[no-untyped-def]
        return reach(self._home, self._settings, lambda text: None, alone=False)

    async def ask(self, number: int) -> None:
        """One session: eight tokens after a prompt of some rows."""
        async with self._turn, asyncio.timeout(60), self.link() as link:
            prompt = tuple((number * 7 + at) % 90 + 3 for at in range(4 + number % 20))
            request = Request(secrets.token_hex(8), link.ident, prompt, 8, SamplingParams(), number, ())
            tokens, ended = 0, None
            async for effect in link.run(request, 60):
                tokens += len(effect.out.tokens) if hasattr(effect, "out") else 0
                ended = effect
            assert isinstance(ended, Ended) and ended.finish == "length", ended
            assert tokens == 8

    async def plan(self, model: str) -> int:
        """Have the swarm run another model; the epoch of the plan that does."""
        async with asyncio.timeout(90), self.link() as link:
            link._courier.publish(Call("model", link.ident, model))
            while not serves(link, model):
                await link._wait_change(1.0)
            assert link.plan is not None
            return link.plan.epoch


def serves(link: SwarmLink, model: str) -> bool:
    plan = link.plan
    return plan is not None and plan.active and plan.model_id == model


async def settled(devices: list[DeviceProcess], rest: float) -> list[dict[str, int]]:
    """Usage after `rest` seconds, once the connections of askers are closed.

    They are when no process opened or closed a file for a second.
    """
    await asyncio.sleep(rest)
    loop = asyncio.get_running_loop()
    end = loop.time() + 20
    since, before = loop.time(), [-1]
    while loop.time() < end:
        now = [usage(device) for device in devices]
        if (files := [each["files"] for each in now]) != before:
            since, before = loop.time(), files
        elif loop.time() - since > 1.0:
            break
        await asyncio.sleep(0.1)
    return now


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
async def test_sessions_and_plans_leave_nothing_behind(swarm: Swarm, pytestconfig: pytest.Config) -> None:
    rounds = ROUNDS * pytestconfig.getoption("--growth")
    base_rounds = BASE_ROUNDS if rounds > 2 * BASE_ROUNDS else 1
    devices = [swarm.start(name, "--memory", MEMORY, settings=SETTINGS) for name in ("ann", "bob", "cyd")]
    devices[0].wait_for(r"plan \d+ is in force")
    askers = Askers(devices[0].home)
    await askers.plan(MODELS[1])
    await askers.plan(MODELS[0])
    long = rounds >= 100
    rest = deadlines.KEEP_DONE + 2 * deadlines.BEAT if long else 0.0  # then drivers have forgotten what ended
    epochs, level, last = list[int](), list[dict[str, int]](), list[dict[str, int]]()
    for number in range(rounds):
        first = number * SESSIONS
        await asyncio.gather(*(askers.ask(first + at) for at in range(SESSIONS)))
        epochs.append(await askers.plan(MODELS[1 - number % 2]))
        if number + 1 == base_rounds:
            level = await settled(devices, rest)
        if rounds > ROUNDS and number % 10 == 9:
            print(number + 1, epochs[-1], [tuple(usage(device).values()) for device in devices], flush=True)
    last = await settled(devices, rest)
    assert epochs == sorted(set(epochs)) and len(epochs) == rounds
    for device, before, after in zip(devices, level, last, strict=True):
        told = f"{device.name}: {before} became {after} after {rounds * SESSIONS} sessions, {rounds} plans"
        assert after["bytes"] <= (before["bytes"] * 1.05 if long else before["bytes"] + SLACK), told
        assert after["files"] <= before["files"] * 1.05 + (0 if long else 2), told
        assert after["threads"] <= before["threads"] * 1.05 + (0 if long else 2), told
        print(told)
