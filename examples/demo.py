"""`make demo`: three devices on this machine, none with memory for the whole model, answer one question.

Uses the `swisd` commands as a person would. Everything stays on the loopback interface and under
`build/demo/`; what was fetched stays there, so that a second run is quick.
"""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO

import swisd
from swisd.client import SwisdError

MODEL = "smollm2-135m-instruct-q4_1"
MEMORY = "64MiB"
NAMES = ("laptop-a", "laptop-b", "laptop-c")
PROMPT = "Explain in three sentences how rain forms."
OPTIONS = ("--seed", "2", "--temperature", "0.3", "--max-tokens", "100")
ROOT = Path(__file__).resolve().parent.parent / "build" / "demo"

PULL_S, START_S, PLAN_S, ANSWER_S, STOP_S, INTERRUPT_S = 1800.0, 30.0, 240.0, 180.0, 15.0, 5.0
FIGURES_S = 6.0
QUIET_S = 4.0  # with nothing to read for so long, say what the devices are doing


class DemoFailed(Exception):
    """What went wrong, in a line."""


class Device:
    """One `swisd up` in a process of its own. What it says goes to a file and to `heard`."""

    def __init__(self, name: str, heard: "queue.Queue[tuple[str, str]]", *more: str) -> None:
        self.name, self.home = name, ROOT / name
        self.tail: deque[str] = deque(maxlen=15)
        self._heard = heard
        command = [
            *swisd_command(), "up", "--headless", "--name", name, "--home", str(self.home),
            "--memory", MEMORY, "--threads", "1", "--address", "127.0.0.1", *more,
        ]  # fmt: skip
        # A session of its own: Ctrl-C reaches this program alone, which then stops the devices in order.
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        with (ROOT / f"{self.name}.log").open("w") as log:
            for line in stream:
                log.write(line)
                log.flush()
                self.tail.append(line.rstrip())
                self._heard.put((self.name, line.rstrip()))
        self._heard.put((self.name, ""))

    def stop(self, deadline: float) -> str:
        """Wait for the end that SIGTERM asked for; returns what was wrong with it."""
        try:
            code = self.process.wait(max(deadline - time.monotonic(), 0.1))
            problem = f"{self.name} ended with exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # with what it may have started
            self.process.wait()
            problem = f"{self.name} did not stop within {STOP_S:.0f} s and was killed"
        self._reader.join(STOP_S)
        return problem


class Demo:
    """The devices that run, and the one queue in which all their words arrive."""

    def __init__(self) -> None:
        self.devices: list[Device] = []
        self.heard: queue.Queue[tuple[str, str]] = queue.Queue()

    def run(self) -> None:
        fetch_model(ROOT / NAMES[0])
        for name in NAMES:
            forget_swarm(ROOT / name)
        say(f"Starting three devices that offer {MEMORY} each; the model needs more than twice that.")
        self._start(NAMES[0])
        code = self._wait_for("join code: ", START_S, "start its swarm").partition("join code: ")[2]
        for name in NAMES[1:]:
            self._start(name, "--join", code)
        self._wait_for("is in force", PLAN_S, "agree on a plan")
        last = str(ROOT / NAMES[-1])
        say(f'\n$ swisd ask "{PROMPT}" {" ".join(OPTIONS)}      (on {NAMES[-1]})')
        run_swisd("ask", PROMPT, *OPTIONS, "--home", last, within=ANSWER_S)
        self._wait_for_figures()
        say("\n$ swisd plan")
        run_swisd("plan", "--home", last, within=START_S)

    def _start(self, name: str, *more: str) -> None:
        self.devices.append(Device(name, self.heard, *more))

    def _wait_for(self, words: str, seconds: float, what: str) -> str:
        """The first line with these words; other lines are shown as they come."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                name, line = self.heard.get(timeout=min(left, QUIET_S))
            except queue.Empty:
                say(f"  ... {self._doing()}")
                continue
            ended = next((device for device in self.devices if device.process.poll() is not None), None)
            if ended is not None:
                raise DemoFailed(f"{ended.name} ended with exit code {ended.process.returncode}")
            say(f"  {name}  {line}")
            if words in line:
                return line
        raise DemoFailed(f"the devices did not {what} within {seconds:.0f} s")

    def _wait_for_figures(self) -> None:
        """What the devices measured comes with their next heartbeats; the plan is shown anyhow."""
        client = swisd.Client(ROOT / NAMES[0])
        deadline = time.monotonic() + FIGURES_S
        while time.monotonic() < deadline:
            digest, _ = client.status()
            if digest.token_ms and all(member.stage_ms for member in digest.members):
                return

    def _doing(self) -> str:
        try:
            digest, _ = swisd.Client(ROOT / NAMES[0]).status()
        except SwisdError as error:
            return str(error)
        states = (f"{member.name} {member.state} {member.progress:.0%}" for member in digest.members)
        return ", ".join(states) or "waiting"

    def stop(self) -> list[str]:
        """Stop every device, the host last; returns what went wrong."""
        for device in reversed(self.devices):
            with contextlib.suppress(ProcessLookupError):
                device.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        return [problem for device in reversed(self.devices) if (problem := device.stop(deadline))]

    def tell_logs(self) -> None:
        for device in self.devices:
            say(f"\nLast lines of {device.name} ({ROOT / device.name}.log):")
            for line in device.tail:
                say(f"  {line}")


def swisd_command() -> list[str]:
    """The `swisd` of this Python, else the one on the PATH."""
    beside = Path(sys.executable).with_name("swisd")
    found = str(beside) if beside.is_file() else shutil.which("swisd")
    if found is None:
        raise DemoFailed("there is no `swisd` command: run `make env` first")
    return [found]


def run_swisd(*words: str, within: float) -> None:
    """Run a command and let it write to this terminal."""
    # In a session of its own like the devices: what interrupts the demo is passed on once, with a deadline.
    process = subprocess.Popen(
        [*swisd_command(), *words], stdin=subprocess.DEVNULL, start_new_session=True
    )  # fmt: skip
    try:
        code = process.wait(within)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"`swisd {words[0]}` did not end within {within:.0f} s") from None
    finally:
        end_group(process)
    if code:
        raise DemoFailed(f"`swisd {words[0]}` ended with exit code {code}")


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt a command that still runs; after a deadline kill it and all that it started."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(INTERRUPT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def fetch_model(home: Path) -> None:
    """The model into the first device's home, unless it is there; the others will get it from that device."""
    listed = subprocess.run(
        [*swisd_command(), "models", "list", "--json", "--home", str(home)],
        check=True, capture_output=True, text=True, timeout=START_S,
    )  # fmt: skip
    models = {entry["model_id"]: entry for entry in map(json.loads, listed.stdout.splitlines())}
    known = models.get(MODEL, {})
    if known.get("units_here") and known["units_here"] == known.get("units"):
        say(f"{MODEL} is here already.")
        return
    say(f"$ swisd models pull {MODEL}")
    run_swisd("models", "pull", MODEL, "--home", str(home), within=PULL_S)


def forget_swarm(home: Path) -> None:
    """Every demo is a new swarm; identities and blobs stay."""
    for path in (*home.glob("swarm.key*"), home / "peers.json"):
        path.unlink(missing_ok=True)


def say(text: str) -> None:
    print(text, flush=True)


def interrupted(number: int, _: object) -> None:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: through the `finally` that stops the devices."""
    raise KeyboardInterrupt(number)


def main() -> int:
    """Run the demo; 0 if everything went well."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    ROOT.mkdir(parents=True, exist_ok=True)
    demo = Demo()
    problem = ""
    began = time.monotonic()
    try:
        demo.run()
    except (DemoFailed, OSError, subprocess.SubprocessError, ValueError) as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave a device behind
        wrong = demo.stop()
    if not problem and wrong:
        problem = "; ".join(wrong)
    if problem:
        if problem != "interrupted":
            demo.tell_logs()
        say(f"\nThe demo failed: {problem}" if problem != "interrupted" else "\nStopped.")
        return 1
    say(f"\nAll three devices have left and stopped. {time.monotonic() - began:.0f} s in all.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
