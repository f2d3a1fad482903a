"""`swisd bench`: what it refuses, and that it measures a swarm that runs."""

from pathlib import Path

import pytest

from swisd.bench import setting
from swisd.bench.llama import HOW_TO_INSTALL
from swisd.bench.setting import find_gguf
from swisd.node.home import Home
from tests.cli.conftest import Run


def test_it_explains_itself(swisd: Run) -> None:
    done = swisd("bench", "--help")
    assert done.code == 0 and "--local" in done.out and "--quick" in done.out


def test_without_a_swarm_it_says_how_to_measure_local_devices(swisd: Run, home: Path) -> None:
    done = swisd("bench", "--home", home)
    assert done.code == 3 and "swisd bench --local 3" in done.last and done.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "fake-4x16"), "--local"), (("--threads", "2"), "--local"),
        (("--local", "17"), "local"), (("--rounds", "-1"), "rounds"),
        (("--local", "1", "--gguf", "/nowhere/m.gguf"), "there is no file /nowhere/m.gguf"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(
    swisd: Run, home: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = swisd("bench", *arguments, "--home", home)
    assert done.code == 2 and words in done.err


def test_llama_is_measured_on_the_file_that_the_model_came_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    place, file = Home(tmp_path / "home"), tmp_path / "m.gguf"
    file.touch()
    monkeypatch.setattr(setting, "available", lambda: False)
    assert find_gguf(place, "fake", file, False, told.append) is None and told == [HOW_TO_INSTALL]
    monkeypatch.setattr(setting, "available", lambda: True)
    assert find_gguf(place, "fake", file, False, told.append) == file
    assert find_gguf(place, "fake", None, False, told.append) is None and "--gguf" in told[-1]
    card = "smollm2-135m-instruct-q4_1"
    assert find_gguf(place, card, None, True, told.append) is None and "--quick" in told[-1]
