"""Tokens that are guessed: where a text repeats itself several come at once, and none is another one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.devices import Devices
from tests.lab.lab import Lab, permitted
from tests.live.swarm import WAIT_S, Swarm

TEXT = "The cat sat on the mat. " * 3 + "The cat sat"
OPTIONS = ("--max-tokens", "120", "--seed", "3", "--repetition-penalty", "1")
# What is told of it hardly repeats itself, so there is little that could be guessed without a model.
STORY = "Tell me a story about a fisherman who finds a letter in a bottle."
MODEL_ID, DRAFTER_MIB = "smollm2-135m-instruct-q4_1", 130
FAR_MS = 5.0  # to the switch: a round takes several times as long as a guess, on busy cores too
REASON = permitted()
QUIET = "[device]\nspeculation = false\n"


def answers(new_swarm: Callable[[], Swarm], settings: str, temperature: str) -> dict[str, Any]:
    swarm = new_swarm()
    for name in ("ann", "bob", "cyd"):
        swarm.start(name, "--memory", "72MiB", settings=settings)
    assert len(swarm.plan()["pipelines"][0]["stages"]) > 1
    return swarm.ask(TEXT, "--raw", "--temperature", temperature, *OPTIONS)


@pytest.mark.parametrize("temperature", ["0", "0.1"])
def test_guesses_change_no_token(new_swarm: Callable[[], Swarm], temperature: str):
    guessing, plain = (answers(new_swarm, settings, temperature) for settings in ("", QUIET))
    assert guessing["token_ids"] == plain["token_ids"] and len(plain["token_ids"]) > 50
    assert plain["timings"]["guessed_tokens"] == 0
    assert guessing["timings"]["guessed_tokens"] > 5


def with_a_small_model(root: Path, model_home: Path, drafter: str, temperature: str) -> dict[str, Any]:
    """Three devices far from each other, each with the model whole and with room for it beside its layers."""
    settings = f'[device]\ndrafter = "{drafter}"\n[model]\ncontext = 512\nspares = false\n'
    with Lab(root) as lab:
        devices = Devices(lab, model_home)
        try:
            for name in ("ann", "bob", "cyd"):
                host = lab.host(name, delay_ms=FAR_MS)
                beside = DRAFTER_MIB if drafter else 0
                devices.start(host, "--memory", f"{72 + beside}MiB", settings=settings)
            devices.running["ann"].wait_for(r"plan \d+ is in force")
            assert len(devices.stages("ann")) > 1
            answer = devices.ask("cyd", STORY, "--temperature", temperature, *OPTIONS)
            answer.finish(within=WAIT_S)
            return answer.last
        finally:
            devices.close()


@pytest.mark.netns
@pytest.mark.skipif(bool(REASON), reason=REASON)
@pytest.mark.parametrize("temperature", ["0", "0.4"])
def test_what_a_small_model_guesses_changes_no_token(model_home: Path, tmp_path: Path, temperature: str):
    """It is the model itself here, which is as good a guesser as there can be."""
    drafted, plain = (
        with_a_small_model(tmp_path / (name or "plain"), model_home, name, temperature)
        for name in (MODEL_ID, "")
    )
    assert drafted["token_ids"] == plain["token_ids"] and len(plain["token_ids"]) > 50
    assert drafted["timings"]["guessed_tokens"] > plain["timings"]["guessed_tokens"], (
        drafted["timings"],
        plain["timings"],
    )
