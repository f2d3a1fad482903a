"""Real devices as processes: on loopback or in namespaces, waited for by what they print, ended by id."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WAIT_S = 90.0


class DeviceProcess:
    """One `swisd up --headless`. Its lines on standard error are kept; `wait_for` waits for one of them."""

    def __init__(
        self, name: str, home: Path, arguments: Sequence[str], prefix: Sequence[str] = (),
        program: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.name, self.home = name, home
        self.lines: list[str] = []
        self._news = threading.Condition()
        command = [
            *prefix,
            *(program or swisd()),
            "up",
            "--headless",
            "--name",
            name,
            "--home",
            str(home),
            *arguments,
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, pattern: str, *, after: int = 0, within: float = WAIT_S) -> re.Match[str]:
        """The first line from number `after` on that matches; fails with the device's words."""
        deadline = time.monotonic() + within
        with self._news:
            while True:
                for line in self.lines[after:]:
                    if match := re.search(pattern, line):
                        return match
                left = deadline - time.monotonic()
                ended = self.process.poll() is not None and not self._reader.is_alive()
                if left <= 0 or ended:
                    said = "\n".join(self.lines[-30:])
                    raise AssertionError(f"{self.name} never said {pattern!r}; it said:\n{said}")
                self._news.wait(min(left, 1.0))

    @property
    def mark(self) -> int:
        """A place in the output, for `wait_for(after=...)`."""
        return len(self.lines)

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        return resident_bytes(self.process.pid)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise AssertionError(f"{self.name} did not stop within 15 s: {self.lines[-10:]}") from None


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, each page once.

    Linux counts a page of shared memory as often as it is mapped, and caches of a session are mapped several
    times by the process that has them (`swisd/runtime/mirrors.py`).
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    status = Path(f"/proc/{pid}/status").read_text()
    shared = re.search(r"RssShmem:\s+(\d+) kB", status)
    return 1024 * (sizes["Rss"] - (int(shared[1]) if shared else 0) + sizes.get("Pss_Shmem", 0))


@dataclass
class Swarm:
    """Devices that share a key, the first being the host. `model_home` is a home with the model imported."""

    root: Path
    model_home: Path
    devices: list[DeviceProcess] = field(default_factory=list)
    code: str = ""

    def start(
        self, name: str, *arguments: str, settings: str = "", program: Sequence[str] = ()
    ) -> DeviceProcess:
        """Start a device (with another program, if given). The first holds the model; the others join it."""
        home = self.root / name
        home.mkdir(parents=True, exist_ok=True)
        if settings:
            (home / "swisd.toml").write_text(settings)
        options = [*arguments, "--address", "127.0.0.1"]
        if "--threads" not in options:
            options += ["--threads", "1"]
        if self.devices:
            options += ["--join", self.code]
        else:
            give_model(self.model_home, home)
        device = DeviceProcess(name, home, options, program=program)
        self.devices.append(device)
        if not self.code:
            self.code = device.wait_for(r"join code: (swisd://\S+)")[1]
        return device

    def plan(self, *, after: dict[str, int] | None = None) -> dict[str, Any]:
        """Wait until a plan is in force and return it."""
        host = self.devices[0]
        host.wait_for(r"plan \d+ is in force", after=(after or {}).get(host.name, 0))
        return json.loads(run(["plan", "--json", "--home", str(host.home)]).stdout)["plan"]

    def ask(self, prompt: str, *options: str, device: DeviceProcess | None = None) -> dict[str, Any]:
        """`swisd ask --json` from a device's home; returns the last object."""
        home = (device or self.devices[-1]).home
        done = run(["ask", prompt, "--json", "--home", str(home), *options])
        return json.loads(done.stdout.splitlines()[-1])

    def close(self) -> None:
        """Stop all, the host last."""
        for device in reversed(self.devices):
            if device.process.poll() is None:
                device.process.send_signal(signal.SIGTERM)
        for device in reversed(self.devices):
            device.stop()


def swisd() -> list[str]:
    """The command under test."""
    return [sys.executable, "-c", "from swisd.cli.app import main; main()"]


def environment() -> dict[str, str]:
    """This environment without the person's own swisd."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SWISD_")}


def run(
    arguments: Sequence[str], *, check: bool = True, within: float = WAIT_S, stdin: str | None = None,
    prefix: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a command to its end; fails with its words if it fails and `check` is on."""
    done = subprocess.run(
        [*prefix, *swisd(), *arguments], check=False, capture_output=True, text=True, timeout=within,
        env=environment(), input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
    )  # fmt: skip
    if check and done.returncode != 0:
        raise AssertionError(f"swisd {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done


def give_model(source: Path, home: Path) -> None:
    """The model of one home in another, by hard links: same bytes, no copy."""
    for folder in ("blobs", "models"):
        (home / folder).mkdir(parents=True, exist_ok=True)
        for path in (source / folder).iterdir():
            target = home / folder / path.name
            if not target.exists():
                try:
                    os.link(path, target)
                except OSError:
                    shutil.copyfile(path, target)
