"""Tokens that are guessed: where a text repeats itself several come at once, and none is another one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab.devices import Answer, Devices
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


def ask_at(temperatures: Sequence[str], ask: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """The same question at each temperature, one after the other."""
    return [ask("--temperature", temperature, *OPTIONS) for temperature in temperatures]


def answers(new_swarm: Callable[[], Swarm], settings: str) -> list[dict[str, Any]]:
    swarm = new_swarm()
    for name in ("ann", "bob", "cyd"):
        swarm.start(name, "--memory", "72MiB", settings=settings)
    assert len(swarm.plan()["pipelines"][0]["stages"]) > 1
    return ask_at(("0", "0.1"), partial(swarm.ask, TEXT, "--raw"))


def test_guesses_change_no_token(new_swarm: Callable[[], Swarm]):
    with_guesses, without = (answers(new_swarm, settings) for settings in ("", QUIET))
    for guessing, plain in zip(with_guesses, without, strict=True):
        assert guessing["token_ids"] == plain["token_ids"] and len(plain["token_ids"]) > 50
        assert plain["timings"]["guessed_tokens"] == 0
        assert guessing["timings"]["guessed_tokens"] > 5


@contextmanager
def far_apart(root: Path, model_home: Path, settings: str, memory_mib: int = 72) -> Iterator[Devices]:
    """Three devices far apart that need each other."""
    with Lab(root) as lab:
        devices = Devices(lab, model_home)
        try:
            for name in ("ann", "bob", "cyd"):
                host = lab.host(name, delay_ms=FAR_MS)
                devices.start(host, "--memory", f"{memory_mib}MiB", settings=settings)
            devices.running["ann"].wait_for(r"plan \d+ is in force")
            assert len(devices.stages("ann")) > 1
            yield devices
        finally:
            devices.close()


def finished(answer: Answer) -> dict[str, Any]:
    answer.finish(within=WAIT_S)
    return answer.last


@pytest.mark.netns
@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_guesses_for_several_at_once_change_no_token(model_home: Path, tmp_path: Path):
    found = []
    for name, settings in (("guessing", ""), ("plain", QUIET)):
        with far_apart(tmp_path / name, model_home, settings) as devices:
            asked = [
                devices.ask(device, TEXT.replace("cat", animal), "--raw", "--temperature", "0", *OPTIONS)
                for device, animal in (("cyd", "cat"), ("bob", "dog"))
            ]
            found.append([finished(answer) for answer in asked])
    for guessing, plain in zip(*found, strict=True):
        assert guessing["token_ids"] == plain["token_ids"] and len(plain["token_ids"]) > 50
        assert plain["timings"]["guessed_tokens"] == 0
        assert guessing["timings"]["guessed_tokens"] > 5


@pytest.mark.netns
@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_what_a_small_model_guesses_changes_no_token(model_home: Path, tmp_path: Path):
    """It is the model itself here, which is as good a guesser as there can be, whole on each device."""
    found = []
    for drafter in (MODEL_ID, ""):
        settings = f'[device]\ndrafter = "{drafter}"\n[model]\ncontext = 512\nspares = false\n'
        memory_mib = 72 + (DRAFTER_MIB if drafter else 0)
        with far_apart(tmp_path / (drafter or "plain"), model_home, settings, memory_mib) as devices:
            found.append(ask_at(("0", "0.4"), lambda *options: finished(devices.ask("cyd", STORY, *options))))
    for drafted, plain in zip(*found, strict=True):
        assert drafted["token_ids"] == plain["token_ids"] and len(plain["token_ids"]) > 50
        assert drafted["timings"]["guessed_tokens"] > plain["timings"]["guessed_tokens"], (
            drafted["timings"],
            plain["timings"],
        )
