"""Several pipelines: questions at once go to different devices, and an answer outlives its own."""

import asyncio
import json
import secrets
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from swisd.client.link import SwarmLink
from swisd.client.reach import reach
from swisd.core.request import Answered, Ended, Request
from swisd.core.types import SamplingParams
from swisd.node.home import Home
from swisd.node.settings import load_settings
from tests.live.swarm import Swarm, give_model, run
from tests.live.test_host_loss import ident

pytestmark = [pytest.mark.live, pytest.mark.model, pytest.mark.timeout(240)]
SETTINGS = '[device]\nspeculation = false\n[model]\nobjective = "throughput"\ncontext = 1024\n'
NAMES = ("ann", "bob", "cyd")
PROGRAM = [sys.executable, "-c", "from tests.live.test_pipelines import even; even()"]
PROMPT = tuple(range(500, 520))
TOKENS, MOST, WAIT_S = 500, 8, 60.0


def even() -> None:
    """A device's program: `swisd up`, which measures itself as fast as all others do: the plan is certain."""
    from swisd.cli.app import main
    from swisd.runtime import probe

    measure = probe.probe

    def measured(*arguments: Any, **options: Any) -> Any:
        found = measure(*arguments, **options)
        return replace(found, layer_ms=0.2, layer_row_ms=0.05, head_ms=1.5, embed_ms=0.05, run_ms=0.1)

    probe.probe = measured
    main()


class Question:
    """One session of a client; `started` once it has some tokens."""

    def __init__(self, link: SwarmLink) -> None:
        self._link = link
        self.tokens: list[int] = []
        self.started = asyncio.Event()

    async def ask(self) -> list[int]:
        wish = Request(secrets.token_hex(8), self._link.ident, PROMPT, TOKENS, SamplingParams(), 1, ())
        async for effect in self._link.run(wish, WAIT_S):
            if isinstance(effect, Answered):
                self.tokens += effect.out.tokens
                if len(self.tokens) >= 20:
                    self.started.set()
            elif isinstance(effect, Ended):
                assert effect.finish == "length", effect
        return self.tokens


async def until(link: SwarmLink, seen: Callable[[], bool]) -> None:
    """Wait for what the plan or the digest tells."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_S
    while not seen():
        assert loop.time() < deadline, (told(link), sessions(link))
        await link._wait_change(1.0)


def told(link: SwarmLink) -> list[str]:
    """What the plan says of each device."""
    plan = link.plan
    return [f"{item.device[:4]} {item.reason}" for item in plan.verdicts] if plan is not None else []


def drivers(link: SwarmLink) -> tuple[str, ...]:
    """Of the plan that is active."""
    return link.plan.drivers if link.plan is not None and link.plan.active else ()


def sessions(link: SwarmLink) -> dict[str, int]:
    """By the names of their drivers, as the digest has it."""
    return {member.name: member.sessions for member in link.digest.members} if link.digest is not None else {}


async def test_questions_share_out_over_pipelines_and_an_answer_outlives_its_own(
    new_swarm: Callable[[], Swarm],
) -> None:
    swarm = new_swarm()
    for name in NAMES:
        (swarm.root / name).mkdir(parents=True, exist_ok=True)
        give_model(swarm.model_home, swarm.root / name)
        swarm.start(name, "--memory", "300MiB", settings=SETTINGS, program=PROGRAM)
    host, bob, _ = swarm.devices
    async with reach(Home(host.home), load_settings(host.home), lambda text: None, alone=False) as link:
        await until(link, lambda: len(drivers(link)) == len(NAMES))
        assert set(drivers(link)) == {ident(device) for device in swarm.devices}
        whole = await Question(link).ask()
        tasks = []
        # How many each gets depends on how fast it measured itself.
        while not all(sessions(link).get(name) for name in NAMES):
            assert len(tasks) < MOST, sessions(link)
            question = Question(link)
            tasks.append(asyncio.create_task(question.ask()))
            await question.started.wait()
            await until(link, lambda: sum(sessions(link).values()) == len(tasks))
        assert not any(task.done() for task in tasks)
        bob.process.send_signal(signal.SIGKILL)
        assert await asyncio.gather(*tasks) == [whole] * len(tasks)
        await until(link, lambda: len(drivers(link)) == 2)
        assert ident(bob) not in drivers(link)
    words = run(["plan", "--home", str(host.home)]).stdout
    assert "pipeline 2 of 2" in words, words
    plan = json.loads(run(["plan", "--json", "--home", str(host.home)]).stdout)["plan"]
    assert len(plan["pipelines"]) == 2
