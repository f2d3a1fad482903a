"""Where the bus goes on when its host is lost. Devices and askers go through the same list, each on its own.

The list comes from the last digest: devices that can run a broker, alive, by (rank, id); the lost host is the
last. Each has a slot of time. In its own slot a device starts the broker, in another's it looks for the bus
there. All have the same list and notice a loss at about the same time, so they meet without a word. A device
whose port refuses connections does not run: its slot ends at once.
"""

from dataclasses import dataclass

from swisd.core import deadlines
from swisd.core.messages import Digest, MemberView

MAX_KNOWN = 64  # devices that a host which misses them asks after
MAX_TARGETS = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that may run the broker, and where it listens."""

    device: str
    rank: int
    addresses: tuple[tuple[str, int], ...]


class Succession:
    """The search of one device for the bus after its host.

    `me` is the device itself if it can run the broker; a device that cannot, and an asker, only look.
    """

    def __init__(self, me: Candidate | None = None) -> None:
        self._me, self._device = me, me.device if me is not None else ""
        self._order: tuple[Candidate, ...] = ()
        self._place: int | None = None  # in the order; None: nothing is lost
        self._until = 0.0
        self._turn = 0.0  # when the list was begun, this time
        self._silent = 0  # heartbeats of our own since the last digest
        self._busy = False  # sessions ran then
        self.host: Candidate | None = None  # the one that spoke last
        self.known: dict[str, Candidate] = {}

    @property
    def searching(self) -> bool:
        return self._place is not None

    @property
    def next_at(self) -> float:
        """When `due` is worth the next call, while searching."""
        return self._until

    def on_digest(self, digest: Digest) -> None:
        """A host speaks: nothing is lost, and this is who may follow it."""
        self.found()
        self._busy = bool(digest.sessions)
        capable = [_candidate(member) for member in digest.members if _capable(member, digest.host)]
        for member in digest.members:
            if member.liveness == "left":
                self.known.pop(member.device, None)
        for candidate in capable:
            if candidate.device in self.known or len(self.known) < MAX_KNOWN:
                self.known[candidate.device] = candidate
        self.host = next((item for item in capable if item.device == digest.host), None)
        heirs = [item for item in capable if item.device not in (digest.host, digest.successor)]
        if self._me is not None and self._device not in (item.device for item in capable):
            heirs.append(self._me)  # the host did not know this device yet
        heirs.sort(key=lambda item: (item.rank, item.device))
        named = [item for item in capable if digest.successor and item.device == digest.successor]
        # A host that yields names another, and does not come back as one itself.
        last = [item for item in capable if item.device == digest.host and not digest.successor]
        first = (*named, *heirs, *last)
        listed = {item.device for item in first} | {digest.host}
        # Whoever the host does not list may have gone elsewhere, and be host there.
        rest = [item for device, item in sorted(self.known.items()) if device not in listed]
        self._order = (*first, *(item for item in rest if item.device != self._device))

    def suppose(self, candidates: tuple[Candidate, ...]) -> None:
        """Where to look before any host was heard."""
        self._order = candidates

    def on_tick(self) -> bool:
        """Called with every own heartbeat. Returns True if the host has been silent for too long.

        Own heartbeats are counted and not the time: a device that stood still itself has heard nobody.
        """
        self._silent += 1
        patience = deadlines.HOST_SILENT_BUSY if self._busy else deadlines.HOST_SILENT
        return self._silent * deadlines.BEAT > patience

    def lost(self, now: float, *, grace: float = deadlines.GRACE) -> bool:
        """The host is out of reach; it has `grace` seconds to come back. Returns True if this is news."""
        if self._place is not None or not self._order:
            return False
        self._place, self._until, self._turn = -1, now + grace, now
        return True

    def found(self) -> None:
        """A host was heard, or this device is it."""
        self._place, self._silent = None, 0

    def connected(self, now: float) -> None:
        """A bus was reached: its host, if it has one, speaks soon."""
        self._silent = 0
        if self._place is not None:
            self._until = max(self._until, now + deadlines.SLOT)

    def due(self, now: float) -> Candidate | None:
        """The device whose slot begins now, if one does."""
        if self._place is None or now < self._until or not self._order:
            return None
        self._place = (self._place + 1) % len(self._order)
        if self._place == 0:
            self._turn = now
        candidate = self._order[self._place]
        own = candidate.device == self._device
        self._until = now + (deadlines.OWN_SLOT if own else deadlines.SLOT)
        return candidate

    def give_up_slot(self, now: float) -> None:
        """The device whose slot it is will not be host."""
        self._until = now

    def closed(self, device: str, now: float) -> bool:
        """A device does not run: it has no use for its slot, nor the lost host for its time to come back.

        Returns True if the next one's turn comes sooner by it. Where none of the list runs it is gone through
        once in a slot's time, and not as fast as they refuse.
        """
        if self._place is None:
            return False
        awaited = self.host if self._place < 0 else self._order[self._place]
        if awaited is None or awaited.device != device:
            return False
        around = self._place + 1 == len(self._order)
        until = max(now, self._turn + deadlines.SLOT) if around else now
        sooner, self._until = until < self._until, min(until, self._until)
        return sooner

    def first_of(self, present: set[str]) -> Candidate | None:
        """Who of these devices would follow this host."""
        heirs = [item for device, item in self.known.items() if device in present and device != self._device]
        return min(heirs, key=lambda item: (item.rank, item.device), default=None)

    def visit(self, candidate: Candidate) -> None:
        """Another host was found, whom this one gives way to: first there, then down the list."""
        self.found()
        others = tuple(item for item in self._order if item.device not in (candidate.device, self._device))
        self.host = candidate
        self._order = (candidate, *others, *((self._me,) if self._me is not None else ()))

    def missing(self, present: set[str]) -> tuple[Candidate, ...]:
        """Devices that could be hosts themselves, and are not here."""
        away = [item for device, item in sorted(self.known.items()) if device not in present]
        return tuple(item for item in away if item.device != self._device)[:MAX_TARGETS]


def stays(mine: tuple[bool, int, int, str], other: tuple[bool, int, int, str]) -> bool:
    """Of two hosts, whether the first stays: each is (followed, epoch, rank, id).

    One that others follow stays before one that nobody follows, so that a device which was cut off for a
    while does not take the swarm over; then the higher epoch, then the lower rank and id.
    """
    return (not mine[0], -mine[1], mine[2], mine[3]) <= (not other[0], -other[1], other[2], other[3])


def _capable(member: MemberView, host: str) -> bool:
    return member.broker and member.port > 0 and (member.liveness == "alive" or member.device == host)


def _candidate(member: MemberView) -> Candidate:
    return Candidate(
        member.device, member.rank, tuple((address, member.port) for address in member.addresses)
    )
