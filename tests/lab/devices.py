"""Real devices on the lab's hosts, and questions whose stream is read while trouble is made."""

import contextlib
import json
import select
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swisd.wire.joincode import JoinCode, parse_join_code
from tests.lab.lab import Host, Lab, kill
from tests.live.swarm import DeviceProcess, environment, give_model, run, swisd


@dataclass
class Devices:
    """A swarm on hosts of a lab: the first device holds the model and is asked to lead."""

    lab: Lab
    model_home: Path
    running: dict[str, DeviceProcess] = field(default_factory=dict)
    code: JoinCode | None = None
    first_plan_air_s: float = 0.0  # air time that finding each other, measuring and planning took

    def start(self, host: Host, *arguments: str, model: bool = True, settings: str = "") -> DeviceProcess:
        """A device on a host; with `model` its home holds the blobs already, so nothing is fetched."""
        if settings:
            (host.home / "swisd.toml").write_text(settings)
        if model:
            give_model(self.model_home, host.home)
        options = ["--threads", "1", *arguments]
        if self.code is not None:
            options += ["--join", str(self.code)]
        device = DeviceProcess(host.name, host.home, options, host.prefix)
        self.running[host.name] = device
        if self.code is None:
            self.code = parse_join_code(device.wait_for(r"join code: (swisd://\S+)")[1])
        return device

    def ident(self, name: str) -> str:
        """The id that plans know the device by."""
        return str(json.loads((self.lab.hosts[name].home / "device.json").read_text())["device"])

    def json(self, name: str, *command: str) -> dict[str, Any]:
        """What a command with `--json` says on a device's host."""
        host = self.lab.hosts[name]
        done = run([*command, "--json", "--home", str(host.home)], prefix=host.prefix)
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def stages(self, name: str) -> list[str]:
        """Names of the devices of the plan in force, each pipeline's driver first."""
        names = {self.ident(each): each for each in self.running}
        plan = self.json(name, "plan")["plan"]
        stages = [stage for pipeline in plan["pipelines"] for stage in pipeline["stages"]]
        return [names[stage["members"][0]["device"]] for stage in stages]

    def ask(self, name: str, prompt: str, *options: str) -> "Answer":
        return Answer(self.lab.hosts[name], prompt, *options)

    def said(self) -> str:
        """The last lines of every device, for a failure's report."""
        return "\n".join(
            f"--- {name}\n" + "\n".join(device.lines[-25:]) for name, device in self.running.items()
        )

    def close(self) -> None:
        for device in reversed(self.running.values()):
            with contextlib.suppress(AssertionError):
                device.stop()
            if device.process.poll() is None:
                kill(device.process)


class Answer:
    """A running `swisd ask --json` on a host."""

    def __init__(self, host: Host, prompt: str, *options: str) -> None:
        self._process = subprocess.Popen(
            [*host.prefix, *swisd(), "ask", prompt, "--json", "--home", str(host.home), *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._pending = b""
        self.tokens: list[int] = []
        self.last: dict[str, Any] = {}

    def wait_for_tokens(self, count: int, *, within: float) -> None:
        """Until so many tokens have come."""
        deadline = time.monotonic() + within
        while len(self.tokens) < count:
            assert self._read(deadline), f"ended after {len(self.tokens)} tokens: {self._errors()}"

    def finish(self, *, within: float) -> list[int]:
        """The tokens of the whole stream, which must be those of its last object."""
        deadline = time.monotonic() + within
        while self._read(deadline):
            pass
        assert self._process.wait(5) == 0, self._errors()
        assert self.last["token_ids"] == self.tokens
        self.close()
        return self.tokens

    def close(self) -> None:
        if self._process.poll() is None:
            kill(self._process)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def _read(self, deadline: float) -> bool:
        """One more piece of output; False at the end."""
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            got = len(self.tokens)
            self._process.kill()
            raise AssertionError(f"the answer hangs after {got} tokens: {self._errors()}")
        came = stdout.read1(65536)  # type: ignore[attr-defined]
        *lines, self._pending = (self._pending + came).split(b"\n")
        for line in lines:
            piece = json.loads(line)
            if piece.get("finish_reason"):
                self.last = piece
            else:
                self.tokens.extend(piece["token_ids"])
        return bool(came)

    def _errors(self) -> str:
        if self._process.poll() is None:
            kill(self._process)
        assert self._process.stderr is not None
        return self._process.stderr.read().decode(errors="replace")
