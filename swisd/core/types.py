"""The words of the swarm as values: capability, link, plan, stage, sampling. See docs/architecture.md."""

from dataclasses import dataclass
from typing import Annotated, Literal

from swisd.core.checked import Ident, Items, Range, Text

DeviceId = Annotated[str, Ident(), Text(16)]  # made once and kept in the home folder
SessionId = Annotated[str, Ident(), Text(16)]
Sha = Annotated[str, Text(64)]
Bytes = Annotated[int, Range(0, 1 << 50)]
Millis = Annotated[float, Range(0.0, 1e7)]
Epoch = Annotated[int, Range(0, 1 << 62)]
Name = Annotated[str, Text(64)]
Note = Annotated[str, Text(500)]
UnitIndex = Annotated[int, Range(0, 1 << 16)]
Units = tuple[UnitIndex, UnitIndex]  # contiguous units `[start, end)` of a model

Objective = Literal["latency", "throughput", "spread"]
DeviceState = Literal["idle", "measuring", "fetching", "loading", "ready", "failed"]
Liveness = Literal["alive", "suspect", "dead", "left"]
FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a device measured of itself with the real shard graph of one model.

    One run of a shard with `n` layers over one token is predicted to take
    `run_ms + n * layer_ms (+ embed_ms) (+ head_ms)` milliseconds; a prefill pass of `r` rows takes
    `run_ms + r * n * layer_row_ms`. `head_ms` is None where the head does not fit the memory offered.
    `threads` is with how many it was measured and computes; 0 where an older version does not say.
    """

    model: Sha
    layer_ms: Millis
    layer_row_ms: Millis
    head_ms: Millis | None
    embed_ms: Millis
    run_ms: Millis
    threads: Annotated[int, Range(0, 1024)] = 0


@dataclass(frozen=True, slots=True)
class PeerLink:
    """A measured way to one peer: round trip of a small frame in ms and bandwidth in Mbit/s."""

    device: DeviceId
    rtt_ms: Millis
    mbit_s: Annotated[float, Range(0.0, 1e7)]
    lane: Literal["tcp", "mqtt", "memory"] = "tcp"


@dataclass(frozen=True, slots=True)
class Holding:
    """Units of a model whose blobs a device has on disk, as ranges `[start, end)`."""

    model: Sha
    model_id: Annotated[str, Text(200)]
    model_bytes: Bytes  # size of the manifest itself, so that it can be fetched by name
    ranges: Annotated[tuple[tuple[UnitIndex, UnitIndex], ...], Items(64)]


@dataclass(frozen=True, slots=True)
class Capability:
    """What a device offers the swarm; published when it changes, retained by the bus."""

    device: DeviceId
    boot: int  # ms since 1970 when the process started: a later boot of one device replaces the earlier
    name: Name
    addresses: Annotated[tuple[Name, ...], Items(16)]
    port: Annotated[int, Range(0, 65535)]
    memory_bytes: Bytes  # what it offers for weights and KV cache
    threads: Annotated[int, Range(1, 1024)]
    platform: Name
    version: Name
    broker: bool  # can run the embedded broker and the scheduler
    forge: bool  # can import model files
    rank: Annotated[int, Range(0, 1 << 62)]  # who takes over as host: lowest first
    profiles: Annotated[tuple[Profile, ...], Items(8)] = ()
    holds: Annotated[tuple[Holding, ...], Items(64)] = ()
    links: Annotated[tuple[PeerLink, ...], Items(8)] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a stage; `share` is its part of each layer (1.0: the whole layer)."""

    device: DeviceId
    share: Annotated[float, Range(0.0, 1.0)] = 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Contiguous units `[start, end)` and who runs them."""

    start: UnitIndex
    end: UnitIndex
    members: Annotated[tuple[Member, ...], Items(64, least=1)]

    @property
    def device(self) -> str:
        """The device of a stage that is not sliced."""
        return self.members[0].device

    @property
    def units(self) -> Units:
        return self.start, self.end


@dataclass(frozen=True, slots=True)
class Spare:
    """A device keeps these units loaded beside its own work, for when their device is lost."""

    device: DeviceId
    start: UnitIndex
    end: UnitIndex

    @property
    def units(self) -> Units:
        return self.start, self.end


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages in order; together they cover every unit once. The driver runs the first and the last."""

    stages: Annotated[tuple[Stage, ...], Items(1024, least=1)]

    @property
    def driver(self) -> str:
        return self.stages[0].device

    @property
    def devices(self) -> set[str]:
        return {member.device for stage in self.stages for member in stage.members}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the scheduler decided about one device, and why, in words for its owner."""

    device: DeviceId
    used: bool
    reason: Note


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the cost model expects: ms for one token, ms per prompt token, and ms of each stage."""

    token_ms: Millis
    prompt_token_ms: Millis
    stage_ms: Annotated[tuple[Millis, ...], Items(1024)]
    hop_ms: Annotated[tuple[Millis, ...], Items(1024)]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which device runs which shard. A higher epoch fences every lower one.

    Each pipeline runs sessions of its own. No device has a part in two of them.
    """

    epoch: Epoch
    host: DeviceId
    model: Sha  # the manifest's sha256
    model_id: Annotated[str, Text(200)]
    model_bytes: Bytes
    context: Annotated[int, Range(0, 1 << 24)]  # tokens a session may hold, as memory allows
    objective: Objective
    pipelines: Annotated[tuple[Pipeline, ...], Items(64)]
    prediction: Prediction
    verdicts: Annotated[tuple[Verdict, ...], Items(2048)] = ()
    active: bool = False  # every stage is loaded: sessions may start
    problem: Note = ""  # why there is no pipeline, when there is none
    spares: Annotated[tuple[Spare, ...], Items(1024)] = ()
    gentle: bool = False  # the plan before goes on until this one is active: caches move to where they belong
    boot: int = 0  # of its host: one that began anew may use an epoch again

    def number_of(self, device: DeviceId) -> int | None:
        """The place of the pipeline that a device has a part in; None if it has none."""
        # Asked for every frame and step, so it ends with the first stage that it finds.
        for number, pipeline in enumerate(self.pipelines):
            if any(member.device == device for stage in pipeline.stages for member in stage.members):
                return number
        return None

    def stages_of(self, device: DeviceId) -> tuple[Stage, ...]:
        """All stages of the pipeline that a device has a part in."""
        number = self.number_of(device)
        return self.pipelines[number].stages if number is not None else ()

    def driver_of(self, device: DeviceId) -> DeviceId | None:
        """Who drives the pipeline that a device has a part in."""
        return next((stage.device for stage in self.stages_of(device)), None)

    @property
    def drivers(self) -> tuple[DeviceId, ...]:
        """Those whom sessions are brought to, in the order of their pipelines."""
        return tuple(pipeline.driver for pipeline in self.pipelines)


@dataclass(frozen=True, slots=True)
class HopParts:
    """One device's own part of a hop, sending and receiving together, as medians in ms.

    `wait_ms`: handing rows from thread to thread; `machine_ms`: deciding what to do with them;
    `serialise_ms`: making a frame, and checking one.
    """

    wait_ms: Millis = 0.0
    machine_ms: Millis = 0.0
    serialise_ms: Millis = 0.0


@dataclass(frozen=True, slots=True)
class Beyond:
    """What one-token steps took round the swarm beyond computing, in ms for all hops together."""

    p50_ms: Millis = 0.0
    p99_ms: Millis = 0.0


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. temperature 0 is greedy; 0 or 1 switches each filter off as said."""

    temperature: Annotated[float, Range(0.0, 100.0)] = 0.0
    top_k: Annotated[int, Range(0, 1 << 24)] = 0  # 0: off
    top_p: Annotated[float, Range(0.0, 1.0)] = 1.0  # 1: off
    min_p: Annotated[float, Range(0.0, 1.0)] = 0.0  # 0: off
    repetition_penalty: Annotated[float, Range(0.01, 100.0)] = 1.0  # 1: off
    repetition_window: Annotated[int, Range(0, 1 << 16)] = 256

    @property
    def looks_back(self) -> int:
        """How many tokens before the one that is chosen have a say in it."""
        return self.repetition_window if self.repetition_penalty != 1 else 0


@dataclass(frozen=True, slots=True)
class Slot:
    """Rows of one session in a step.

    `position` is the absolute position of the first row; `logits` says for how many of the trailing rows
    the head's answer is wanted: 1 while generating, all for scoring, 0 for a prompt
    chunk that is not the last. `guess`: their token may turn out to be another one; rows that are no guess
    tell that all rows before them are right.
    """

    session: SessionId
    step: Annotated[int, Range(0, 1 << 31)]
    position: Annotated[int, Range(0, 1 << 31)]
    rows: Annotated[int, Range(1, 1 << 16)]
    logits: Annotated[int, Range(0, 1 << 16)]
    guess: bool = False

    def behind(self) -> "Slot":
        """The row of the token that comes behind these, while generating."""
        return Slot(self.session, self.step + 1, self.position + self.rows, 1, 1)


@dataclass(frozen=True, slots=True)
class Scores:
    """Teacher-forced result for a run of positions (see `swisd.runtime.scoring`)."""

    top_ids: tuple[tuple[int, ...], ...] = ()
    top_logprobs: tuple[tuple[float, ...], ...] = ()
    next_logprobs: tuple[float | None, ...] = ()
