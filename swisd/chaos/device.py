"""One device as a process of this machine: its lines with the time at which they came, and its end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swisd.core.errors import SessionFailed

STOP_S = 15.0
LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Line:
    """What a device said, and when: seconds of the monotonic clock of this process."""

    at: float
    device: str  # its name
    text: str


class DeviceProcess:
    """One `swisd up --headless` on loopback; its words also go to `up.log` in its home.

    It has a process group of its own, so that Ctrl-C reaches whoever started it and not the device.
    """

    program = "from swisd.cli.app import main; main()"  # what Python runs; measurements put theirs around it

    def __init__(self, name: str, home: Path, arguments: Sequence[str]) -> None:
        self.name = name
        self.lines: list[Line] = []
        self._news = threading.Condition()
        command = [
            sys.executable, "-c", self.program, "up", "--headless",
            "--home", str(home), "--name", name, "--address", "127.0.0.1", *arguments,
        ]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SWISD_")}
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", env=environment, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=(home / "up.log",), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended; a frozen one has not."""
        return self._process.poll() is None

    def wait_for(self, words: str, within: float) -> str:
        """The first line with these words. Raises `SessionFailed` with the device's last words."""
        deadline = time.monotonic() + within
        with self._news:
            while True:
                for line in self.lines:
                    if words in line.text:
                        return line.text
                left = deadline - time.monotonic()
                if left <= 0 or not (self.running or self._reader.is_alive()):
                    said = " / ".join(line.text for line in self.lines[-LAST_LINES:]) or "nothing"
                    raise SessionFailed(f"{self.name} did not say {words!r}; it said: {said}")
                self._news.wait(min(left, 0.5))

    def send(self, number: int) -> None:
        """Send a signal, if there is still somebody to get it."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def wait_end(self, within: float = STOP_S) -> None:
        """Wait for the end that was asked for; after a deadline the process is killed."""
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(within)

    def ask_to_end(self) -> None:
        """As a person's Ctrl-C does it; a frozen process is woken for that."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)

    def _read(self, log: Path) -> None:
        assert self._process.stderr is not None
        with log.open("a") as file, self._process.stderr as stream:
            for text in stream:
                line = Line(time.monotonic(), self.name, text.rstrip())
                file.write(f"{line.at:.3f} {line.text}\n")
                file.flush()
                with self._news:
                    self.lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()
