"""The program as a process: what it loads, pipes that break, ctrl-C, terminals without letters."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import SETTINGS
from tests.node.fakes import FakeModel

ROOT = Path(__file__).parent.parent.parent
MAIN = "from swisd.cli.app import main; main()"
FAKE = """
import sys, time, pytest
from tests.node.fakes import install_runtime
from swisd.runtime.fake import FakeShard
install_runtime(pytest.MonkeyPatch())
run = FakeShard.run
def slow(self, slots, x):
    time.sleep({pause})
    return run(self, slots, x)
FakeShard.run = slow
from swisd.cli.app import main
main()
"""
ASK = ("ask", "the sea", "--raw", "--temperature", "0", "--max-tokens")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SWISD_", "PYTHONIO"))}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def start(code: str, *arguments: object, **options: object) -> "subprocess.Popen[str]":
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], text=True, env=environment(),
        **streams,  # type: ignore[call-overload]
    )  # fmt: skip


@pytest.fixture
def home(fake_home: FakeModel) -> Path:
    (fake_home.home.path / "swisd.toml").write_text(SETTINGS)
    return fake_home.home.path


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["ask", "--help"], ["models", "list"]])
def test_a_command_loads_what_it_needs_and_no_more(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
sys.argv = ["swisd", *{arguments!r}]
try:
    {MAIN}
except SystemExit as end:
    assert not end.code, end.code
heavy = "numpy onnxruntime paho textual jinja2 amqtt onnx zeroconf psutil".split()
sys.stderr.write(" ".join(name for name in heavy if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        env=environment(SWISD_HOME=str(tmp_path)),
    )  # fmt: skip
    assert done.stderr == ""


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    """As `| head -1` does, before the first line and after it."""
    read, write = os.pipe()
    os.close(read)
    for arguments in (["models", "list", "--home", home], ["models", "list", "--json", "--home", home]):
        process = start(MAIN, *arguments, stdout=write)
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    os.close(write)
    process = start(FAKE.format(pause=0.02), *ASK, 200, "--json", "--home", home)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith('{"text"')
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 0, errors
    assert "Traceback" not in errors and "Broken" not in errors
    process.stderr.close()


def test_words_that_nobody_reads_do_not_stop_the_results(home: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(FAKE.format(pause=0), *ASK, 5, "--home", home, stderr=write)
    os.close(write)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out.endswith("\n") and len(out) > 1


@pytest.mark.parametrize("moment", ["while answering", "while waiting"])
def test_ctrl_c_ends_a_question_cleanly(home: Path, moment: str) -> None:
    process = start(FAKE.format(pause=0.05), *ASK, 230, "--home", home)
    assert process.stdout is not None and process.stderr is not None
    if moment == "while answering":
        assert process.stdout.read(1)
    else:
        assert "alone" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "Exception" not in errors
    assert out.endswith("\n") or moment == "while waiting"


def test_a_terminal_without_the_letters_gets_a_mark_and_json_stays_whole(tmp_path: Path) -> None:
    code = """
from swisd.cli import app, show
from swisd.cli.output import json_line, result
text = "caf\\u00e9"
show.run_status = lambda home, json_output: json_line({"text": text}) if json_output else result(text)
app.main()
"""
    env = environment(PYTHONIOENCODING="ascii")
    for option, expected in (([], "caf?\n"), (["--json"], '{"text":"caf\\u00e9"}\n')):
        done = subprocess.run(
            [sys.executable, "-c", code, "status", *option, "--home", str(tmp_path)],
            capture_output=True, text=True, timeout=60, env=env, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_a_chat_remembers_what_was_said_and_an_empty_line_ends_it(home: Path) -> None:
    process = start(
        FAKE.format(pause=0), "chat", "--json", "--max-tokens", 20, "--home", home, stdin=subprocess.PIPE
    )
    out, errors = process.communicate("Tell me of the sea and of all its fish.\nAnd then?\n\nlost\n", 60)
    assert process.returncode == 0, errors
    times = [line["timings"] for line in map(json.loads, out.splitlines()) if "timings" in line]
    assert len(times) == 2
    assert times[0]["held_tokens"] == 0
    # The answer, too, where its text gives its tokens; these made-up ones do not.
    assert times[1]["held_tokens"] >= times[0]["prompt_tokens"]


def test_ctrl_c_ends_a_chat_cleanly(home: Path) -> None:
    process = start(
        FAKE.format(pause=0.05), "chat", "--max-tokens", 200, "--home", home, stdin=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("Hello there\n")
    process.stdin.flush()
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "Exception" not in errors
