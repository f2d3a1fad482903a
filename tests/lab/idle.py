"""Measures what a quiet swarm costs: processor time and resident memory of real devices on loopback.

    python -m tests.lab.idle HOME --devices 5 --seconds 60

Figures come from /proc (Linux). With the folder of a home that has a model the swarm gets a plan; `--bare`
measures devices that nobody has given a model, as they are before a plan.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from swisd.chaos.swarm import LocalSwarm

TICK = os.sysconf("SC_CLK_TCK")
QUIET_S = 10.0  # devices measure themselves and their links first


def spent(pid: int) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int) -> dict[str, float]:
    """Resident memory of a process in MiB; what is mapped several times counts as often (RssShmem)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines)
            if name in ("VmRSS", "RssAnon", "RssShmem", "VmHWM")}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="with the model, as `swisd models add` makes it")
    parser.add_argument("--devices", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--bare", action="store_true")
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="swisd-idle-") as name:
        root = Path(name)
        home = wish.home
        if wish.bare:
            home = root / "bare"
            for folder in ("blobs", "models"):
                (home / folder).mkdir(parents=True)
        swarm = LocalSwarm(root, home, wish.devices, model="none" if wish.bare else "", objective="spread")
        with swarm:
            if not wish.bare:
                swarm.wait_plan()
            time.sleep(QUIET_S)
            before = {one: spent(pid) for one, pid in swarm.pids().items()}
            began = time.monotonic()
            time.sleep(wish.seconds)
            span = time.monotonic() - began
            for one, pid in swarm.pids().items():
                share = (spent(pid) - before[one]) / span
                held = ", ".join(f"{what} {mib:.1f} MiB" for what, mib in memory(pid).items())
                print(f"{one}: {share:.2%} of a core; {held}")


if __name__ == "__main__":
    main()
