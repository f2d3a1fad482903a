"""The battery of this device, and when it is too low to work for others."""

from dataclasses import dataclass
from pathlib import Path

SUPPLIES = Path("/sys/class/power_supply")
STEP = 5  # points above the floor at which a device on battery power takes part again


@dataclass(frozen=True, slots=True)
class Charge:
    """How full the battery is (percent), and whether the device is on the mains."""

    percent: float
    plugged: bool


def is_low(was_low: bool, charge: Charge | None, floor: int) -> bool:
    """Whether the battery is too low: on battery power below the floor (percent, 0: never).

    It stays too low until it is `STEP` points above the floor or on the mains: else a device at the floor
    would come and go. No battery is never low.
    """
    if floor <= 0 or charge is None or charge.plugged:
        return False
    return charge.percent < (min(floor + STEP, 100) if was_low else floor)


def read_charge() -> Charge | None:
    """The battery as psutil sees it, else as the kernel's own files say; None without one."""
    try:
        import psutil

        found = psutil.sensors_battery()
    except (ImportError, AttributeError, OSError, RuntimeError, ValueError):
        found = None  # not on every system, and some batteries have odd files
    if found is not None and 0 <= found.percent <= 100:
        # Unknown counts as plugged in: a device is not left out for want of knowledge.
        return Charge(float(found.percent), found.power_plugged is not False)
    return _from_kernel(SUPPLIES)


def _from_kernel(supplies: Path) -> Charge | None:
    percents: list[int] = []
    plugged = False
    try:
        folders = sorted(supplies.iterdir())
    except OSError:
        return None
    for folder in folders:
        kind = _line(folder / "type").lower()
        if kind in ("mains", "usb", "wireless"):
            plugged = plugged or _line(folder / "online") == "1"
        elif kind == "battery" and _line(folder / "scope").lower() != "device":  # of a mouse or a headset
            percent = _line(folder / "capacity")
            if percent.isascii() and percent.isdigit() and int(percent) <= 100:
                percents.append(int(percent))
                plugged = plugged or _line(folder / "status").lower() != "discharging"
    return Charge(sum(percents) / len(percents), plugged) if percents else None


def _line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(64).decode("ascii", "replace").strip()
    except OSError:
        return ""
