"""A device when its host changes: it follows the line of succession, takes the role over, or gives it up.

Only where a device of the swarm runs the broker; on an external one, leadership alone moves (leadership.py).
"""

from swisd.core import deadlines
from swisd.core.effects import Knock, Lead, MoveBus, Notice, SeekHosts, SetTimer, StartBroker, StopBroker
from swisd.core.events import HostSeen
from swisd.core.host import Host
from swisd.core.leadership import Leadership
from swisd.core.local import Effects, Local
from swisd.core.messages import Digest
from swisd.core.succession import Candidate, Succession, stays


class HostChange:
    """Joins the succession with this device's leadership and its role as host."""

    def __init__(self, local: Local, leadership: Leadership, host: Host) -> None:
        config = local.config
        self._local, self._leadership, self._host = local, leadership, host
        self._embedded = config.claims != "when silent"
        me = Candidate(config.device, config.rank, tuple((item, config.port) for item in config.addresses))
        self.succession = Succession(me if config.broker else None)
        self._sought = -1e9
        self._ticked: float | None = None

    # --- following -----------------------------------------------------------------------------------

    def on_bus_reached(self, now: float) -> None:
        self.succession.connected(now)

    def on_bus_lost(self, now: float, out: Effects) -> None:
        """The bus broke: its host may be back in a moment, else the list begins."""
        if self._embedded and not self._leadership.own_bus and self.succession.lost(now):
            out.append(SetTimer("heir", self.succession.next_at))
            if host := self.succession.host:
                out.append(Knock(host.device, host.addresses))

    def on_digest(self, digest: Digest, now: float, out: Effects) -> None:
        """The host that counts has spoken; perhaps it names the one that follows it."""
        self.succession.on_digest(digest)
        if digest.successor is not None and self._embedded and not self._leadership.own_bus:
            self._search_at_once(now, out)

    def on_tick(self, now: float, out: Effects) -> None:
        """With every heartbeat: a bus whose host says nothing has a host that is frozen."""
        if not self._embedded or self._leadership.own_bus or self._local.stopping:
            return
        if self.succession.on_tick() and self._search_at_once(now, out):
            out.append(Notice("warning", "the host is silent: looking for the next one"))

    def on_timer(self, now: float, out: Effects) -> None:
        """The next slot of the list."""
        candidate = self.succession.due(now)
        if candidate is not None:
            if self._leadership.own_bus:  # and yet its own broker was not reached
                self._leadership.leave_bus()
                out.append(StopBroker())
            self._try(candidate, out)
        if self.succession.searching:
            out.append(SetTimer("heir", self.succession.next_at))

    def on_port_closed(self, device: str, now: float, out: Effects) -> None:
        """A device does not run, perhaps the one whose turn it is, or one that this host waits for."""
        if self._leadership.leading:
            self._host.on_port_closed(device, now, out)
        elif self.succession.closed(device, now):
            out.append(SetTimer("heir", self.succession.next_at))

    def on_broker_started(self, out: Effects) -> None:
        if not self.succession.searching:  # the host came back meanwhile
            if not self._leadership.own_bus:
                out.append(StopBroker())
            return
        self._leadership.own_bus = True
        out.append(MoveBus(self._local.device, ()))

    def on_broker_failed(self, reason: str, now: float, out: Effects) -> None:
        out.append(Notice("warning", f"cannot be the host: {reason}"))
        if self.succession.searching:
            self.succession.give_up_slot(now)
            out.append(SetTimer("heir", now))

    def _search_at_once(self, now: float, out: Effects) -> bool:
        if not self.succession.lost(now, grace=0.0):
            return False
        out.append(SetTimer("heir", now))
        return True

    def _try(self, candidate: Candidate, out: Effects) -> None:
        self._leadership.host = None  # whoever speaks there is host
        if candidate.device == self._local.device:
            out.append(Notice("info", "the host is lost: this device takes its place"))
            # The others come here by now: a host that is back in this moment must not keep this device.
            out.extend((StartBroker(), MoveBus(candidate.device, ())))
        else:
            out.append(MoveBus(candidate.device, candidate.addresses))
            out.append(Knock(candidate.device, candidate.addresses))

    # --- as host -------------------------------------------------------------------------------------

    def on_lead(self, now: float) -> None:
        self.succession.found()
        self._sought, self._ticked = now, None

    def on_host_tick(self, now: float, out: Effects) -> None:
        """Look for devices that are missing: they may follow another host by now."""
        if not self._embedded:
            return
        late = now - self._ticked - deadlines.HOST_TICK if self._ticked is not None else 0.0
        self._ticked = now
        if late > deadlines.STALL:
            self._host.stood_still(late, now)
            self._seek(self.succession.missing(set()), now, out)
            return
        if now - self._sought < deadlines.SEEK:
            return
        missing = self.succession.missing({entry.device for entry in self._host.members.present()})
        if missing or not self._host.followed or now - self._sought >= deadlines.SEEK_RARELY:
            self._seek(missing, now, out)

    def on_host_seen(self, seen: HostSeen, now: float, out: Effects) -> bool:
        """Of two hosts one gives way. Returns True if it is this one."""
        host, config = self._host, self._local.config
        if not self._embedded or not self._leadership.leading or seen.device == config.device:
            return False
        mine = (host.followed, host.epoch, config.rank, config.device)
        if stays(mine, (seen.followed, seen.epoch, seen.rank, seen.device)):
            host.outrank(seen.epoch, now)
            return False
        out.append(Notice("warning", "another device is the host by now: stepping down"))
        there = Candidate(seen.device, seen.rank, ((seen.address, seen.port),))
        host.give_way(there.device, there.addresses, seen.rank, seen.epoch, out)
        self._leadership.leave_bus()
        self.succession.visit(there)
        out.extend((Lead(False), StopBroker(), MoveBus(there.device, there.addresses)))
        return True

    def on_stopping(self, out: Effects) -> None:
        """A host that leaves says who follows it."""
        if not self._embedded or not self._leadership.leading:
            return
        present = {entry.device for entry in self._host.members.present()} - {self._local.device}
        if heir := self.succession.first_of(present):
            self._host.give_way(heir.device, heir.addresses, heir.rank, 1 << 62, out)

    def _seek(self, missing: tuple[Candidate, ...], now: float, out: Effects) -> None:
        self._sought = now
        out.append(SeekHosts(tuple(where for item in missing for where in item.addresses[:2])))
