"""Measures how long planning takes: kinds of swarms of eight devices, and one of many.

    python -m tests.lab.plans --swarms 20 --many 1000

Milliseconds of `place`, median and longest over the swarms of a kind, each the better of two runs. `uneven`
layers come in two sizes; in `tight` swarms memory hardly suffices.
"""

import argparse
import time
from collections.abc import Callable
from random import Random
from statistics import median
from typing import get_args

from swisd.core.model import Manifest
from swisd.core.placement import Wish, place
from swisd.core.types import Capability, Objective
from tests.core.builders import MODEL, a_device, a_manifest, a_profile, an_id

DEVICES, LAYERS, CONTEXT = 8, 32, 2048
SMALL, LARGE = 10 << 20, 14 << 20  # bytes of a layer
WISH_MIB = {"roomy": (60.0, 600.0), "tight": (45.0, 90.0)}
# kind of swarm -> memory, and what a link measures (round trip in ms, Mbit/s)
KINDS: dict[str, tuple[str, Callable[[Random], tuple[float, float]]]] = {
    "wired": ("roomy", lambda random: (random.uniform(0.3, 8), random.uniform(20, 900))),
    "wifi": ("roomy", lambda random: (random.uniform(4, 7), 30.0)),
    "tight": ("tight", lambda random: (random.uniform(0.3, 8), random.uniform(20, 900))),
    "equal": ("equal", lambda random: (5.0, 30.0)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swarms", type=int, default=20)
    parser.add_argument("--many", type=int, default=1000)
    wish = parser.parse_args()
    models = {
        "even": a_manifest(LAYERS),
        "uneven": a_manifest([SMALL] * (LAYERS // 2) + [LARGE] * (LAYERS - LAYERS // 2)),
    }
    for layers, manifest in models.items():
        for kind in KINDS:
            swarms = [swarm(kind, seed) for seed in range(wish.swarms)]
            for objective in get_args(Objective):
                times = [min(taken(manifest, devices, objective) for _ in range(2)) for devices in swarms]
                found = f"median {median(times):6.1f}  longest {max(times):6.1f}"
                print(f"{layers:7}{kind:7}{objective:11} {found}")
    many = swarm("wired", 0, wish.many)
    for objective in get_args(Objective):
        print(f"{wish.many} devices, {objective}: {taken(models['even'], many, objective):.0f}")


def swarm(kind: str, seed: int, count: int = DEVICES) -> list[Capability]:
    """Devices of any speed, or all alike. Of many, each knows the links to a few."""
    random = Random(seed)
    memory, link = KINDS[kind]
    devices = []
    for number in range(1, count + 1):
        near = [other for other in range(number - 4, number + 5) if other != number and 1 <= other <= count]
        peers = near if count > DEVICES else [other for other in range(1, count + 1) if other != number]
        profile = a_profile(random.uniform(1, 12), head_ms=random.uniform(2, 20))
        mib = random.uniform(*WISH_MIB.get(memory, (100.0, 100.0)))
        if kind == "equal":
            profile = a_profile(3.0, head_ms=8.0)
        links = {an_id(other): link(random) for other in peers}
        devices.append(a_device(an_id(number), mib, profile=profile, links=links))
    return devices


def taken(manifest: Manifest, devices: list[Capability], objective: Objective) -> float:
    """Milliseconds of one plan."""
    began = time.perf_counter()
    place(manifest, MODEL, devices, devices[0].device, Wish(CONTEXT, objective=objective))
    return (time.perf_counter() - began) * 1000.0


if __name__ == "__main__":
    main()
