"""The cost model as whole numbers: what the search reads, without any dictionary or float in the way.

Times are integer nanoseconds, so sums do not depend on the order of adding and a tie is a tie. Only devices
that could take part are rows of the table; they are sorted by id, so the order of the input does not matter.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass

from swisd.core.costmodel import Link, Links, profile_of, token_bytes, unit_bytes
from swisd.core.model import Manifest
from swisd.core.types import Capability, Member, Pipeline, Sha, Stage

NS_PER_MS = 1_000_000
BANNED = 1 << 60  # a hop or cost that is never paid; above any sum of real ones


def nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * NS_PER_MS)


@dataclass(frozen=True, slots=True)
class Solution:
    """Who runs what, as rows of a table: `order[0]` drives, `ends[i]` is where the layers of `order[i]` end.

    The driver's layers come first, so `ends[0]` may be 0 (embedding only); alone it runs everything.
    """

    cost_ns: int  # of one token
    order: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def key(self) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
        """Cheaper first, then fewer devices, then lower ids: no two solutions are equal."""
        return (self.cost_ns, len(self.order), self.order, self.ends)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a search may do, beside memory: most layers of each device and how many workers.

    A worker is a device that does not drive. `driver_most` of -1 forbids driving; `alone` says who may run
    the whole model by itself; a hop that takes longer than `transfer_ns` on the wire is forbidden.
    """

    worker_most: tuple[int, ...]
    driver_most: tuple[int, ...]
    alone: tuple[bool, ...]
    fewest: int = 0
    most: int = 1 << 16
    transfer_ns: int = BANNED


class Table:
    """Costs and memory of every device that measured itself, for one model and one context length."""

    def __init__(
        self, manifest: Manifest, model: Sha, devices: Sequence[Capability], links: Links, context: int
    ) -> None:
        self.links, self.context = links, context
        self.layers = manifest.n_layers
        self.size = token_bytes(manifest)
        last = manifest.n_units - 1
        self.ends_bytes = unit_bytes(manifest, 0, 1, context) + unit_bytes(manifest, last, last + 1, context)
        sizes = [unit_bytes(manifest, number, number + 1, context) for number in range(1, last)]
        self.largest_layer, self.smallest_layer = max(sizes), min(sizes)
        self.uniform = self.largest_layer == self.smallest_layer
        self.before = [0]  # bytes of all layers before this one
        for size in sizes:
            self.before.append(self.before[-1] + size)
        # Exact searches that were made, by ids and limits; tables of some of the devices share them.
        self.solved: dict[tuple[tuple[str, ...], Limits], Solution | None] = {}
        self._begins: dict[int, list[int]] = {}  # memory -> see `begins`; any device's, so shared as well
        self._windows: dict[int, int] = {}  # rows -> widest window of layers, where sizes differ
        self.ids: list[str] = []
        self.memory: list[int] = []
        self.run: list[int] = []
        self.layer: list[int] = []
        self.ends: list[int | None] = []  # embedding and head; None where the device cannot drive
        for device in devices:
            profile = profile_of(device, model)
            if profile is None:
                continue
            self.ids.append(device.device)
            self.memory.append(device.memory_bytes)
            self.run.append(nanoseconds(profile.run_ms))
            self.layer.append(nanoseconds(profile.layer_ms))
            head = profile.head_ms
            fits = head is not None and device.memory_bytes >= self.ends_bytes
            self.ends.append(nanoseconds(profile.embed_ms + head) if fits and head is not None else None)

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, rows: Sequence[int]) -> "Table":
        """The same model and links with these devices alone; its rows count anew, in the order given."""
        part = copy(self)
        part._windows = {}
        part.ids = [self.ids[row] for row in rows]
        part.memory = [self.memory[row] for row in rows]
        part.run = [self.run[row] for row in rows]
        part.layer = [self.layer[row] for row in rows]
        part.ends = [self.ends[row] for row in rows]
        return part

    def free(self) -> Limits:
        """No limit but memory."""
        everyone = len(self.ids)
        return Limits((self.layers,) * everyone, (self.layers,) * everyone, (True,) * everyone)

    def reach(self, memory: int, start: int, most: int) -> int:
        """Where the layers end that fit `memory` from layer `start` (layers count from 0), at most `most`."""
        if memory < 0:
            return start
        end = bisect_right(self.before, self.before[start] + memory) - 1
        return min(end, start + most, self.layers)

    def begins(self, row: int, most: int) -> list[int]:
        """By layer: where the layers begin that end before it and fit a device's memory, at most `most`."""
        memory = max(self.memory[row], 0)
        known = self._begins.get(memory)
        if known is None:
            known = self._begins[memory] = [bisect_left(self.before, total - memory) for total in self.before]
        return [max(begin, end - most) for end, begin in enumerate(known)]

    def driver_reach(self, row: int, limits: Limits) -> int:
        """How many layers a device can run as driver; -1 where it cannot drive."""
        if self.ends[row] is None or limits.driver_most[row] < 0:
            return -1
        return self.reach(self.memory[row] - self.ends_bytes, 0, limits.driver_most[row])

    def widest(self, row: int, limits: Limits) -> int:
        """The most layers a worker could hold anywhere in the model."""
        most = limits.worker_most[row]
        if self.uniform:
            return self.reach(self.memory[row], 0, most)
        widest = self._windows.get(row)
        if widest is None:
            windows = (
                self.reach(self.memory[row], start, self.layers) - start for start in range(self.layers)
            )
            widest = self._windows[row] = max(windows)
        return min(widest, most)

    def narrowest(self, row: int, limits: Limits) -> int:
        """How many layers a worker can hold wherever they lie: all counted as the largest."""
        if self.largest_layer == 0:
            return min(limits.worker_most[row], self.layers)
        return min(self.memory[row] // self.largest_layer, limits.worker_most[row], self.layers)

    def driving(self, row: int) -> int:
        """What a driver of others pays before its layers: two runs, embedding and head."""
        ends = self.ends[row]
        return BANNED if ends is None else 2 * self.run[row] + ends

    def alone(self, row: int, limits: Limits) -> int:
        """Cost of one device running the whole model; `BANNED` where it cannot."""
        ends = self.ends[row]
        if ends is None or not limits.alone[row] or limits.fewest > 0:
            return BANNED
        if self.memory[row] < self.ends_bytes + self.before[-1]:
            return BANNED
        return self.run[row] + ends + self.layers * self.layer[row]

    def best_alone(self, limits: Limits, rows: Iterable[int] | None = None) -> Solution | None:
        """The cheapest of these rows, of all if not given, that can run everything by itself."""
        costs = [(self.alone(row, limits), row) for row in (range(len(self.ids)) if rows is None else rows)]
        cost, row = min(costs, default=(BANNED, 0))
        return None if cost >= BANNED else Solution(cost, (row,), (self.layers,))

    def hop(self, one: int, other: int, limits: Limits) -> int:
        """Nanoseconds of a token's hop."""
        link = self.links.between(self.ids[one], self.ids[other])
        if self.wire(link) > limits.transfer_ns:
            return BANNED
        return nanoseconds(link.hop_ms(self.size))

    def within(self, budget: int, row: int) -> int:
        """Layers of a device that fit a budget of nanoseconds; -1 where not even none do."""
        if budget < 0:
            return -1
        layer = self.layer[row]
        return min(budget // layer, self.layers) if layer else self.layers

    def wire(self, link: Link) -> int:
        """Nanoseconds for which a token keeps a link busy."""
        return nanoseconds(link.transfer_ms(self.size))

    def transfer(self, one: int, other: int) -> int:
        """Nanoseconds for which a token keeps the link between two devices busy."""
        return self.wire(self.links.between(self.ids[one], self.ids[other]))

    def hops(self, rows: Sequence[int], limits: Limits) -> list[list[int]]:
        """Hops between the given rows, as a matrix indexed by their place in `rows`; links are symmetric."""
        matrix = [[0] * len(rows) for _ in rows]
        for place, one in enumerate(rows):
            for earlier in range(place):
                matrix[place][earlier] = matrix[earlier][place] = self.hop(one, rows[earlier], limits)
        return matrix

    def cost(self, order: Sequence[int], ends: Sequence[int], limits: Limits) -> int:
        """Nanoseconds of one token for a plan, summed from scratch."""
        if len(order) == 1:
            return self.alone(order[0], limits)
        total = self.driving(order[0]) + ends[0] * self.layer[order[0]]
        for place in range(1, len(order)):
            row = order[place]
            total += self.run[row] + (ends[place] - ends[place - 1]) * self.layer[row]
            total += self.hop(order[place - 1], row, limits)
        return total + self.hop(order[-1], order[0], limits)

    def pipeline(self, solution: Solution) -> Pipeline:
        """A solution in the words of the swarm: units instead of layers, ids instead of rows."""
        driver = (Member(self.ids[solution.order[0]]),)
        if len(solution.order) == 1:
            return Pipeline((Stage(0, self.layers + 2, driver),))
        stages = [Stage(0, solution.ends[0] + 1, driver)]
        for place in range(1, len(solution.order)):
            member = (Member(self.ids[solution.order[place]]),)
            stages.append(Stage(solution.ends[place - 1] + 1, solution.ends[place] + 1, member))
        stages.append(Stage(self.layers + 1, self.layers + 2, driver))
        return Pipeline(tuple(stages))
