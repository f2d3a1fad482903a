"""What is wrong gets one clear line and a non-zero exit, never a traceback, never a half-written file."""

import base64
import json
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.swarm import Swarm, run

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


def fails(arguments: list[str], *words: str, code: int | None = None, stdin: str | None = None) -> str:
    """The command fails with one line that has these words."""
    done = run(arguments, check=False, stdin=stdin)
    assert done.returncode != 0, done.stdout
    if code is not None:
        assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last, f"{word!r} not in {last!r}"
    assert done.stdout == ""
    return last


def test_files_that_are_no_model(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path / "home")]
    wrong = tmp_path / "photo.gguf"
    wrong.write_bytes(b"\x89PNG" + bytes(5000))
    fails(["models", "add", str(wrong), *home], "photo.gguf", "GGUF")
    empty = tmp_path / "empty.gguf"
    empty.write_bytes(b"")
    fails(["models", "add", str(empty), *home], "empty.gguf")
    fails(["models", "add", str(tmp_path / "nothing.gguf"), *home], "no file")
    assert not list((tmp_path / "home").rglob("*.part")) and not list((tmp_path / "home").rglob("*.tmp"))
    assert run(["models", "list", "--json", *home]).stdout.count('units_here":0') >= 1


@pytest.mark.model
def test_a_truncated_model(smollm2_gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with smollm2_gguf.open("rb") as file:
        cut.write_bytes(file.read(20_000_000))
    fails(["models", "add", str(cut), "--home", str(tmp_path / "home")], "cut.gguf", "truncated")


def test_unknown_models_and_homes_without_a_swarm(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path / "home")]
    fails(["models", "pull", "gpt-9", *home], "gpt-9", "smollm2", code=5)
    fails(["models", "show", "gpt-9", *home], "gpt-9", code=5)
    fails(["models", "remove", "../../etc", *home], "not a model id", code=2)
    fails(["status", *home], "swisd up", code=3)
    fails(["plan", *home], "swisd up", code=3)
    fails(["code", *home], "swisd up", code=3)


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    home = tmp_path / "home"
    up = ["up", "--headless", "--home", str(home)]
    fails([*up, "--memory", "lots"], "lots", "64MiB", code=2)
    fails([*up, "--memory", "12B"], "too little", code=2)
    fails([*up, "--join", "hello"], "not a join code", "swisd code", code=2)
    fails([*up, "--broker", "http://example"], "mqtt://", code=2)
    fails(["ask", "hi", "--temperature", "-1", "--home", str(home)], "temperature")
    home.mkdir(exist_ok=True)
    (home / "swisd.toml").write_text("[device]\nmemry = '1GiB'\n")
    fails(up, "memry", "memory", code=2)
    (home / "swisd.toml").write_text("[device\n")
    fails(up, "TOML", code=2)
    (home / "swisd.toml").unlink()
    (home / "swarm.key").write_text("not a key")
    fails(up, "key", code=2)


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        fails(
            ["up", "--headless", "--home", str(tmp_path), "--address", "127.0.0.1", "--port", str(port)],
            f"port {port} is in use", code=2,
        )  # fmt: skip


@pytest.mark.model
def test_a_live_swarm_and_those_who_do_not_belong(new_swarm: Callable[[], Swarm], tmp_path: Path) -> None:
    swarm = new_swarm()
    ann = swarm.start("ann", "--memory", "300MiB", "--context", "600")
    ann.wait_for("is in force")
    home = str(ann.home)

    fails(["ask", "", "--home", home], "empty", code=2)
    fails(["ask", "--home", home], "empty", code=2, stdin="  \n")
    fails(["ask", "word " * 3000, "--home", home], "tokens", "599", code=7)
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9 au lait")
    fails(["eval", str(latin), "--home", home], "UTF-8", code=2)
    fails(["eval", "-", "--home", home], "too short", code=2, stdin="a")
    fails(["eval", "-", "--model", "gpt-9", "--home", home], "gpt-9", code=7, stdin="some text to evaluate")
    fails(["up", "--headless", "--home", home], "runs already", code=2)
    fails(["models", "remove", "smollm2-135m-instruct-q4_1", "--home", home], "stop it first", code=2)

    where, _, _ = swarm.code.rpartition("/")
    wrong = f"{where}/{base64.b32encode(secrets.token_bytes(16)).decode().rstrip('=')}"
    fails(
        ["up", "--headless", "--home", str(tmp_path / "stranger"), "--join", wrong], "another swarm", code=4
    )

    host, _, port = where.removeprefix("swisd://").rpartition(":")
    for garbage in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\x0e\x00\x04MQTT\x04\x02\x00<\x00\x02me",
        bytes(4000),
    ):
        with socket.create_connection((host, int(port)), timeout=10) as stranger:
            stranger.sendall(garbage)
            stranger.shutdown(socket.SHUT_WR)
            stranger.settimeout(10)
            assert stranger.recv(100) == b""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(garbage, (host, int(port)))
    answer = swarm.ask("Are you still there?", "--max-tokens", "4", "--temperature", "0")
    assert len(answer["token_ids"]) > 0
    assert (
        json.loads(run(["status", "--json", "--home", home]).stdout)["swarm"]["members"][0]["liveness"]
        == "alive"
    )


@pytest.mark.model
def test_a_model_that_fits_nowhere(new_swarm: Callable[[], Swarm]) -> None:
    swarm = new_swarm()
    ann = swarm.start("ann", "--memory", "40MiB")
    ann.wait_for("no plan: ")
    text = run(["plan", "--home", str(ann.home)]).stdout
    assert "MiB" in text
    (ann.home / "swisd.toml").write_text("")
    last = fails(["ask", "hello", "--home", str(ann.home), "--wait", "3"], "MiB", code=7)
    assert "missing" in last
