"""Memory of this machine, in bytes, from psutil or the kernel's own file, and what of it is offered."""

from collections.abc import Callable
from pathlib import Path

from swisd.core.errors import BadInput
from swisd.node.power import STEP, Charge, is_low, read_charge
from swisd.node.settings import DeviceSettings, parse_size

MEMINFO = Path("/proc/meminfo")
SHARE = 0.75  # of what is free now, offered unless the person says otherwise
JOURNAL_PART = 32  # the journal takes this part of it,
JOURNAL_MOST = 32 << 20  # but no more, unless the person says otherwise


def available_bytes() -> int:
    """What programs can still take without swapping."""
    try:
        import psutil

        return int(psutil.virtual_memory().available)
    except ImportError:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return 0


def offer(asked: int | None, held: int) -> int:
    """What this device offers, in bytes: what was asked for, but never more than is really free.

    `held` is what its shards hold already: that part is not free any more, yet offered.
    """
    free = available_bytes() + held
    return min(asked, free) if asked is not None else int(free * SHARE)


class Offering:
    """What a device offers for weights and KV caches, from one look at the machine to the next.

    `journal` bytes of the memory are for what it sent on, and not offered. On battery power below `floor`
    percent it offers nothing; `tell` hears why, and when that is over.
    """

    def __init__(
        self,
        asked: int | None,
        journal: int | None,
        floor: int,
        tell: Callable[[str], None],
        charge: Callable[[], Charge | None] = read_charge,
    ) -> None:
        whole = offer(asked, 0)
        if asked is not None and journal is not None and journal >= asked:
            raise BadInput(f"device.journal: {journal} bytes leave nothing of the {asked} that are offered")
        self.journal = min(whole // JOURNAL_PART, JOURNAL_MOST) if journal is None else journal
        self._asked, self._floor, self._tell, self._charge = asked, floor, tell, charge
        self._low = False

    @classmethod
    def of(cls, device: DeviceSettings, tell: Callable[[str], None], beside: int = 0) -> "Offering":
        """As the settings say. Of the memory, `beside` bytes are taken by something else of this device.

        Raises `BadInput` if they leave nothing to offer.
        """
        memory, journal = (parse_size(size) if size else None for size in (device.memory, device.journal))
        if memory is not None and beside:
            memory -= beside
            if memory <= 0:
                raise BadInput(
                    f"{device.drafter} takes {beside >> 20} MiB to guess tokens, "
                    f"which leaves nothing of the {device.memory} that are offered"
                )
        return cls(memory, journal, device.battery_floor, tell)

    def now(self, held: int) -> int:
        """Bytes offered at this moment; `held` as for `offer`."""
        charge = self._charge()
        low = is_low(self._low, charge, self._floor)
        if low != self._low:
            self._low = low
            self._tell(_why(charge, low, self._floor))
        return 0 if low else max(0, offer(self._asked, held) - self.journal)


def _why(charge: Charge | None, low: bool, floor: int) -> str:
    level = f"battery at {charge.percent:.0f} %" if charge is not None else "no battery"
    if low:
        return f"{level}: takes no part until it is plugged in, or at {min(floor + STEP, 100)} %"
    return f"{level}{', plugged in' if charge is not None and charge.plugged else ''}: takes part again"
