"""What happens to a machine: messages, frames, timers, and the ends of what it asked for."""

from dataclasses import dataclass
from typing import Any

from swisd.core.messages import Message
from swisd.core.model import Manifest
from swisd.core.rows import Activation, KvRows, Work
from swisd.core.types import Holding, HopParts, PeerLink, Profile, Scores, Units


@dataclass(frozen=True, slots=True)
class Started:
    """The node runs; the machine may begin."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """The person asked this device to leave."""


@dataclass(frozen=True, slots=True)
class BusChanged:
    """The bus was reached or lost."""

    connected: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """A control message whose proof was right, and who sent it."""

    sender: str
    message: Message


@dataclass(frozen=True, slots=True)
class FrameArrived:
    """Rows for one of this device's stages."""

    sender: str
    activation: Activation


@dataclass(frozen=True, slots=True)
class KvArrived:
    """Keys and values for units that this device will run."""

    sender: str
    kv: KvRows


@dataclass(frozen=True, slots=True)
class KvRead:
    """The rows that a `ReadKv` asked for, to be sent to `device`."""

    device: str
    kv: KvRows


@dataclass(frozen=True, slots=True)
class KvFailed:
    """Rows of a `WriteKv` did not fit: these units of the session are not here."""

    session: str
    units: Units
    reason: str


@dataclass(frozen=True, slots=True)
class FrameLost:
    """Rows could not be delivered to a device over any lane."""

    device: str
    activation: Activation
    reason: str


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The direct connection to a device broke: rows that were sent shortly before may be lost with it."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer that was asked for."""

    name: str


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far fetching (`loading` False) or loading is, from 0 to 1."""

    epoch: int
    loading: bool
    fraction: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class ShardsLoaded:
    """The shards that a `LoadShards` wanted are in memory; `units` are all that are, with their bytes."""

    epoch: int
    units: tuple[Units, ...]
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """A shard that a `LoadShards` wanted cannot be had; what was in memory before and kept still is."""

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """A stage ran: `payload` holds the rows for the next stage, or `token` or `scores` at the head.

    `compute_ms` is what it takes of the device, `ran_ms` the computation alone; the pass
    served `shared` rows, of several sessions or of one, and `ended` then, on the machine's clock (0: nobody
    says). `sent`: the rows are on their way already, to the device that `RunStep.onward` named.
    """

    work: Work
    rows: int
    payload: Any
    compute_ms: float
    token: int | None = None
    scores: Scores | None = None
    ran_ms: float = 0.0
    shared: int = 1
    sent: bool = False
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class DraftMade:
    """This device's small model says which tokens come next in a session, after so many of them."""

    session: str
    after: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HopsTimed:
    """What this device's own part of a hop took lately."""

    parts: HopParts


@dataclass(frozen=True, slots=True)
class StepFailed:
    """A stage could not run."""

    work: Work
    reason: str


@dataclass(frozen=True, slots=True)
class ManifestReady:
    """A model's manifest was fetched and checked."""

    model: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class ManifestFailed:
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class HoldingsChanged:
    """What this device has on disk, after an import, a fetch or a removal."""

    holds: tuple[Holding, ...]


@dataclass(frozen=True, slots=True)
class ProvideProgress:
    """How far a model's download and import are, from 0 to 1."""

    fraction: float
    note: str


@dataclass(frozen=True, slots=True)
class ProvideFailed:
    model_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Measured:
    """This device's own figures for a model."""

    profile: Profile


@dataclass(frozen=True, slots=True)
class MeasureFailed:
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class LinksMeasured:
    """Round trip and bandwidth to some peers; a peer that did not answer is left out."""

    links: tuple[PeerLink, ...]


@dataclass(frozen=True, slots=True)
class OfferChanged:
    """What this device may give to the swarm now."""

    memory_bytes: int
    free_bytes: int
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class BrokerStarted:
    """This device's broker takes clients."""


@dataclass(frozen=True, slots=True)
class BrokerFailed:
    """This device cannot run a broker now."""

    reason: str


@dataclass(frozen=True, slots=True)
class HostSeen:
    """Another device says of itself that it is host; `followed` by devices besides itself."""

    device: str
    epoch: int
    rank: int
    followed: bool
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class PortClosed:
    """A device's machine answers, and nothing listens on the device's port: its process has ended."""

    device: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Messages or frames that were refused at the door, by reason."""

    reason: str
    count: int = 1


Event = (
    Started
    | Stopping
    | BusChanged
    | Received
    | FrameArrived
    | FrameLost
    | KvArrived
    | KvRead
    | KvFailed
    | LinkLost
    | Timer
    | LoadProgress
    | ShardsLoaded
    | LoadFailed
    | StepDone
    | DraftMade
    | HopsTimed
    | StepFailed
    | ManifestReady
    | ManifestFailed
    | HoldingsChanged
    | ProvideProgress
    | ProvideFailed
    | Measured
    | MeasureFailed
    | LinksMeasured
    | OfferChanged
    | BrokerStarted
    | BrokerFailed
    | HostSeen
    | PortClosed
    | Dropped
)
