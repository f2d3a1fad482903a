"""Memory of this machine, in bytes, from psutil or the kernel's own file."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
SHARE = 0.75  # of what is free now, offered unless the person says otherwise


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
