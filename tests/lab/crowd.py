"""Measures many requests at once: devices with equal shares of the processor, and one of them alone.

    python -m tests.lab.crowd HOME --devices 3 --cpu 0.5 --requests 8 --tokens 96 --rounds 5

Each device is in a namespace of its own, on a wire, with one thread and a quota of processor time; whoever
asks has none. Rounds ask the swarm once, the swarm `--requests` times at once, and the single device so many
times at once, in turn. Total tokens of answers a second, from the first question to the last token. With
`--prompt` each question is so many tokens, in place of 13.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from swisd.bench.contender import SwarmSide
from swisd.bench.work import Prompts
from swisd.client.reach import reach
from swisd.node.home import Home
from swisd.node.settings import load_settings
from tests.lab.devices import Devices
from tests.lab.lab import Host, Lab
from tests.lab.wire import WiredLab

SETTINGS = "[device]\nspeculation = false\n"
TEXT = tuple(range(500, 512))
ANSWER_S, PLAN_S = 300, 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="with the model, as `swisd models add` makes it")
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--cpu", type=float, default=0.5)
    parser.add_argument("--objective", default="throughput")
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--prompt", type=int, default=0, help="tokens of each prompt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ask", type=int, help="only ask so many times at once, from this home")
    wish = parser.parse_args()
    if wish.ask is not None:
        print(asyncio.run(ask(wish.home, wish.ask, wish.tokens, wish.prompt)))
        return
    with tempfile.TemporaryDirectory(prefix="swisd-crowd-") as root, WiredLab(Path(root)) as lab:
        swarms = {"many": Devices(lab, wish.home), "one": Devices(lab, wish.home)}
        try:
            askers = {
                kind: form(lab, swarms[kind], kind, count, wish.cpu, wish.objective)
                for kind, count in (("many", wish.devices), ("one", 1))
            }
            measure(askers, wish)
        finally:
            for devices in swarms.values():
                devices.close()


def form(lab: Lab, devices: Devices, kind: str, count: int, cpu: float, objective: str) -> Host:
    """A swarm with a plan over all of its devices, and the host of whoever asks it."""
    model = next((devices.model_home / "models").glob("*.json")).stem
    for number in range(count):
        host = lab.host(f"{kind[0]}{number}", cpu=cpu)
        devices.start(host, "--objective", objective, "--model", model, settings=SETTINGS)
    first = next(iter(devices.running))
    devices.running[first].wait_for(r"plan \d+ is in force", within=120.0)
    deadline = time.monotonic() + PLAN_S
    while len(set(devices.stages(first))) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"no plan uses {count} devices:\n{devices.said()}")
        time.sleep(0.5)
    asker = lab.host(f"{kind[0]}-asker")
    assert devices.code is not None and devices.code.host is not None and devices.code.port is not None
    home = Home(asker.home)
    home.set_key(devices.code.key)
    home.remember_host(devices.code.host, devices.code.port)
    return asker


def measure(askers: dict[str, Host], wish: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {"once": [], "many": [], "one": []}
    requests = wish.requests
    for _ in range(wish.rounds):
        for what, kind, count in (
            ("once", "many", 1), ("many", "many", requests), ("one", "one", requests),
        ):  # fmt: skip
            host = askers[kind]
            command = [sys.executable, "-m", "tests.lab.crowd", str(host.home)]
            command += ["--ask", str(count), "--tokens", str(wish.tokens), "--prompt", str(wish.prompt)]
            done = subprocess.run(
                [*host.prefix, *command], check=True, capture_output=True, text=True, timeout=ANSWER_S
            )
            found[what].append(float(done.stdout))
        print(json.dumps({what: round(values[-1], 1) for what, values in found.items()}), flush=True)
    crowd = [many / once for many, once in zip(found["many"], found["once"], strict=True)]
    split = [many / one for many, one in zip(found["many"], found["one"], strict=True)]
    print(f"{requests} at once against one: median {median(crowd):.2f}, {min(crowd):.2f} to {max(crowd):.2f}")
    print(f"the swarm against one device: median {median(split):.2f}, {min(split):.2f} to {max(split):.2f}")


async def ask(home: Path, count: int, tokens: int, prompt: int = 0) -> float:
    """Total tokens a second of so many questions at once."""
    async with reach(Home(home), load_settings(home), lambda text: None, alone=False) as link:
        side = SwarmSide(link, "swarm", "swarm", "auto")
        await side.ready()
        source = Prompts(str(time.time_ns()), 30000, TEXT)
        if prompt:
            prompts = [source.long(number, prompt) for number in range(count)]
        else:
            prompts = source.short("crowd", 0, count)
        streams = await side.ask(prompts, tokens)
    began, ended = min(one.began for one in streams), max(one.ended for one in streams)
    return sum(one.tokens for one in streams) / (ended - began)


if __name__ == "__main__":
    main()
