"""A shared medium as pure values: frames and the time in, deliveries with their times out.

No clock, no sockets, one seed. Two kinds of medium:

- `air_rate` given: an access point. One transmitter at a time, and a frame from one station to another is
  sent twice, up to the access point and down again. A station with a lower rate keeps the air for longer.
  Whoever has a frame waiting gets its turn in order, frame by frame, as in Wi-Fi.
- `air_rate=None`: a wired switch. Each port sends and receives at its own rate, in both directions at once.

A port's delay, jitter and loss are those of its own way to the access point; between two ports they add up.
"""

import random
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

ARP = b"\x08\x06"
QUEUE_BYTES = 256 * 1024
_EVERYBODY = ""  # the queue of the access point's group frames, which are sent once for all


@dataclass(frozen=True, slots=True)
class Link:
    """A port's way to the access point. Rates are in bit/s; None is as fast as the medium."""

    delay_s: float = 0.0
    jitter_s: float = 0.0  # up to so much more, drawn evenly; the order of a pair's frames is kept
    loss: float = 0.0
    rate: float | None = None
    duplicate: float = 0.0
    reorder: float = 0.0  # how often a frame is held back, so that later ones overtake it
    reorder_s: float = 0.01
    queue_bytes: int = QUEUE_BYTES  # in each direction; what does not fit is dropped

    def __post_init__(self) -> None:
        for name in ("delay_s", "jitter_s", "reorder_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is below zero")
        for name in ("loss", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is not a probability")
        if self.rate is not None and self.rate <= 0:
            raise ValueError("the rate is not above zero; to stop a port, cut it")


@dataclass(frozen=True, slots=True, order=True)
class Delivery:
    """A frame that leaves the medium at a port."""

    at: float
    port: str
    frame: bytes


@dataclass(slots=True)
class _Job:
    source: str
    frame: bytes
    targets: tuple[str, ...]  # none: on its way up


@dataclass(slots=True)
class _Transmitter:
    """Sends one frame at a time from its queues, which take turns."""

    queues: dict[tuple[str, str], deque[_Job]] = field(default_factory=dict)
    held: Counter[tuple[str, str]] = field(default_factory=Counter)
    job: _Job | None = None
    until: float = 0.0

    def next_job(self) -> _Job | None:
        for key, queue in self.queues.items():
            if queue:
                self.queues[key] = self.queues.pop(key)  # to the end of the line
                job = queue.popleft()
                self.held[key] -= len(job.frame)
                return job
        return None


class Ether:
    """Ports by name. Call `push` with a frame and `advance` when `next_at` has come; both give deliveries."""

    def __init__(
        self,
        *,
        air_rate: float | None = None,
        air_overhead_s: float = 0.0,
        multicast: bool = True,
        seed: int = 0,
    ) -> None:
        if air_rate is not None and air_rate <= 0:
            raise ValueError("the rate of the air is not above zero")
        self.air_rate, self.air_overhead_s = air_rate, air_overhead_s
        self.multicast = multicast  # False: as an access point that filters group frames, all but ARP
        self.links: dict[str, Link] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.air_s = 0.0  # how long anybody has been sending, on all transmitters together
        self._seed = seed
        self._dice: dict[str, random.Random] = {}  # one a port, so that no port's traffic shifts another's
        self._macs: dict[bytes, str] = {}
        self._cut_ports: set[str] = set()
        self._cut_pairs: set[frozenset[str]] = set()
        self._last: dict[tuple[str, str], float] = {}
        self._air = _Transmitter()
        self._wires: dict[tuple[str, str], _Transmitter] = {}
        self._now = 0.0

    def add(self, port: str, link: Link | None = None) -> None:
        if not port or port in self.links:
            raise ValueError(f"port {port!r} is nameless or there already")
        self.links[port] = link or Link()
        self.counts[port] = Counter()
        self._dice[port] = random.Random(f"{self._seed}/{port}")

    def set_link(self, port: str, link: Link) -> None:
        """What was sent before keeps its time."""
        if port not in self.links:
            raise ValueError(f"no port {port!r}")
        self.links[port] = link

    def cut(self, a: str, b: str | None = None) -> None:
        """Cut a port off, or only the way between two. What is in flight still arrives."""
        self._known(a, b)
        if b is None:
            self._cut_ports.add(a)
        else:
            self._cut_pairs.add(frozenset((a, b)))

    def heal(self, a: str, b: str | None = None) -> None:
        self._known(a, b)
        if b is None:
            self._cut_ports.discard(a)
        else:
            self._cut_pairs.discard(frozenset((a, b)))

    def _known(self, *ports: str | None) -> None:
        for port in ports:
            if port is not None and port not in self.links:
                raise ValueError(f"no port {port!r}")

    @property
    def next_at(self) -> float | None:
        """When a transmission ends; until then `advance` has nothing to say."""
        busy = [each.until for each in self._transmitters() if each.job is not None]
        return min(busy, default=None)

    def push(self, port: str, frame: bytes, now: float) -> list[Delivery]:
        """A frame comes in at a port. Gives what is decided by now; its own delivery often comes later."""
        done = self.advance(now)
        self.counts[port]["in"] += 1
        if len(frame) < 14:
            self.counts[port]["malformed"] += 1
            return done
        if port in self._cut_ports:
            self.counts[port]["cut"] += 1
            return done
        if not frame[6] & 1:
            self._macs[frame[6:12]] = port
        if self._filtered(frame):
            self.counts[port]["filtered"] += 1
            return done
        self._enqueue(("up", port), _Job(port, frame, ()), self._now)
        return done + self.advance(now)

    def advance(self, now: float) -> list[Delivery]:
        """All transmissions that end by now. The clock never runs backwards here."""
        self._now = max(self._now, now)
        out: list[Delivery] = []
        while True:
            busy = [each for each in self._transmitters() if each.job is not None and each.until <= self._now]
            if not busy:
                return sorted(out, key=lambda delivery: delivery.at)
            first = min(busy, key=lambda each: each.until)
            job, at = first.job, first.until
            first.job = None
            assert job is not None
            # The next one first: a relayed frame joins the line, it does not jump it.
            self._start(first, at)
            if job.targets:
                for port in job.targets:
                    out.extend(self._deliver(job, port, at))
            else:
                self._relay(job, at)

    def _transmitters(self) -> Iterable[_Transmitter]:
        return (self._air,) if self.air_rate is not None else self._wires.values()

    def _filtered(self, frame: bytes) -> bool:
        return not self.multicast and bool(frame[0] & 1) and frame[12:14] != ARP

    def _relay(self, job: _Job, at: float) -> None:
        if self._lost(job.source):
            return
        target = self._macs.get(job.frame[:6]) if not job.frame[0] & 1 else None
        if target is not None:
            if target != job.source:
                self._enqueue(("down", target), _Job(job.source, job.frame, (target,)), at)
            return
        others = tuple(port for port in self.links if port != job.source)
        if self.air_rate is not None and others:
            self._enqueue(("down", _EVERYBODY), _Job(job.source, job.frame, others), at)
        else:
            for port in others:
                self._enqueue(("down", port), _Job(job.source, job.frame, (port,)), at)

    def _deliver(self, job: _Job, port: str, at: float) -> list[Delivery]:
        counts, dice, pair = self.counts[port], self._dice[port], (job.source, port)
        if {*pair} & self._cut_ports or frozenset(pair) in self._cut_pairs:
            counts["cut"] += 1
            return []
        if self._lost(port):
            return []
        ends = (self.links[job.source], self.links[port])
        at += sum(link.delay_s for link in ends)
        at += sum(dice.uniform(0, link.jitter_s) for link in ends if link.jitter_s)
        at = max(at, self._last.get(pair, 0.0))
        held = [link.reorder_s for link in ends if link.reorder and dice.random() < link.reorder]
        if held:
            counts["reordered"] += 1
            at += sum(held)
        else:
            self._last[pair] = at
        copies = 1 + sum(bool(link.duplicate) and dice.random() < link.duplicate for link in ends)
        counts["duplicated"] += copies - 1
        counts["out"] += copies
        counts["out_bytes"] += copies * len(job.frame)
        return [Delivery(at, port, job.frame)] * copies

    def _lost(self, port: str) -> bool:
        """Lost on this port's way; its air time is spent all the same."""
        loss = self.links[port].loss
        if not loss or self._dice[port].random() >= loss:
            return False
        self.counts[port]["lost"] += 1
        return True

    def _enqueue(self, key: tuple[str, str], job: _Job, at: float) -> None:
        shared = self.air_rate is not None
        transmitter = self._air if shared else self._wires.setdefault(key, _Transmitter())
        queue = transmitter.queues.setdefault(key, deque())
        limit = self.links[key[1]].queue_bytes if key[1] else QUEUE_BYTES
        if transmitter.held[key] + len(job.frame) > limit:
            self.counts[key[1] or job.source]["overflow"] += 1
            return
        queue.append(job)
        transmitter.held[key] += len(job.frame)
        if transmitter.job is None:
            self._start(transmitter, at)

    def _start(self, transmitter: _Transmitter, at: float) -> None:
        job = transmitter.next_job()
        if job is None:
            return
        rates = [self.links[port].rate for port in job.targets or (job.source,)]
        known = [rate for rate in (*rates, self.air_rate) if rate is not None]
        took = (len(job.frame) * 8 / min(known) if known else 0.0) + self.air_overhead_s
        self.air_s += took
        transmitter.job, transmitter.until = job, at + took
