"""What a person does with a swarm, on real processes over loopback."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.swarm import DeviceProcess, Swarm, run

pytestmark = [pytest.mark.live, pytest.mark.model, pytest.mark.timeout(240)]

MIB = 1 << 20
GREEDY = ("--temperature", "0")


def test_three_devices_that_each_hold_a_third_answer_within_their_offers(
    new_swarm: Callable[[], Swarm],
) -> None:
    swarm = new_swarm()
    for name in ("ann", "bob", "cyd"):
        swarm.start(name, "--memory", "64MiB")
    plan = swarm.plan()
    stages = plan["pipelines"][0]["stages"]
    assert len({stage["members"][0]["device"] for stage in stages}) == 3
    answer = swarm.ask("Tell me about the sea.", *GREEDY, "--max-tokens", "64")
    assert answer["finish_reason"] in ("length", "stop")
    for device in swarm.devices:
        assert device.resident_bytes() < (64 + 150) * MIB, device.name

    # Only the importer has the whole model; the others fetched just their units.
    whole = {path.name for path in (swarm.devices[0].home / "blobs").iterdir()}
    for device in swarm.devices[1:]:
        part = {path.name for path in (device.home / "blobs").iterdir()}
        assert part < whole
        assert not list(device.home.rglob("*.gguf"))

    text = run(["plan", "--home", str(swarm.devices[1].home)]).stdout
    assert "predicted" in text and "measured" in text
    for name in ("ann", "bob", "cyd"):
        assert name in text
    status = json.loads(run(["status", "--json", "--home", str(swarm.devices[2].home)]).stdout)
    assert {member["name"] for member in status["swarm"]["members"]} == {"ann", "bob", "cyd"}
    assert run(["code", "--home", str(swarm.devices[2].home)]).stdout.strip() == swarm.code


def test_a_stream_goes_on_with_the_same_tokens_when_a_worker_is_killed(
    new_swarm: Callable[[], Swarm],
) -> None:
    swarm = new_swarm()
    for name in ("ann", "bob", "cyd", "dan"):
        swarm.start(name, "--memory", "64MiB")
    swarm.devices[0].wait_for(r"plan \d+ is in force")
    host = swarm.devices[0]
    undisturbed = swarm.ask("Tell me a story.", *GREEDY, "--max-tokens", "120", device=host)["token_ids"]

    drivers = {shard["device"] for shard in json.loads(
        run(["plan", "--json", "--home", str(host.home)]).stdout)["plan"]["pipelines"][0]["stages"][:1]
        for shard in shard["members"]}  # fmt: skip
    used = {
        member["device"]
        for stage in json.loads(run(["plan", "--json", "--home", str(host.home)]).stdout)["plan"][
            "pipelines"
        ][0]["stages"]
        for member in stage["members"]
    }
    victims = [
        device
        for device in swarm.devices[1:]
        if (ident := json.loads((device.home / "device.json").read_text())["device"]) in used
        and ident not in drivers
    ]
    stream = Streaming(host.home, "Tell me a story.", *GREEDY, "--max-tokens", "120")
    stream.wait_for_tokens(20)
    victims[0].stop(signal.SIGKILL)
    swarm.devices.remove(victims[0])
    assert stream.finish() == undisturbed


class Streaming:
    """A running `swisd ask --json`, read line by line."""

    def __init__(self, home: Path, prompt: str, *options: str) -> None:
        from tests.live.swarm import environment, swisd

        self._process = subprocess.Popen(
            [*swisd(), "ask", prompt, "--json", "--home", str(home), *options], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=environment(), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.tokens: list[int] = []

    def wait_for_tokens(self, count: int) -> None:
        assert self._process.stdout is not None
        while len(self.tokens) < count:
            line = self._process.stdout.readline()
            assert line, self._process.stderr.read() if self._process.stderr else ""
            self.tokens.extend(json.loads(line)["token_ids"])

    def finish(self) -> list[int]:
        """The pieces' token ids, which must be those of the last object."""
        code, lines, words = self._rest()
        assert code == 0, words
        *pieces, last = [json.loads(line) for line in lines]
        for piece in pieces:
            self.tokens.extend(piece["token_ids"])
        assert last["token_ids"] == self.tokens
        return self.tokens

    def fail(self) -> tuple[int, str]:
        """It ends without an answer: its exit code and its last words."""
        code, lines, words = self._rest()
        for line in lines:
            self.tokens.extend(json.loads(line)["token_ids"])
        return code, words.strip().splitlines()[-1]

    def _rest(self) -> tuple[int, list[str], str]:
        # Through the stream that was read from before: `communicate` would pass over what it has buffered.
        watchdog = threading.Timer(120, self._process.kill)
        watchdog.start()
        try:
            assert self._process.stdout is not None and self._process.stderr is not None
            lines = self._process.stdout.readlines()
            words = self._process.stderr.read()
            return self._process.wait(10), lines, words
        finally:
            watchdog.cancel()


def test_sampling_with_a_seed_repeats_itself_and_eval_sees_no_split(
    new_swarm: Callable[[], Swarm], model_home: Path, tmp_path: Path
) -> None:
    swarm = new_swarm()
    swarm.start("ann", "--memory", "100MiB")
    swarm.start("bob", "--memory", "100MiB")
    swarm.plan()
    options = ("--seed", "7", "--temperature", "0.8", "--max-tokens", "30")
    first = swarm.ask("Hello!", *options)
    assert first["token_ids"] == swarm.ask("Hello!", *options)["token_ids"]
    assert first["token_ids"] != swarm.ask("Hello!", "--seed", "8", *options[2:])["token_ids"]

    text = tmp_path / "text.txt"
    text.write_text("The sea was calm, and the boat lay still. " * 8)
    split = json.loads(run(["eval", str(text), "--json", "--home", str(swarm.devices[1].home)]).stdout)
    alone = json.loads(run(["eval", str(text), "--json", "--home", str(model_home)]).stdout)
    assert len({shard["device"] for shard in split["plan"]["shards"]}) == 2
    assert len({shard["device"] for shard in alone["plan"]["shards"]}) == 1
    for name in ("perplexity", "token_ids", "top_ids", "top_logprobs", "next_logprobs"):
        assert split[name] == alone[name], name
    assert len(split["top_ids"]) == len(split["token_ids"]) and len(split["top_ids"][0]) == 20


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[str]:
    """A real Mosquitto on a free loopback port that wants a password."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(program).exists():
        pytest.skip("mosquitto is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), "swisd", "secret"], check=True, timeout=20
    )
    passwords.chmod(0o644)
    config = tmp_path / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n"
    )
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "running" in line:
            break
    yield f"mqtt://swisd:secret@127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


def test_an_external_broker_carries_the_swarm(new_swarm: Callable[[], Swarm], mosquitto: str) -> None:
    swarm = new_swarm()
    settings = f'[swarm]\nbroker = "{mosquitto}"\n'
    for name in ("ann", "bob", "cyd"):
        swarm.start(name, "--memory", "64MiB", settings=settings)
    everyone = swarm.devices
    everyone[-1].wait_for(r"plan \d+ is in force")
    answer = swarm.ask("What is rain?", *GREEDY, "--max-tokens", "16")
    assert len({shard["device"] for shard in answer["plan"]["shards"]}) == 3


def test_signals_end_a_device_cleanly(new_swarm: Callable[[], Swarm]) -> None:
    swarm = new_swarm()
    ann = swarm.start("ann", "--memory", "200MiB")
    bob = swarm.start("bob", "--memory", "200MiB")
    ann.wait_for("is in force")
    assert bob.stop(signal.SIGINT) == 0
    ann.wait_for("bob left")
    assert ann.stop(signal.SIGTERM) == 0
    swarm.devices.clear()
    assert not (ann.home / "node.json").exists()
    assert not any("Traceback" in line for device in (ann, bob) for line in device.lines)


PHONE = """
import sys
from importlib.machinery import PathFinder
LACKS = {"amqtt", "zeroconf", "psutil", "onnx", "gguf", "tokenizers", "cryptography", "argon2", "pydantic"}
class Lacking(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in LACKS else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Lacking
from swisd.cli.app import main
main()
"""


def test_a_phone_without_the_laptops_packages_works_and_asks(new_swarm: Callable[[], Swarm]) -> None:
    """What cannot be installed in Termux cannot be found: the device is a worker and an asker still."""
    swarm = new_swarm()
    swarm.start("laptop", "--memory", "80MiB")
    phone = swarm.start("phone", "--memory", "80MiB", program=[sys.executable, "-c", PHONE])
    swarm.devices[0].wait_for("is in force")
    answer = swarm.ask("What is snow?", *GREEDY, "--max-tokens", "12", device=phone)
    assert {shard["name"] for shard in answer["plan"]["shards"]} == {"laptop", "phone"}
    command = ["ask", "What is snow?", *GREEDY, "--max-tokens", "12", "--json", "--home", str(phone.home)]
    done = subprocess.run(
        [sys.executable, "-c", PHONE, *command], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1])["token_ids"] == answer["token_ids"]


def test_the_swarm_forms_again_when_its_host_comes_back(
    new_swarm: Callable[[], Swarm],
) -> None:
    swarm = new_swarm()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    host = swarm.start("host", "--memory", "90MiB", "--port", port)
    worker = swarm.start("worker", "--memory", "90MiB", settings="[swarm]\nfind_seconds = 2.0\n")
    worker.wait_for("is in force")
    before = swarm.ask("What is snow?", *GREEDY, "--max-tokens", "12")
    host.stop(signal.SIGKILL)
    worker.wait_for("bus")
    mark = worker.mark
    home = host.home
    again = DeviceProcess(
        "host", home, ["--memory", "90MiB", "--threads", "1", "--address", "127.0.0.1", "--port", port]
    )
    swarm.devices[0] = again
    worker.wait_for("is in force", after=mark)
    after = swarm.ask("What is snow?", *GREEDY, "--max-tokens", "12")
    assert after["token_ids"] == before["token_ids"]
    assert after["plan"]["epoch"] > before["plan"]["epoch"]
