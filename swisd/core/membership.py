"""Who is in the swarm, as the host knows it from heartbeats and deadlines. A will is only a hint."""

from dataclasses import dataclass

from swisd.core import deadlines
from swisd.core.messages import Beat, Gone
from swisd.core.types import Capability, Liveness

MAX_MEMBERS = 2048


@dataclass(slots=True)
class Entry:
    """One device: its last capability and heartbeat, and when it was last heard (host's clock)."""

    device: str
    boot: int
    joined: float
    seen: float
    liveness: Liveness = "alive"
    capability: Capability | None = None
    beat: Beat | None = None
    deaf_until: float = 0.0  # this start of it has ended: its heartbeats were under way before


class Membership:
    """The table of devices. Methods return True when the set of usable devices may have changed."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def clear(self) -> None:
        """A reign begins: nobody was heard in it yet."""
        self.entries.clear()

    def on_beat(self, beat: Beat, now: float) -> bool:
        known = self.entries.get(beat.device)
        if known is not None and beat.boot < known.boot and known.liveness in ("dead", "left"):
            # It began anew with its clock set back: many boards have no battery for theirs.
            del self.entries[beat.device]
        entry = self._entry(beat.device, beat.boot, now)
        if entry is None or entry.liveness == "left":
            return False
        if now < entry.deaf_until or (entry.beat is not None and beat.seq <= entry.beat.seq):
            return False
        came_back = entry.liveness != "alive"
        entry.beat, entry.seen, entry.liveness = beat, now, "alive"
        return came_back

    def on_capability(self, capability: Capability, now: float) -> bool:
        """A capability is retained by the bus, so it alone does not prove that its device still lives."""
        entry = self._entry(capability.device, capability.boot, now)
        if entry is None or entry.capability == capability:
            return False
        entry.capability = capability
        return entry.beat is not None

    def on_gone(self, gone: Gone) -> bool:
        entry = self.entries.get(gone.device)
        if entry is None or entry.boot != gone.boot or entry.liveness == "left":
            return False
        if gone.proper:
            entry.liveness = "left"
            return True
        if entry.liveness == "alive":
            entry.liveness = "suspect"
        return False

    def lose(self, device: str, deaf_until: float = 0.0) -> bool:
        """Count a device as dead until it is heard again; True if it did not already.

        Until `deaf_until` it is not heard, unless it began anew.
        """
        entry = self.entries.get(device)
        if entry is None or entry.liveness == "left":
            return False
        entry.deaf_until = max(entry.deaf_until, deaf_until)
        lost, entry.liveness = entry.liveness != "dead", "dead"
        return lost

    def sweep(self, now: float) -> list[tuple[Entry, Liveness]]:
        """Apply the deadlines; returns the entries that changed, with what they were before."""
        changed: list[tuple[Entry, Liveness]] = []
        for entry in list(self.entries.values()):
            before, silent = entry.liveness, now - entry.seen
            if entry.beat is None and silent > deadlines.DEAD:
                del self.entries[entry.device]  # only its retained capability was ever heard
                continue
            if before == "alive" and silent > deadlines.SUSPECT:
                entry.liveness = "suspect"
            if entry.liveness == "suspect" and silent > deadlines.DEAD:
                entry.liveness = "dead"
            if entry.liveness in ("dead", "left") and silent > deadlines.FORGET:
                del self.entries[entry.device]
            if entry.liveness != before:
                changed.append((entry, before))
        return changed

    def present(self) -> list[Entry]:
        """Devices that were heard and are not known to be dead or gone, by id."""
        return sorted(
            (
                entry
                for entry in self.entries.values()
                if entry.beat and entry.liveness in ("alive", "suspect")
            ),
            key=lambda entry: entry.device,
        )

    def usable(self) -> list[Capability]:
        """Capabilities of the devices that may get work, by id."""
        return [
            entry.capability
            for entry in self.present()
            if entry.liveness == "alive" and entry.capability is not None
        ]

    def _entry(self, device: str, boot: int, now: float) -> Entry | None:
        """The entry of this start of the device; an older start's messages get None."""
        entry = self.entries.get(device)
        if entry is not None and boot < entry.boot:
            return None
        if entry is None or boot > entry.boot:
            if entry is None and len(self.entries) >= MAX_MEMBERS:
                return None
            entry = Entry(device, boot, joined=now, seen=now, liveness="suspect")
            self.entries[device] = entry
        return entry
