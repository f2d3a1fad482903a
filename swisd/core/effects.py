"""What a machine wants done. The node does it; whatever takes time comes back as an event."""

from dataclasses import dataclass
from typing import Any, Literal

from swisd.core.messages import Message
from swisd.core.types import SamplingParams, Slot, Stage


@dataclass(frozen=True, slots=True)
class Work:
    """Names one run of a shard: results that no longer matter are told by it."""

    epoch: int
    stage: int
    session: str
    step: int


@dataclass(frozen=True, slots=True)
class Activation:
    """Rows on their way into a stage.

    `payload` is opaque to the core: token ids (a tuple of int) for the stage that holds the embedding,
    else whatever the runtime gave (an array of float32, `rows` x hidden).
    """

    epoch: int
    pipeline: int
    stage: int
    slots: tuple[Slot, ...]
    rows: int
    payload: Any


@dataclass(frozen=True, slots=True)
class Sample:
    """How the head's answer becomes a token: drawn from (seed, position), so it can be repeated anywhere."""

    params: SamplingParams
    seed: int
    position: int
    history: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Teacher forcing: the `top` best of each row, and the log-probability of the token that came next."""

    top: int
    next_ids: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """Put a message on its topic; `to` is the driver of an `Ask`."""

    message: Message
    to: str = ""


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send rows to the device that runs their stage."""

    device: str
    activation: Activation


@dataclass(frozen=True, slots=True)
class LoadShards:
    """Fetch what is missing and load these stages of a plan.

    Comes back: LoadProgress, then ShardsLoaded or LoadFailed.
    """

    epoch: int
    model: str
    stages: tuple[tuple[int, Stage], ...]  # with their place in the pipeline
    max_tokens: int


@dataclass(frozen=True, slots=True)
class UnloadShards:
    """Free every shard and all KV caches."""


@dataclass(frozen=True, slots=True)
class RunStep:
    """Run one stage. Comes back: StepDone or StepFailed with the same `work`."""

    work: Work
    activation: Activation
    sample: Sample | None = None
    score: Score | None = None


@dataclass(frozen=True, slots=True)
class DropSession:
    """Free a session's KV cache on this device."""

    session: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Ask for a Timer event with this name at time `at`; a second one of the same name replaces the first."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget a timer."""

    name: str


@dataclass(frozen=True, slots=True)
class GetManifest:
    """Fetch a manifest of `size` bytes, and its graph. Comes back: ManifestReady or ManifestFailed."""

    model: str
    size: int


@dataclass(frozen=True, slots=True)
class ProvideModel:
    """Fetch a model's file from its source and import it. Comes back: HoldingsChanged or ProvideFailed."""

    model_id: str


@dataclass(frozen=True, slots=True)
class MeasureCompute:
    """Measure this device with the model's shard graph. Comes back: Measured or MeasureFailed."""

    model: str


@dataclass(frozen=True, slots=True)
class MeasureLinks:
    """Measure round trip and bandwidth to these devices. Comes back: LinksMeasured."""

    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person may want to know: a log line, an entry of the dashboard."""

    level: Literal["info", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True)
class Lead:
    """This device became the host (`True`) or no longer is (`False`): read heartbeats, or stop."""

    leading: bool


@dataclass(frozen=True, slots=True)
class StartBroker:
    """Run the swarm's broker on this device. Comes back: BrokerStarted or BrokerFailed."""


@dataclass(frozen=True, slots=True)
class StopBroker:
    """Stop this device's broker; its clients go elsewhere."""


@dataclass(frozen=True, slots=True)
class MoveBus:
    """Connect to the broker on that device instead (perhaps this one): at one of these addresses."""

    device: str
    addresses: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SeekHosts:
    """Ask at these addresses, and where hosts were before, who is host. Comes back: HostSeen, any number."""

    addresses: tuple[tuple[str, int], ...]


Effect = (
    Publish
    | SendFrame
    | LoadShards
    | UnloadShards
    | RunStep
    | DropSession
    | SetTimer
    | CancelTimer
    | GetManifest
    | ProvideModel
    | MeasureCompute
    | MeasureLinks
    | Notice
    | Lead
    | StartBroker
    | StopBroker
    | MoveBus
    | SeekHosts
)
