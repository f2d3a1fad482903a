"""The README's commands: all exist with their options, and those marked `<!-- test -->` run.

A marked `sh` block runs as it stands, in a shell that stops at the first failure; a marked `python` block
runs as a program. Their home holds the default model, and `swisd up` runs there.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import typer.main

from swisd.cli.app import app
from tests.live.swarm import DeviceProcess, environment, give_model

TOP = Path(__file__).parent.parent.parent
FENCE = re.compile(r"(?P<mark><!-- test -->\n)?```(?P<language>sh|python)\n(?P<text>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of the README."""

    line: int
    language: str
    text: str
    marked: bool


def blocks() -> list[Block]:
    readme = (TOP / "README.md").read_text()
    return [
        Block(readme.count("\n", 0, found.start()) + 1, found["language"], found["text"], bool(found["mark"]))
        for found in FENCE.finditer(readme)
    ]


SHELL = [block for block in blocks() if block.language == "sh"]
MARKED = [block for block in blocks() if block.marked]
LINES = [line for block in SHELL for line in block.text.splitlines() if line.strip()]
COMMANDS = [line for line in LINES if re.search(r"(^|\| )swisd ", line)]


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) > 10
    assert sum(block.marked for block in blocks()) >= 4


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_and_its_options_exist(line: str) -> None:
    words = shlex.split(line[line.index("swisd ") :])[1:]
    command: click.Command = typer.main.get_command(app)
    context: click.Context | None = None
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(click.Context(command, parent=context), words)
        assert found is not None, line
        command, context = found, click.Context(command, parent=context)
        assert name
    command.make_context(command.name, words)  # raises UsageError for what does not exist


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_a_make_target_exists(line: str) -> None:
    targets = re.findall(r"^([a-z]+):", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert line.split()[1] in targets


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)#]+)\)", (TOP / "README.md").read_text()))
def test_a_link_leads_somewhere(target: str) -> None:
    assert (TOP / target).exists()


@pytest.fixture(scope="module")
def device(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceProcess]:
    """`swisd up` in a home that holds the model, with a plan in force."""
    home = tmp_path_factory.mktemp("readme")
    give_model(model_home, home)
    device = DeviceProcess("readme", home, ["--address", "127.0.0.1"])
    try:
        device.wait_for(r"plan \d+ is in force")
        yield device
    finally:
        device.stop()


@pytest.mark.live
@pytest.mark.model
@pytest.mark.parametrize(
    "block", [block for block in blocks() if block.marked], ids=lambda block: f"line{block.line}"
)
def test_a_marked_block_runs(block: Block, device: DeviceProcess, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    tool = folder / "swisd"
    tool.write_text(f"#!{sys.executable}\nfrom swisd.cli.app import main\n\nmain()\n")
    tool.chmod(0o755)
    variables = {**environment(), "SWISD_HOME": str(device.home)}
    variables["PATH"] = f"{folder}{os.pathsep}{variables.get('PATH', '')}"
    command = ["sh", "-ec"] if block.language == "sh" else [sys.executable, "-c"]
    # What a command prints goes to a file: a process that it leaves behind could not hold a pipe open.
    with (tmp_path / "output").open("w+") as output:
        process = subprocess.Popen(
            [*command, block.text], cwd=TOP, env=variables, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(90)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait(5)
        output.seek(0)
        said = output.read()
    assert code == 0, said
    assert said.strip()
