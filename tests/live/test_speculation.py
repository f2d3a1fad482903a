"""Tokens that are guessed: where a text repeats itself several come at once, and none is another one."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.live.swarm import Swarm, give_model

TEXT = "The cat sat on the mat. " * 3 + "The cat sat"
OPTIONS = ("--raw", "--max-tokens", "120", "--seed", "3", "--repetition-penalty", "1")
STORY = "A letter from a lighthouse keeper to his sister:"
MODEL_ID, DRAFTER_MIB = "smollm2-135m-instruct-q4_1", 130
QUIET = "[device]\nspeculation = false\n"


def answers(new_swarm: Callable[[], Swarm], settings: str, temperature: str) -> dict[str, Any]:
    swarm = new_swarm()
    for name in ("ann", "bob", "cyd"):
        swarm.start(name, "--memory", "72MiB", settings=settings)
    assert len(swarm.plan()["pipelines"][0]["stages"]) > 1
    return swarm.ask(TEXT, "--temperature", temperature, *OPTIONS)


@pytest.mark.parametrize("temperature", ["0", "0.1"])
def test_guesses_change_no_token(new_swarm: Callable[[], Swarm], temperature: str):
    guessing, plain = (answers(new_swarm, settings, temperature) for settings in ("", QUIET))
    assert guessing["token_ids"] == plain["token_ids"] and len(plain["token_ids"]) > 50
    assert plain["timings"]["guessed_tokens"] == 0
    assert guessing["timings"]["guessed_tokens"] > 5


def with_a_small_model(new_swarm: Callable[[], Swarm], drafter: str, temperature: str) -> dict[str, Any]:
    """Three devices of which each has the model whole, and room for it beside its own layers."""
    swarm = new_swarm()
    settings = (
        f'[device]\ndrafter = "{drafter}"\n[model]\ncontext = 512\nspares = false\n[swarm]\nlane = "mqtt"\n'
    )
    beside = DRAFTER_MIB if drafter else 0
    for name in ("ann", "bob", "cyd"):
        give_model(swarm.model_home, swarm.root / name)
        swarm.start(name, "--memory", f"{72 + beside}MiB", settings=settings)
    assert len(swarm.plan()["pipelines"][0]["stages"]) > 1
    return swarm.ask(STORY, "--temperature", temperature, *OPTIONS)


@pytest.mark.parametrize("temperature", ["0", "0.4"])
def test_what_a_small_model_guesses_changes_no_token(new_swarm: Callable[[], Swarm], temperature: str):
    """It is the model itself here, which is as good a guesser as there can be."""
    drafted, plain = (with_a_small_model(new_swarm, name, temperature) for name in (MODEL_ID, ""))
    assert drafted["token_ids"] == plain["token_ids"] and len(plain["token_ids"]) > 50
    more = drafted["timings"]["guessed_tokens"] - plain["timings"]["guessed_tokens"]
    assert more > 0
