"""Tokens that are guessed: where a text repeats itself several come at once, and none is another one."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.live.swarm import Swarm

TEXT = "The cat sat on the mat. " * 3 + "The cat sat"
OPTIONS = ("--raw", "--max-tokens", "120", "--seed", "3", "--repetition-penalty", "1")
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
