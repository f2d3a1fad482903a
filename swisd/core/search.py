"""An asker's way to the bus: the same line of succession as the devices go through, but it hosts nothing."""

from swisd.core import deadlines
from swisd.core.effects import Knock, MoveBus, SetTimer
from swisd.core.events import BusChanged, PortClosed, Received, Started, Timer
from swisd.core.messages import Digest
from swisd.core.succession import Candidate, Succession

TICK, NEXT = "bus-tick", "bus-next"
SearchEffect = Knock | MoveBus | SetTimer


class BusSearch:
    """`handle(event, now) -> effects`, beside the sessions that use the bus.

    `known` are addresses where the swarm's host was before, for a bus that is never reached.
    """

    def __init__(self, known: tuple[tuple[str, int], ...] = ()) -> None:
        self._succession = Succession()
        self._succession.suppose(tuple(Candidate("", 0, (address,)) for address in known))

    def handle(self, event: object, now: float) -> list[SearchEffect]:
        """Take an event of the bus, one of the two timers, or the answer to a knock."""
        out: list[SearchEffect] = []
        succession = self._succession
        match event:
            case Started():
                out.append(SetTimer(TICK, now + deadlines.BEAT))
                # The one address it was given may be that of a host that is gone.
                self._lost(now, deadlines.SLOT, out)
            case BusChanged(connected=True):
                succession.connected(now)
            case BusChanged():
                if self._lost(now, deadlines.GRACE, out) and (host := succession.host):
                    out.append(Knock(host.device, host.addresses))
            case PortClosed():
                if succession.closed(event.device, now):
                    out.append(SetTimer(NEXT, succession.next_at))
            case Received(sender=sender, message=Digest() as digest) if digest.host == sender:
                succession.on_digest(digest)
                if digest.successor is not None:
                    self._lost(now, 0.0, out)
            case Timer(name="bus-tick"):
                out.append(SetTimer(TICK, now + deadlines.BEAT))
                if succession.on_tick():
                    self._lost(now, 0.0, out)
            case Timer(name="bus-next"):
                candidate = succession.due(now)
                if candidate is not None and candidate.addresses:
                    out.append(MoveBus(candidate.device, candidate.addresses))
                    if candidate.device:  # an address that was only supposed has no name to tell it apart by
                        out.append(Knock(candidate.device, candidate.addresses))
                if succession.searching:
                    out.append(SetTimer(NEXT, succession.next_at))
            case _:
                pass
        return out

    def _lost(self, now: float, grace: float, out: list[SearchEffect]) -> bool:
        if not self._succession.lost(now, grace=grace):
            return False
        out.append(SetTimer(NEXT, self._succession.next_at))
        return True
