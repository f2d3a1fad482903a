"""What a machine wants done. The node does it; whatever takes time comes back as an event."""

from dataclasses import dataclass
from typing import Literal

from swisd.core.messages import Message
from swisd.core.rows import Activation, Following, KvRows, Sample, Score, Work
from swisd.core.types import Units


@dataclass(frozen=True, slots=True)
class Publish:
    """Put a message on its topic; `to` is the device that an `Ask` or a `Repair` is for."""

    message: Message
    to: str = ""


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send rows to the device that runs their stage."""

    device: str
    activation: Activation


@dataclass(frozen=True, slots=True)
class SendKv:
    """Send a session's keys and values to the device that will run their layers."""

    device: str
    kv: KvRows


@dataclass(frozen=True, slots=True)
class LoadShards:
    """Fetch what is missing and load a shard for each range of `wanted`, while steps go on.

    Shards of `keep` stay if they are loaded; every other one is closed first, and rows of KV caches whose
    units are in neither are freed. A later one replaces this one. `max_tokens` bounds each session's context.
    Comes back: LoadProgress, then ShardsLoaded or LoadFailed with the same `epoch`.
    """

    epoch: int
    model: str
    wanted: tuple[Units, ...]
    keep: tuple[Units, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class KeepShards:
    """Close every shard but these, stop loading others, and free the KV rows of all other units."""

    units: tuple[Units, ...] = ()


@dataclass(frozen=True, slots=True)
class RunStep:
    """Run the shard of `units`. Comes back: StepDone or StepFailed with the same `work`.

    A step of one row may share a pass with those of other sessions, `together` of them at most: with more of
    them here at once the other devices of the pipeline would have nothing to do.

    Its rows may be sent to `onward`, the device of the next stage, before the machine hears that they are
    made (`StepDone.sent`). The session's next row, if it comes from `inward`, may run before the machine
    hears of it, as `Expected` says.
    """

    work: Work
    units: Units
    activation: Activation
    sample: Sample | None = None
    score: Score | None = None
    together: int = 1
    following: Following | None = None
    onward: str = ""
    inward: str = ""


@dataclass(frozen=True, slots=True)
class ReadKv:
    """Copy keys and values out of the caches, after the steps that were asked for before.

    Comes back: KvRead, or nothing if the session is gone or has fewer rows by then.
    """

    device: str  # whom they are for
    epoch: int
    session: str
    units: Units
    position: int
    rows: int


@dataclass(frozen=True, slots=True)
class WriteKv:
    """Put keys and values into the caches, before the steps that are asked for later.

    Rows behind them are forgotten. Comes back: KvFailed if they do not fit.
    """

    kv: KvRows


@dataclass(frozen=True, slots=True)
class ForkKv:
    """Give a session, before its steps, what the caches of all layers hold of another one before `end`.

    `keep`: that one keeps its own, too; otherwise it is gone. Comes back: KvFailed if it holds less.
    """

    source: str
    session: str
    end: int
    keep: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Steps of this session that were asked for and did not begin need not run: nothing comes back of them.

    Those of an earlier plan than `epoch`, and under that plan those below `step`.
    """

    session: str
    epoch: int
    step: int


def given_up(work: Work, effect: GiveUp) -> bool:
    """Whether a step is one of those that need not run."""
    return work.session == effect.session and (work.epoch, work.step) < (effect.epoch, effect.step)


@dataclass(frozen=True, slots=True)
class Draft:
    """Have this device's small model say which `count` tokens come after `ids`; ends in `DraftMade`."""

    session: str
    ids: tuple[int, ...]
    count: int


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


@dataclass(frozen=True, slots=True)
class Knock:
    """See a few times, as `deadlines.KNOCKS` says, whether anything listens on a device's port.

    Comes back: PortClosed, at the first refusal. Nothing comes back where somebody answers, or nobody does.
    """

    device: str
    addresses: tuple[tuple[str, int], ...]


Effect = (
    Publish
    | SendFrame
    | SendKv
    | LoadShards
    | KeepShards
    | RunStep
    | ReadKv
    | WriteKv
    | ForkKv
    | GiveUp
    | Draft
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
    | Knock
)
