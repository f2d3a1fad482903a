"""A swarm of real processes on this machine's loopback, for measuring."""

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from swisd.core.errors import SessionFailed

START_S = 60.0
PLAN_S = 180.0
STOP_S = 15.0


class LocalSwarm:
    """`count` devices, one thread each; `homes[0]` is the host's. Use as a context manager.

    `model_home` holds the model, which the host gets as links and the others over TCP. Raises `SessionFailed`
    if the devices do not come up.
    """

    def __init__(
        self, root: Path, model_home: Path, count: int, *, lane: str = "auto", objective: str = "spread"
    ):
        self.homes = [root / f"d{number}" for number in range(count)]
        self._model_home, self._lane, self._objective = model_home, lane, objective
        self._processes: list[subprocess.Popen[str]] = []
        self._said: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> "LocalSwarm":
        try:
            code = ""
            for number, home in enumerate(self.homes):
                home.mkdir(parents=True, exist_ok=True)
                (home / "swisd.toml").write_text(f'[swarm]\nlane = "{self._lane}"\n')
                if number == 0:
                    _link_model(self._model_home, home)
                    self._start(home, ["--objective", self._objective])
                    code = self._wait("join code: ", START_S).partition("join code: ")[2]
                else:
                    self._start(home, ["--join", code])
            while f": {len(self.homes)} device(s)" not in self._wait("plan ", PLAN_S):
                continue
            self._wait("is in force", PLAN_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, home: Path, more: Sequence[str]) -> None:
        command = [
            sys.executable, "-c", "from swisd.cli.app import main; main()", "up", "--headless",
            "--home", str(home), "--name", home.name, "--threads", "1", "--address", "127.0.0.1",
            "--memory", "1GiB", *more,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        first = not self._processes
        self._processes.append(process)
        threading.Thread(target=self._read, args=(process, first), daemon=True).start()

    def _read(self, process: "subprocess.Popen[str]", host: bool) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if host:
                self._said.put(line.rstrip())

    def _wait(self, words: str, seconds: float) -> str:
        while True:
            try:
                line = self._said.get(timeout=seconds)
            except queue.Empty:
                raise SessionFailed(f"the devices did not say {words!r} within {seconds:.0f} s") from None
            if words in line:
                return line


def _link_model(source: Path, home: Path) -> None:
    for folder in ("blobs", "models"):
        (home / folder).mkdir(exist_ok=True)
        for path in (source / folder).iterdir():
            target = home / folder / path.name
            if not target.exists():
                target.hardlink_to(path)
