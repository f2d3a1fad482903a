"""`swisd chaos` on real processes: twenty kills over the roles, and every stream is the undisturbed one.

Two campaigns run at once, greedy and with a seed: most of a round is waiting.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.swarm import environment, run, swisd

pytestmark = [pytest.mark.live, pytest.mark.model, pytest.mark.timeout(420)]

CAMPAIGN_S = 400.0
KILLS = 20
MIXED = ("chaos", "--kill", "mixed", "--rounds", "9", "--tokens", "40", "--json")


@contextmanager
def campaign(home: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A campaign in the background, which ends its devices if the test fails meanwhile."""
    process = subprocess.Popen(
        [*swisd(), *arguments, "--home", str(home)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def rounds_of(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    """The rounds of a campaign that ended well."""
    out, said = process.communicate(timeout=CAMPAIGN_S)
    assert process.returncode == 0, f"{said}\n{out}"
    *rounds, last = [json.loads(line) for line in out.splitlines()]
    assert last["summary"]["failed"] == [] and last["summary"]["identical"] == len(rounds)
    return rounds


def test_twenty_kills_change_no_token(model_home: Path) -> None:
    sampled = ("--temperature", "0.8", "--sessions", "2", "--seed", "2")
    with campaign(model_home, *MIXED) as one, campaign(model_home, *MIXED, *sampled) as other:
        rounds = [*rounds_of(one), *rounds_of(other)]
    struck = [victim for each in rounds for victim in each["struck"]]
    assert len(struck) >= KILLS
    assert len({victim["role"] for victim in struck}) >= 3
    assert all(stream["tokens"] == stream["expected"] for each in rounds for stream in each["streams"])
    for each in rounds:
        led = any(victim["role"].startswith("host") for victim in each["struck"])
        assert led == any(taken["what"] == "host" for taken in each["taken_over"]), each
        assert each["epoch_after"] > each["epoch_before"] or not any(v["units"] for v in each["struck"])


def test_an_interrupted_campaign_leaves_no_device_behind(model_home: Path, tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    with campaign(
        model_home, "chaos", "--devices", "2", "--memory", "200MiB", "--keep", str(keep)
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("plan 1 "))
        running = [json.loads((keep / name / "node.json").read_text())["pid"] for name in ("ann", "bob")]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
    for pid in running:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_name_that_nobody_has_is_refused(model_home: Path) -> None:
    done = run(["chaos", "--kill", "zoe", "--home", str(model_home)], check=False)
    assert done.returncode == 2 and "zoe" in done.stderr and "ann" in done.stderr
