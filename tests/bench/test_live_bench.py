"""`swisd bench` on two devices with a tiny model: figures are there, and the history grows."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from swisd.bench.history import read_history
from tests.live.swarm import environment, run, swisd
from tests.tiny_models import write_model

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a tiny model."""
    home = tmp_path_factory.mktemp("bench")
    file = write_model(home / "tiny.gguf", "llama", "Q8_0", layers=4)
    run(["models", "add", str(file), "--id", "tiny", "--home", str(home)])
    file.unlink()  # else llama.cpp, where it is installed, is measured too
    (home / "swisd.toml").write_text('[model]\nid = "tiny"\n')
    return home


def test_two_local_devices_are_measured_and_remembered(home: Path) -> None:
    done = run(["bench", "--local", "2", "--threads", "2", "--quick", "--json", "--home", str(home)])
    report: dict[str, Any] = json.loads(done.stdout)
    solo, swarm = report["sides"]
    assert report["where"] == "local, 2 threads"
    assert (solo["kind"], swarm["kind"], swarm["lane"]) == ("solo", "swarm", "tcp")
    assert swarm["shape"].startswith("2 devices")
    for side in (solo, swarm):
        for name in ("tokens_per_s", "first_ms", "p50_ms", "p99_ms", "prefill_ms"):
            assert side[name] > 0, name
        assert [crowd["requests"] for crowd in side["crowds"]] == [1, 4]
        assert all(crowd["total_per_s"] > 0 for crowd in side["crowds"])
        assert side["way"]["whole_ms"] > 0 and all(part["resident_bytes"] for part in side["way"]["devices"])
    assert swarm["decode_vs_solo"] > 0 and swarm["way"]["hops"] >= 1 and solo["way"]["hops"] == 0
    assert [kept.at for kept in read_history(home).reports] == [report["at"]]


def test_an_interrupted_run_leaves_nothing_behind(home: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*swisd(), "bench", "--local", "1", "--quick", "--home", str(home)], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**environment(), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        before = len(read_history(home).reports)
        next(line for line in process.stderr if "warmed up" in line)
        running = [
            json.loads(path.read_text())["pid"] for path in tmp_path.glob("swisd-bench-*/*/*/node.json")
        ]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(5)
        process.communicate()
    assert len(running) == 1
    for pid in running:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list(tmp_path.glob("swisd*")) == [] and len(read_history(home).reports) == before
