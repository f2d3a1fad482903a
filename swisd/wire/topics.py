"""Every topic of the bus: what it is called, who may speak on it, how it is delivered.

All lie under `swisd/1/<swarm id>/`, so swarms can share an external broker. The swarm id is derived from the
key and tells nothing about it.
"""

import hmac
import re
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

PREFIX = "swisd/1"
IDENT = re.compile(r"[0-9a-f]{16}")


def swarm_id(key: bytes) -> str:
    """16 hex digits that name the swarm of this key, safe to show and to announce."""
    return hmac.new(key, b"swisd swarm id", sha256).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Delivery:
    """MQTT quality of service, retain flag and the largest body in bytes."""

    qos: int
    retain: bool
    limit: int


class Kind(Enum):
    """The kinds of topic. `BEAT` to `SHARD` have one topic per device or session, the others one in all."""

    BEAT = "beat"  # beat/<device>: heartbeat, once a second, read by the host
    CAP = "cap"  # cap/<device>: capability, on change
    GONE = "gone"  # gone/<device>: the will, and a proper farewell
    ASK = "ask"  # ask/<device>: requests to a driver
    OUT = "out"  # out/<session>: what a driver answers
    REPAIR = "repair"  # repair/<device>: between a driver and its workers, when a session is to go on
    SHARD = "shard"  # shard/<device>: activation frames where no direct lane works
    SWARM = "swarm"  # digest of the members, from the host
    PLAN = "plan"  # the plan, from the host
    CALL = "call"  # requests to the host

    @property
    def delivery(self) -> Delivery:
        return _DELIVERY[self]

    @property
    def single(self) -> bool:
        return self in (Kind.SWARM, Kind.PLAN, Kind.CALL)


_DELIVERY = {
    Kind.BEAT: Delivery(0, False, 64 << 10),
    Kind.CAP: Delivery(1, True, 256 << 10),
    Kind.GONE: Delivery(1, False, 4 << 10),
    Kind.ASK: Delivery(1, False, 1 << 20),
    # QoS 0: an index in each message finds a gap sooner than the broker's 5 s wait for an acknowledgement.
    Kind.OUT: Delivery(0, False, 1 << 20),
    Kind.REPAIR: Delivery(0, False, 64 << 10),  # has its own deadlines, like OUT
    Kind.SHARD: Delivery(0, False, 64 << 20),
    Kind.SWARM: Delivery(0, True, 1 << 20),
    Kind.PLAN: Delivery(1, True, 1 << 20),
    Kind.CALL: Delivery(1, False, 64 << 10),
}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: its kind and, where the kind has one, the device or session (16 hex digits)."""

    kind: Kind
    ident: str = ""

    def __post_init__(self) -> None:
        if self.kind.single != (self.ident == "") or (self.ident and not IDENT.fullmatch(self.ident)):
            raise ValueError(f"topic {self.kind.value}/{self.ident[:40]} is not well formed")

    def path(self, swarm: str) -> str:
        """The MQTT topic name in the swarm with that id."""
        tail = f"/{self.ident}" if self.ident else ""
        return f"{PREFIX}/{swarm}/{self.kind.value}{tail}"


def pattern(kind: Kind, swarm: str) -> str:
    """The MQTT filter for all topics of a kind."""
    return f"{PREFIX}/{swarm}/{kind.value}" + ("" if kind.single else "/+")


def parse(path: str, swarm: str) -> Topic | None:
    """The topic of an MQTT topic name, or None if it is not one of this swarm's."""
    head = f"{PREFIX}/{swarm}/"
    if not path.startswith(head) or len(path) > 200:
        return None
    name, _, ident = path[len(head) :].partition("/")
    try:
        return Topic(Kind(name), ident)
    except ValueError:
        return None
