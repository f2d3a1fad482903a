"""Every plan there is, priced one by one: the slow truth that the planner is compared with.

It shares the words of the core with the planner, and how a link is looked up, but no search and no sums.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise, permutations

from builders import MODEL

from swisd.core.costmodel import Links, token_bytes
from swisd.core.model import Manifest
from swisd.core.types import Capability


@dataclass(frozen=True)
class Plan:
    """Whole nanoseconds, as ties are to be ties: of a token, of the busiest device or link, of `spread`."""

    token: int
    bottleneck: int
    longest: int
    ring: tuple[str, ...]
    counts: tuple[int, ...]


def ns(ms: float) -> int:
    return round(ms * 1e6)


def all_plans(manifest: Manifest, devices: list[Capability], host: str, context: int) -> Iterator[Plan]:
    """Every driver, set, order and cut that memory allows."""
    known = {
        device.device: device for device in devices if device.profiles and device.profiles[0].model == MODEL
    }
    links = Links(devices, host)
    cost = [unit.resident_bytes + unit.kv_bytes_per_token * context for unit in manifest.units]
    layers, ends = cost[1:-1], cost[0] + cost[-1]
    hops = {(a, b): ns(links.between(a, b).hop_ms(token_bytes(manifest))) for a, b in permutations(known, 2)}
    wire = {(a, b): ns(links.between(a, b).transfer_ms(token_bytes(manifest))) for a, b in hops}
    total = len(layers)
    for size in range(1, min(len(known), total + 1) + 1):
        for ring in permutations(sorted(known), size):
            driver, workers = known[ring[0]], ring[1:]
            profile = driver.profiles[0]
            if profile.head_ms is None:
                continue
            edges = list(pairwise((*ring, ring[0]))) if workers else []
            travel = sum(hops[edge] for edge in edges)
            for inner in combinations(range(total), len(workers)):
                bounds = (0, *inner, total)
                parts = list(pairwise(bounds))
                needs = [sum(layers[start:end]) for start, end in parts]
                needs[0] += ends
                if any(need > known[name].memory_bytes for name, need in zip(ring, needs, strict=True)):
                    continue
                counts = tuple(end - start for start, end in parts)
                busy, share = [], []
                for name, count in zip(ring, counts, strict=True):
                    own = known[name].profiles[0]
                    runs = 2 if workers and name == ring[0] else 1
                    time = runs * ns(own.run_ms) + count * ns(own.layer_ms)
                    if name == ring[0]:
                        time += ns(profile.embed_ms + profile.head_ms)
                    busy.append(time)
                    share.append(count * ns(own.layer_ms) if count > 1 or name == ring[0] else 0)
                slowest = max([*busy, *(wire[edge] for edge in edges)])
                yield Plan(sum(busy) + travel, slowest, max(share), ring, counts)
