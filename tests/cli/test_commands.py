"""The commands: results on standard output, words on standard error, exit codes that tell."""

import asyncio
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swisd import __version__
from swisd.cli import ask as ask_module
from swisd.cli import show, up
from swisd.cli.up import Printer, UpOptions, apply
from swisd.client.kept import KeptSession, keep
from swisd.core.effects import Notice
from swisd.core.errors import BadInput, NoSwarm, SessionFailed
from swisd.core.events import BusChanged
from swisd.core.messages import Digest, MemberView
from swisd.core.types import Member, Pipeline, Plan, Prediction, Spare, Stage
from swisd.node import importing
from swisd.node.home import Home, Running
from swisd.node.joining import Way
from swisd.node.settings import Settings
from swisd.wire.joincode import JoinCode, parse_join_code
from tests.cli.conftest import Run
from tests.client.test_asking import ids_of
from tests.node.fakes import FakeModel
from tests.tiny_models import write_model

TOP = ("", "up", "ask", "eval", "status", "plan", "code", "models")
COMMANDS = [*TOP, *(f"models {name}" for name in ("list", "add", "pull", "show", "remove"))]
GREEDY = ("--raw", "--temperature", "0", "--max-tokens", "6")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_explains_itself(swisd: Run, command: str, option: str) -> None:
    done = swisd(*command.split(), option)
    assert done.code == 0 and "Usage: " in done.out and done.err == ""


def test_the_version(swisd: Run) -> None:
    done = swisd("--version")
    assert (done.code, done.out) == (0, f"swisd {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("nonsense",), "nonsense"), (("ask", "hi", "--temperature", "-1"), "temperature"),
        (("ask", "hi", "--top-p", "2"), "top-p"), (("ask", "hi", "--seed", "x"), "seed"),
        (("ask", "--bogus"), "bogus"), (("eval",), "path"), (("up", "--port", "70000"), "port"),
        (("up", "--objective", "speed"), "objective"), (("models", "show"), "model_id"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_on_standard_error(swisd: Run, arguments: tuple[str, ...], word: str) -> None:
    done = swisd(*arguments)
    assert done.code == 2 and done.out == "" and word in done.err


# --- ask and eval --------------------------------------------------------------------------------------


def test_an_answer_goes_to_standard_output_and_nothing_else_does(swisd: Run, home: Path) -> None:
    done = swisd("ask", "the sea", *GREEDY, "--home", home)
    assert done.code == 0
    assert done.out.endswith("\n") and done.out.count("\n") == 1 and len(done.out) > 1
    assert "[6 tokens" in done.last and "lone" in done.last
    assert "running on this device alone" in done.err
    again = swisd("ask", "-", *GREEDY, "--home", home, stdin=b"the sea")
    assert again.out == done.out
    assert swisd("ask", *GREEDY, "--home", home, stdin=b"the sea").out == done.out


def test_json_lines_parse_and_add_up(swisd: Run, home: Path) -> None:
    done = swisd("ask", "the sea", *GREEDY, "--json", "--home", home)
    *pieces, answer = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert "".join(piece["text"] for piece in pieces) == answer["text"]
    assert [token for piece in pieces for token in piece["token_ids"]] == answer["token_ids"]
    assert answer["finish_reason"] == "length" and answer["timings"]["decode_tokens"] == 6
    assert answer["plan"]["shards"][0]["name"] == "lone"


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "word"),
    [
        (("ask", ""), b"", 2, "empty"), (("ask",), b" \n", 2, "empty"), (("ask",), b"caf\xe9", 2, "UTF-8"),
        (("ask", "caf\udce9"), b"", 2, "UTF-8"),
        (("ask", "hi", "--max-tokens", "99999999"), b"", 2, "max_tokens"),
        (("ask", "word " * 400, "--raw"), b"", 7, "tokens"), (("eval", "-"), b"a", 2, "too short"),
        (("eval", "/nonexistent"), b"", 2, "/nonexistent"), (("eval", "/"), b"", 2, "cannot read /"),
        (("eval", "~nobody-has-this/x"), b"", 2, "cannot read ~nobody"),
        (("eval", "-", "--model", "gpt-9"), b"the sea", 7, "gpt-9"), (("status",), b"", 3, "swisd up"),
        (("plan",), b"", 3, "swisd up"), (("code",), b"", 3, "swisd up"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_an_exit_code(
    swisd: Run, home: Path, arguments: tuple[str, ...], stdin: bytes, code: int, word: str
) -> None:
    done = swisd(*arguments, "--home", home, stdin=stdin)
    assert done.code == code, done.err
    assert done.out == "" and done.last.startswith("swisd: ") and word in done.last


def test_scores_in_words_and_in_json(swisd: Run, home: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the sea was calm")
    done = swisd("eval", text, "--home", home)
    assert done.code == 0 and done.out.startswith("perplexity ") and done.out.count("\n") == 1
    value = json.loads(
        swisd("eval", "-", "--json", "--top", "2", "--home", home, stdin=text.read_bytes()).out
    )
    assert len(value["top_ids"]) == len(value["token_ids"]) and len(value["top_ids"][0]) == 2
    assert f"{value['perplexity']:.4f}" in done.out


def test_what_was_answered_before_an_error_ends_its_line(
    swisd: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(*_: Any, **__: Any) -> Any:
        yield ask_module.Piece("half an ", (1,))
        raise SessionFailed("the driver is gone")

    monkeypatch.setattr(ask_module.Client, "stream", stream)
    done = swisd("ask", "hi", "--home", home)
    assert (done.code, done.out) == (7, "half an \n") and "the driver is gone" in done.last


@pytest.mark.parametrize(
    ("arguments", "prompt", "patience"),
    [
        (("ask", "hi"), "hi", None), (("ask", "--wait", "hi"), "hi", math.inf),
        (("ask", "hi", "--wait"), "hi", math.inf), (("ask", "--wait", "90", "hi"), "hi", 90.0),
        (("ask", "hi", "--wait=2.5"), "hi", 2.5), (("ask", "--wait", "--raw", "hi"), "hi", math.inf),
        (("ask", "--", "--wait"), "--wait", None),
        ],
)  # fmt: skip
def test_waiting_with_and_without_a_figure(
    swisd: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    prompt: str,
    patience: float | None,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        ask_module, "run_ask", lambda home, prompt, options, lines: asked.append((prompt, options.patience))
    )
    assert swisd(*arguments).code == 0
    assert asked == [(prompt, patience)]


def test_going_on_with_an_answer(swisd: Run, home: Path, fake_home: FakeModel) -> None:
    whole = swisd("ask", "the sea", *GREEDY, "--json", "--home", home)
    answer = json.loads(whole.out.splitlines()[-1])
    kept = KeptSession(
        "ab" * 8, fake_home.sha, "fake-4x16", tuple(ids_of(fake_home, "the sea")),
        tuple(answer["token_ids"][:3]), (), 6, 1, text="the sea",
    )  # fmt: skip
    keep(fake_home.home, kept)
    damaged = fake_home.home.sessions / f"{'cd' * 8}.json"
    damaged.write_text("{}")
    done = swisd("ask", "--continue", "ab" * 8, "--home", home)
    assert (done.code, done.out) == (0, answer["text"] + "\n") and "[3 tokens" in done.last
    again = swisd("ask", "--continue", "ab" * 8, "--home", home)
    assert again.code == 2 and again.out == "" and f"there are: {'cd' * 8}" in again.last
    assert "damaged" in swisd("ask", "--continue", "cd" * 8, "--home", home).last


@pytest.mark.parametrize(
    "more", [("hello",), ("--raw",), ("--seed", "1"), ("--max-tokens", "5"), ("--temperature", "0")]
)
def test_going_on_takes_nothing_else(swisd: Run, tmp_path: Path, more: tuple[str, ...]) -> None:
    done = swisd("ask", "--continue", "ab" * 8, *more, "--home", tmp_path)
    assert done.code == 2 and "leave out" in done.last


# --- status, plan, code --------------------------------------------------------------------------------

ANN = "22" * 8
DIGEST = Digest(
    ANN, 3, 1, (MemberView(ANN, "ann", "alive", "ready", (), 1, 2, True, 3, stage_ms=4.5),), token_ms=5.5
)
PLAN = Plan(
    3, ANN, "ab" * 32, "tiny", 9, 512, "latency", (), Prediction(0, 0, (), ()), problem="too little memory"
)


@pytest.mark.parametrize("plan", [PLAN, None], ids=["plan", "no plan"])
def test_status_and_plan(
    swisd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan | None
) -> None:
    monkeypatch.setattr(show.Client, "status", lambda self: (DIGEST, plan))
    status = swisd("status", "--home", tmp_path)
    assert status.code == 0 and "ann" in status.out and status.err == ""
    value = json.loads(swisd("status", "--json", "--home", tmp_path).out)
    assert value["swarm"]["members"][0]["name"] == "ann"
    assert (value["plan"] or {}).get("problem") == (plan.problem if plan else None)
    assert swisd("plan", "--home", tmp_path).out.strip()
    value = json.loads(swisd("plan", "--json", "--home", tmp_path).out)
    assert value["measured_token_ms"] == 5.5 and value["measured_stage_ms"] == {ANN: 4.5}
    assert (value["plan"] is None) == (plan is None)


def test_who_stands_in_for_whom_is_in_the_json(
    swisd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = "33" * 8
    members = (DIGEST.members[0], replace(DIGEST.members[0], device=bob, name="bob", warm=((0, 6),)))
    pipeline = Pipeline((Stage(0, 6, (Member(ANN),)),))
    plan = replace(PLAN, pipelines=(pipeline,), active=True, problem="", spares=(Spare(bob, 0, 6),))
    monkeypatch.setattr(show.Client, "status", lambda self: (replace(DIGEST, members=members), plan))
    for command in ("plan", "status"):
        value = json.loads(swisd(command, "--json", "--home", tmp_path).out)
        assert value["cover"] == [{"device": ANN, "units": [[0, 6]], "by": bob, "state": "loaded"}]


def test_the_join_code_is_the_output_and_its_picture_is_not(swisd: Run, tmp_path: Path) -> None:
    home = Home(tmp_path)
    key = home.make_key()
    done = swisd("code", "--home", tmp_path)
    assert done.code == 0 and parse_join_code(done.out) == JoinCode(key)
    assert done.out.count("\n") == 1 and len(done.err.splitlines()) > 10
    home.remember_host("10.0.0.7", 7950)
    assert parse_join_code(swisd("code", "--home", tmp_path).out) == JoinCode(key, "10.0.0.7", 7950)
    home.set_running(Running(os.getpid(), "10.0.0.9", 7947, 7948))
    assert parse_join_code(swisd("code", "--home", tmp_path).out) == JoinCode(key, "10.0.0.9", 7947)
    home.set_running(Running(os.getpid(), "127.0.0.1", 7947, 7947, address="10.0.0.5"))
    assert parse_join_code(swisd("code", "--home", tmp_path).out) == JoinCode(key, "10.0.0.5", 7947)
    home.set_running(Running(os.getpid(), "broker.lan", 1883, 7947, broker="mqtt://broker.lan"))
    assert parse_join_code(swisd("code", "--home", tmp_path).out) == JoinCode(key)


# --- models --------------------------------------------------------------------------------------------


def test_a_model_is_added_listed_shown_and_removed(swisd: Run, tmp_path: Path) -> None:
    home = ("--home", tmp_path / "home")
    file = write_model(tmp_path / "Tiny One.gguf", "llama", "Q8_0")
    done = swisd("models", "add", file, *home)
    assert (done.code, done.out) == (0, "tiny-one\n")
    assert "units" in done.err and "imported" in done.err
    listed = swisd("models", "list", *home)
    assert "tiny-one  whole" in listed.out and "swisd models pull smollm2" in listed.out and listed.err == ""
    values = [json.loads(line) for line in swisd("models", "list", "--json", *home).out.splitlines()]
    assert {value["model_id"]: value["units_here"] for value in values}["tiny-one"] == 4
    assert len(values) > 1
    shown = swisd("models", "show", "tiny-one", *home)
    assert "architecture: llama" in shown.out
    facts = json.loads(swisd("models", "show", "tiny-one", "--json", *home).out)
    assert facts["ranges_here"] == [[0, 4]] and facts["bytes"] == facts["bytes_here"] and facts["imported"]
    second = swisd("models", "add", file, "--id", "other", *home)
    assert (second.code, second.out) == (0, "other\n")
    removed = swisd("models", "remove", "tiny-one", *home)
    assert removed.code == 0 and removed.out.startswith("removed tiny-one")
    assert swisd("models", "show", "other", *home).code == 0
    swisd("models", "remove", "other", *home)
    assert list((tmp_path / "home" / "blobs").iterdir()) == []


def test_models_that_are_not_there(swisd: Run, tmp_path: Path) -> None:
    home = ("--home", tmp_path / "home")
    (tmp_path / "photo.gguf").write_bytes(b"\x89PNG" + bytes(5000))
    for arguments, code, word in (
        (("add", tmp_path / "nothing.gguf"), 2, "no file"),
        (("add", tmp_path / "photo.gguf"), 5, "photo.gguf"),
        (("add", tmp_path / "photo.gguf", "--id", "../../etc"), 2, "not a model id"),
        (("pull", "gpt-9"), 5, "smollm2"),
        (("show", "gpt-9"), 5, "gpt-9"),
        (("remove", "gpt-9"), 5, "gpt-9"),
        (("remove", "../../etc"), 2, "not a model id"),
    ):
        done = swisd("models", *arguments, *home)
        assert (done.code, done.out) == (code, "") and word in done.last, done.err


def test_a_file_with_the_name_of_a_card_is_a_file(
    swisd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def imports(source: str, home: Path, progress: Any, *, model_id: str = "") -> str:
        asked.append(source)
        return "id"

    monkeypatch.setattr(importing, "import_model", imports)
    monkeypatch.chdir(tmp_path)
    card = "smollm2-135m-instruct-q4_1"
    Path(card).write_bytes(b"")
    assert swisd("models", "add", card, "--home", tmp_path / "home").code == 0
    assert swisd("models", "pull", card, "--home", tmp_path / "home").code == 0
    assert asked == [str(tmp_path / card), card]


def test_a_damaged_model_does_not_hide_the_others(swisd: Run, home: Path) -> None:
    entry = json.loads((home / "models" / "fake-4x16.json").read_text())
    lost = entry | {"model_id": "lost", "manifest": "0" * 64}
    (home / "models" / "lost.json").write_text(json.dumps(lost))
    done = swisd("models", "list", "--home", home)
    assert done.code == 0 and "fake-4x16  whole" in done.out and "lost is damaged" in done.err
    assert swisd("models", "remove", "lost", "--home", home).code == 0


def test_a_model_in_use_is_not_removed(swisd: Run, home: Path) -> None:
    Home(home).set_running(Running(os.getpid(), "127.0.0.1", 1, 1))
    done = swisd("models", "remove", "fake-4x16", "--home", home)
    assert done.code == 2 and "stop it first" in done.last


# --- up ------------------------------------------------------------------------------------------------


def test_the_command_line_comes_before_the_settings() -> None:
    base = replace(Settings(), device=replace(Settings().device, name="file", threads=2))
    assert apply(base, UpOptions()) == base
    made = apply(
        base, UpOptions(name="n" * 50, model="tiny", objective="spread", context=64, broker="mqtt://b")
    )
    assert (made.device.name, made.device.threads) == ("n" * 32, 2)
    assert (made.model.id, made.model.objective, made.model.context) == ("tiny", "spread", 64)
    assert made.swarm.broker == "mqtt://b"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("--memory", "lots"), "64MiB"), (("--memory", "12B"), "too little"), (("--context", "5"), "context"),
     (("--threads", "5000"), "threads"), (("--model", "m" * 101), "model.id"),
     (("--join", "hello"), "join code"), (("--broker", "http://x"), "mqtt://")],
)  # fmt: skip
def test_options_of_up_that_make_no_sense(
    swisd: Run, tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    done = swisd("up", "--headless", "--home", tmp_path, *arguments)
    assert done.code == 2 and done.out == "" and word in done.last


class Devices:
    """In the place of `Device`: what happens to it, and how it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.stuck = False
        self.refuses = False
        monkeypatch.setattr(up, "Device", self)
        monkeypatch.setattr(up, "find_way", self._way)

    async def _way(self, *_: Any) -> Way:
        return Way(b"k" * 16, said="a new swarm")

    def __call__(self, *_: Any) -> "Devices":
        return self

    port, join_code = 7947, "swisd://code"

    async def start(self) -> None:
        self.log.append("start")
        if self.refuses:
            raise NoSwarm("no way in")
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), 15)

    async def stop(self) -> None:
        self.log.append("stop")
        if self.stuck:
            await asyncio.Event().wait()


def test_a_device_runs_until_it_is_told_to_stop(
    swisd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = Devices(monkeypatch)
    done = swisd("up", "--headless", "--home", tmp_path)
    assert (done.code, done.out, devices.log) == (0, "", ["start", "stop"])
    assert "join code: swisd://code" in done.err and done.last == "leaving the swarm"


def test_a_device_that_does_not_end_is_left(
    swisd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = Devices(monkeypatch)
    devices.stuck = True
    monkeypatch.setattr(up, "STOP_S", 0.01)
    done = swisd("up", "--headless", "--home", tmp_path)
    assert done.code == 0 and "not everything ended" in done.last


def test_a_device_that_cannot_start_says_why(
    swisd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Devices(monkeypatch).refuses = True
    done = swisd("up", "--headless", "--home", tmp_path)
    assert (done.code, done.last) == (3, "swisd: no way in")


def test_a_line_per_event_and_no_line_twice() -> None:
    lines: list[str] = []
    printer = Printer(lines.append)
    active = replace(PLAN, active=True, prediction=Prediction(12.34, 1, (), ()))
    a_pipeline = Pipeline((Stage(0, 4, (Member(ANN),)),))
    replicas = replace(active, epoch=4, pipelines=(a_pipeline, a_pipeline))
    for event in (Notice("info", "hello"), Notice("info", "hello"), Notice("error", "no disk"), DIGEST, PLAN,
                  active, replicas, BusChanged(True), BusChanged(False, "gone")):  # fmt: skip
        printer(event)
    assert [line.split(" ", 1)[1] for line in lines] == [
        "hello", "error: no disk", "plan 3 is in force: 12.3 ms/token predicted",
        "plan 4 is in force: 2 pipelines, 12.3 ms/token predicted",
        "not connected to the bus: gone",
    ]  # fmt: skip


def test_the_same_line_is_told_again_after_a_while() -> None:
    lines: list[str] = []
    times = iter([100.0, 101.0, 159.9, 160.0, 161.0])
    printer = Printer(lines.append, lambda: next(times))
    for _ in range(4):
        printer(Notice("warning", "bob is lost"))
    assert len(lines) == 2
    printer(Notice("info", "bob is back"))
    assert len(lines) == 3


def test_bad_input_is_what_apply_raises() -> None:
    with pytest.raises(BadInput, match=r"option device\.threads"):
        apply(Settings(), UpOptions(threads=5000))
