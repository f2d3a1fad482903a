"""The examples: each can be imported, and one of them runs on a device that is alone."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(path for path in FOLDER.glob("*.py"))
MODEL = "smollm2-135m-instruct-q4_1"


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES} >= {"ask.py", "demo.py", "many_questions.py", "measure_split.py"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_it_can_be_imported_and_says_what_it_is(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__doc__
    assert callable(module.main)


def test_several_questions_need_a_swarm(tmp_path: Path) -> None:
    done = run("many_questions.py", tmp_path)
    assert done.returncode == 3
    assert "swisd up" in done.stderr


@pytest.mark.model
def test_ask_runs_alone(tmp_path: Path, smollm2_gguf: Path) -> None:
    swisd = [sys.executable, "-c", "from swisd.cli.app import main; main()"]
    command = [*swisd, "models", "add", str(smollm2_gguf), "--id", MODEL, "--home", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    done = run("ask.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert "[0, 32)" in done.stderr


def run(name: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / name)], check=False, capture_output=True, text=True, timeout=90,
        stdin=subprocess.DEVNULL, env={**os.environ, "SWISD_HOME": str(home)},
    )  # fmt: skip
