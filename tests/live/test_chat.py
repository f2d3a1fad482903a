"""Conversations on real devices: what was said before is not read again, and changes no token."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.live.swarm import Swarm, run

TURNS = (
    "Name three animals that live in the sea, with a sentence about each of them.",
    "Which of them is the largest?",
    "And which one is the smallest? Answer in one sentence.",
)
OPTIONS = ("--temperature", "0", "--max-tokens", "60")


def talk(home: Path) -> list[dict[str, Any]]:
    """`swisd chat --json`: the answer to each turn."""
    done = run(["chat", "--json", "--home", str(home), *OPTIONS], stdin="\n".join(TURNS))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if "timings" in line]


def test_a_conversation_goes_on_where_it_ended(new_swarm: Callable[[], Swarm]):
    swarm = new_swarm()
    for name in ("ann", "bob", "cyd"):
        swarm.start(name, "--memory", "72MiB")
    assert len(swarm.plan()["pipelines"][0]["stages"]) > 1
    answers = talk(swarm.devices[-1].home)
    assert [answer["finish_reason"] in ("stop", "length") for answer in answers] == [True] * len(TURNS)
    times = [answer["timings"] for answer in answers]
    assert times[0]["held_tokens"] == 0
    for before, after in pairwise(times):
        assert after["held_tokens"] >= before["prompt_tokens"]  # and most of the answer
    other = new_swarm()
    other.start("dan", "--memory", "300MiB")
    other.plan()
    assert [answer["token_ids"] for answer in talk(other.devices[0].home)] == [
        answer["token_ids"] for answer in answers
    ]


def test_a_second_question_about_the_same_text_reads_only_the_question(new_swarm: Callable[[], Swarm]):
    swarm = new_swarm()
    swarm.start("ann", "--memory", "300MiB")
    swarm.plan()
    text = "The river rises in the hills, passes two villages and a mill, and reaches the sea at night. " * 8
    first = swarm.ask(text + "Where does the river rise?", *OPTIONS)
    second = swarm.ask(text + "What does it pass?", *OPTIONS)
    assert first["timings"]["held_tokens"] == 0
    assert second["timings"]["held_tokens"] > 0.8 * second["timings"]["prompt_tokens"]
    other = new_swarm()
    other.start("bob", "--memory", "300MiB")
    other.plan()
    fresh = other.ask(text + "What does it pass?", *OPTIONS)
    assert fresh["timings"]["held_tokens"] == 0
    assert fresh["token_ids"] == second["token_ids"]
