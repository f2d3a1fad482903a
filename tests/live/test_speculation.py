"""Tokens that are guessed: where a text repeats itself several come at once, and none is another one."""

from collections.abc import Callable, Sequence
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


def answers(new_swarm: Callable[[], Swarm], settings: str) -> dict[str, Any]:
    swarm = new_swarm()
    for name in ("ann", "bob", "cyd"):
        swarm.start(name, "--memory", "72MiB", settings=settings)
    assert len(swarm.plan()["pipelines"][0]["stages"]) > 1
    return swarm.ask(TEXT, "--raw", "--temperature", "0.1", *OPTIONS)


def test_guesses_change_no_token(new_swarm: Callable[[], Swarm]):
    guessing, plain = (answers(new_swarm, settings) for settings in ("", QUIET))
    assert guessing["token_ids"] == plain["token_ids"] and len(plain["token_ids"]) > 50
    assert plain["timings"]["guessed_tokens"] == 0
    assert guessing["timings"]["guessed_tokens"] > 5


Question = tuple[str, ...]  # of `swisd ask`: the prompt, then options


def far_apart(
    root: Path, model_home: Path, settings: str, questions: Sequence[Question], memory_mib: int = 72
) -> list[dict[str, Any]]:
    """Answers of three devices far apart that need each other, each asked a question, all at once."""
    with Lab(root) as lab:
        devices = Devices(lab, model_home)
        try:
            names = ("ann", "bob", "cyd")
            for name in names:
                host = lab.host(name, delay_ms=FAR_MS)
                devices.start(host, "--memory", f"{memory_mib}MiB", settings=settings)
            devices.running["ann"].wait_for(r"plan \d+ is in force")
            assert len(devices.stages("ann")) > 1
            asked = [
                devices.ask(name, *question, *OPTIONS)
                for name, question in zip(reversed(names), questions, strict=False)
            ]
            for answer in asked:
                answer.finish(within=WAIT_S)
            return [answer.last for answer in asked]
        finally:
            devices.close()


@pytest.mark.netns
@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_guesses_for_several_at_once_change_no_token(model_home: Path, tmp_path: Path):
    questions = [(text, "--raw", "--temperature", "0") for text in (TEXT, TEXT.replace("cat", "dog"))]
    guessing, plain = (
        far_apart(tmp_path / name, model_home, settings, questions)
        for name, settings in (("guessing", ""), ("plain", QUIET))
    )
    for guessed, said in zip(guessing, plain, strict=True):
        assert guessed["token_ids"] == said["token_ids"] and len(said["token_ids"]) > 50
        assert said["timings"]["guessed_tokens"] == 0
        assert guessed["timings"]["guessed_tokens"] > 5


@pytest.mark.netns
@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_what_a_small_model_guesses_changes_no_token(model_home: Path, tmp_path: Path):
    """It is the model itself here, which is as good a guesser as there can be, whole on each device."""
    found = []
    for drafter in (MODEL_ID, ""):
        settings = f'[device]\ndrafter = "{drafter}"\n[model]\ncontext = 512\nspares = false\n'
        memory_mib = 72 + (DRAFTER_MIB if drafter else 0)
        question = STORY, "--temperature", "0.4"
        found += far_apart(
            tmp_path / (drafter or "plain"), model_home, settings, [question], memory_mib=memory_mib
        )
    drafted, plain = found
    assert drafted["token_ids"] == plain["token_ids"] and len(plain["token_ids"]) > 50
    assert drafted["timings"]["guessed_tokens"] > plain["timings"]["guessed_tokens"], (
        drafted["timings"],
        plain["timings"],
    )
