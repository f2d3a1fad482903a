"""Which of many devices deserve a closer look.

A worker adds fixed costs to a token (one run, the hops to it and away) and a cost per layer. Those who are
cheap for all the layers they could hold, for some, or for a single one are kept, with the measured
neighbours of likely drivers: the hop to a neighbour may be far shorter than the way by the host.
"""

from collections.abc import Sequence
from functools import cached_property

from swisd.core.placement.table import Limits, Table, nanoseconds

POOL = 16  # devices kept for each of the scores
DRIVERS = 4  # drivers from whom a plan is grown


class Pool:
    """Scores of all devices under the given limits. Rows are those of the table; times are nanoseconds."""

    def __init__(self, table: Table, limits: Limits) -> None:
        self.table = table
        self.limits = limits
        everyone = range(len(table))
        self.width = [table.widest(row, limits) for row in everyone]
        self.drive = [table.driver_reach(row, limits) for row in everyone]
        self.access = [self._access(row) for row in everyone]
        able = [row for row in everyone if self.width[row] > 0]
        self.by_price = sorted(able, key=lambda row: (self._per_layer(row, table.layers), row))

    def _access(self, row: int) -> int:
        """The shortest hop this device is known to have, to the host if to nobody else."""
        here, links = self.table.ids[row], self.table.links
        if here == links.host:
            return 0
        near = [links.between(here, peer) for peer in links.peers.get(here, {})]
        near.append(links.between(here, links.host))
        return nanoseconds(min(link.hop_ms(self.table.size) for link in near))

    def _per_layer(self, row: int, layers: int) -> float:
        """What a layer costs on a worker that shares its fixed costs among at most `layers` layers."""
        fixed = self.table.run[row] + 2 * self.access[row]
        return self.table.layer[row] + fixed / min(self.width[row], layers)

    @cached_property
    def drivers(self) -> list[int]:
        """Drivers worth a try: in turn the cheapest with a whole plan, the nearest and the roomiest."""
        table = self.table
        able = [row for row, own in enumerate(self.drive) if own >= 0]
        # Layers the driver cannot run cost about what a good but not the best worker takes for them.
        worker = self.by_price[min(len(self.by_price) - 1, POOL // 2)] if self.by_price else None
        typical = 0.0 if worker is None else self._per_layer(worker, table.layers)

        def entry(row: int) -> float:
            return table.driving(row) + 2 * self.access[row]

        def whole(row: int) -> float:
            own = self.drive[row]
            return entry(row) + own * min(table.layer[row], typical) + (table.layers - own) * typical

        rankings = [
            sorted(able, key=lambda row: (whole(row), row)),
            sorted(able, key=lambda row: (entry(row), row)),
            sorted(able, key=lambda row: (-self.drive[row], entry(row), row)),
        ]
        mixed = dict.fromkeys(row for trio in zip(*rankings, strict=True) for row in trio)
        return list(mixed)[:DRIVERS]

    @cached_property
    def rows(self) -> list[int]:
        """The pool, in order of rows: likely drivers, and workers that could hold all layers twice over."""
        table, layers = self.table, self.table.layers
        chosen = dict.fromkeys(self.drivers)
        if self.limits.fewest > 0:
            # Every device is to be used, so only the choice among too many is left: the fastest, of those
            # that can take any layer first.
            anywhere = [table.narrowest(row, self.limits) > 0 for row in range(len(table))]
            fastest = sorted(self.by_price, key=lambda row: (not anywhere[row], table.layer[row], row))
            chosen.update(dict.fromkeys(fastest[: self.limits.fewest + DRIVERS]))
            return sorted(chosen)
        for shared in (layers, max(layers // 4, 1), 1):
            ranked = sorted(self.by_price, key=lambda row: (self._per_layer(row, shared), row))
            chosen.update(dict.fromkeys(ranked[:POOL]))
        place = {device: row for row, device in enumerate(table.ids)}
        for driver in self.drivers:
            for peer in sorted(table.links.peers.get(table.ids[driver], {}))[:POOL]:
                if self.width[place.get(peer, driver)] > 0:
                    chosen.setdefault(place.get(peer, driver))
        room = sum(self.width[row] for row in chosen)
        for row in self.by_price:
            if room >= 2 * layers:
                break
            if row not in chosen:
                chosen[row] = None
                room += self.width[row]
        return sorted(chosen)

    def best(self, count: int, those: Sequence[int] = ()) -> list[int]:
        """A few devices for the exact search: those given, two likely drivers, then the cheapest workers."""
        chosen = dict.fromkeys([*those, *self.drivers[:2], *self.by_price])
        return sorted(list(chosen)[:count])
