"""The control messages of the swarm, as checked dataclasses; `swisd.wire.messages` puts them on topics."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from swisd.core.checked import Items, Range, Text
from swisd.core.types import (
    Beyond,
    Bytes,
    Capability,
    DeviceId,
    DeviceState,
    Epoch,
    FinishReason,
    HopParts,
    Liveness,
    Millis,
    Name,
    Note,
    Plan,
    SamplingParams,
    SessionId,
    Sha,
    UnitIndex,
    Units,
)

Tokens = Annotated[tuple[Annotated[int, Range(0, 1 << 24)], ...], Items(1 << 17)]
Rows = Annotated[tuple[tuple[float, ...], ...], Items(1 << 12)]
Position = Annotated[int, Range(0, 1 << 30)]
Span = tuple[Position, Position]


@dataclass(frozen=True, slots=True)
class SessionView:
    """A running session as the dashboard shows it."""

    session: SessionId
    asker: DeviceId
    prompt_tokens: Annotated[int, Range(0, 1 << 24)]
    tokens: Annotated[int, Range(0, 1 << 24)]
    tokens_per_s: Annotated[float, Range(0.0, 1e9)]
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat: alive, in which state, with what measured."""

    device: DeviceId
    boot: int
    seq: Annotated[int, Range(0, 1 << 53)]
    state: DeviceState
    epoch: Epoch  # of the plan whose shards this device has loaded (state "ready") or works on
    planner: DeviceId | None = None  # who made that plan: two hosts may have used one epoch
    planner_boot: int | None = None  # and which of its lives
    progress: Annotated[float, Range(0.0, 1.0)] = 0.0
    note: Note = ""
    free_bytes: Bytes = 0
    resident_bytes: Bytes = 0
    stage_ms: Millis = 0.0  # median of its last one-token steps, all its stages of a pipeline together
    token_ms: Millis = 0.0  # as a driver: median time of a whole step round the swarm
    sessions: Annotated[tuple[SessionView, ...], Items(32)] = ()
    drops: Annotated[dict[str, Annotated[int, Range(0, 1 << 53)]], Items(32)] = field(default_factory=dict)
    warm: Annotated[tuple[Units, ...], Items(32)] = ()  # shards in memory, those of the plan and spares
    hop: HopParts = field(default_factory=HopParts)
    beyond: Beyond = field(default_factory=Beyond)  # as a driver


@dataclass(frozen=True, slots=True)
class Gone:
    """A farewell, or the will that the broker speaks for a client whose connection broke."""

    device: DeviceId
    boot: int
    proper: bool  # False: only a hint; heartbeats decide


@dataclass(frozen=True, slots=True)
class MemberView:
    """One device as the host sees it; what workers, askers and dashboards know of each other."""

    device: DeviceId
    name: Name
    liveness: Liveness
    state: DeviceState
    addresses: Annotated[tuple[Name, ...], Items(16)]
    port: Annotated[int, Range(0, 65535)]
    rank: Annotated[int, Range(0, 1 << 62)]
    broker: bool
    memory_bytes: Bytes
    holds: Annotated[tuple[tuple[Sha, UnitIndex, UnitIndex], ...], Items(64)] = ()
    layer_ms: Millis = 0.0
    stage_ms: Millis = 0.0
    resident_bytes: Bytes = 0
    rtt_ms: Millis = 0.0
    progress: Annotated[float, Range(0.0, 1.0)] = 0.0
    note: Note = ""
    drops: Annotated[int, Range(0, 1 << 53)] = 0  # messages it refused: malformed, foreign, late
    warm: Annotated[tuple[Units, ...], Items(32)] = ()  # shards in its memory
    hop: HopParts = field(default_factory=HopParts)
    sessions: Annotated[int, Range(0, 1 << 16)] = 0  # that it drives, or that wait for it


@dataclass(frozen=True, slots=True)
class Digest:
    """The swarm in one message, from the host, so that nobody else has to read every heartbeat."""

    host: DeviceId
    epoch: Epoch
    seq: Annotated[int, Range(0, 1 << 53)]
    members: Annotated[tuple[MemberView, ...], Items(2048)]
    sessions: Annotated[tuple[SessionView, ...], Items(256)] = ()
    token_ms: Millis = 0.0
    note: Note = ""
    model: Annotated[str, Text(64)] = ""  # manifest sha256 of the model that the swarm is to run
    model_id: Annotated[str, Text(200)] = ""
    model_bytes: Bytes = 0
    uncovered: Annotated[tuple[DeviceId, ...], Items(64)] = ()  # of the plan, whom nobody could stand in for
    beyond: Beyond = field(default_factory=Beyond)  # of the plan's driver, as `token_ms`
    successor: DeviceId | None = None  # the host gives way: this device runs the bus from now on


@dataclass(frozen=True, slots=True)
class Ask:
    """About a session, to the devices that run it.

    The asker starts it (idempotent), renews it while it listens and cancels it; the driver cancels it on its
    workers, or has them keep what they hold (`park`): a session that begins as it did may go on from there.
    """

    op: Literal["start", "renew", "cancel", "park"]
    session: SessionId
    asker: DeviceId
    epoch: Epoch = 0
    prompt: Tokens = ()
    emitted: Tokens = ()  # tokens already answered, when a session is continued on another driver
    stop_ids: Annotated[tuple[Annotated[int, Range(0, 1 << 24)], ...], Items(64)] = ()
    max_tokens: Annotated[int, Range(0, 1 << 24)] = 0
    seed: Annotated[int, Range(0, (1 << 63) - 1)] = 0
    sampling: SamplingParams = field(default_factory=SamplingParams)
    score_top: Annotated[int, Range(0, 100)] = 0  # above 0: teacher-forced scores instead of new tokens
    from_index: Annotated[int, Range(0, 1 << 31)] = 0  # renew: the next message expected; repairs a gap
    again: bool = False  # start: it ran before, so devices may still hold rows of it
    alone: Annotated[tuple[Span, ...], Items(1024)] = ()  # start: spans of the prompt that were answers once
    note: Note = ""


@dataclass(frozen=True, slots=True)
class Out:
    """From a driver to the asker: `index` counts the messages of a session without a gap.

    `base` is the number of tokens that the asker had when it asked: where a session is started again with
    the same driver, it tells which of both starts `index` counts from.
    """

    session: SessionId
    index: Annotated[int, Range(0, 1 << 31)]
    epoch: Epoch
    tokens: Tokens = ()
    base: Annotated[int, Range(0, 1 << 24)] = 0
    top_ids: Annotated[tuple[Tokens, ...], Items(1 << 12)] = ()
    top_logprobs: Rows = ()
    next_logprobs: Annotated[tuple[float | None, ...], Items(1 << 12)] = ()
    finish: FinishReason | None = None
    error: Note = ""
    retry: bool = False  # ended by the swarm, not by the model: the asker may continue elsewhere
    freed: bool = False  # and nobody holds rows of it any more
    waiting: Annotated[int, Range(0, 1 << 20)] = 0  # sessions before this one in the driver's queue
    alive: bool = False  # the answer to a renewal while nothing else is to be said: has no place in the order
    prompt_ms: Millis = 0.0
    held: Annotated[int, Range(0, 1 << 24)] = 0  # tokens of the prompt that were taken over and not run
    guessed: Annotated[int, Range(0, 1 << 24)] = 0  # tokens so far whose row ran before it was known


@dataclass(frozen=True, slots=True)
class Held:
    """What a device holds of a session for one stage of the plan.

    `length` positions are in its caches. Its outputs for positions `[kept_from, made)` are in its journal;
    `made` without journal says how far it got. The last of them may be of a guess that was wrong. Steps below
    `entered` came here under this plan, and those below `ran` have run.
    """

    stage: Annotated[int, Range(0, 1023)]
    length: Position
    kept_from: Position
    made: Position
    entered: Annotated[int, Range(0, 1 << 31)] = 0
    ran: Annotated[int, Range(0, 1 << 31)] = 0


@dataclass(frozen=True, slots=True)
class Repair:
    """How a driver brings a session back to life; all of one epoch and session, numbered by `step`.

    `probe`: say what you hold (answered by `held`). `resume`: the same, and forget steps below `step`.
    `fork`: the same, and take what `source`, which ended, held of positions below `end`, if the session holds
    nothing; `keep`: `source` keeps them, too.
    `replay`: send your outputs of stage `stage` for positions `[start, end)` again, to be run up to stage
    `until`. `done`: the rows up to `end` are in the caches of stage `until`. `fail`: the session is stuck at
    the sender for the reason in `note`; `step` is the one concerned.

    Between two devices under a coming plan, of no session: `move`: send me the caches of layers
    `[start, end)` of all sessions; `moved`: what I had of them is on its way.
    """

    op: Literal["probe", "resume", "fork", "held", "replay", "done", "fail", "move", "moved"]
    session: SessionId
    epoch: Epoch
    step: Annotated[int, Range(0, 1 << 31)]
    device: DeviceId  # whose word this is
    held: Annotated[tuple[Held, ...], Items(64)] = ()
    stage: Annotated[int, Range(0, 1023)] = 0
    until: Annotated[int, Range(0, 1023)] = 0
    start: Position = 0
    end: Position = 0
    source: SessionId | None = None
    keep: bool = False
    note: Note = ""


@dataclass(frozen=True, slots=True)
class Call:
    """To the host: a wish for another model, or for a new plan; or a word about a device of the plan.

    `broken`: the link to it broke. `suspect`: it does not answer its driver. `slow`: again and again it takes
    far longer than it says.
    """

    op: Literal["model", "replan", "broken", "suspect", "slow"]
    device: DeviceId
    model_id: Annotated[str, Text(200)] = ""
    about: Annotated[str, Text(16)] = ""  # the device in question
    epoch: Epoch = 0  # of the plan under which it was noticed
    note: Note = ""


Message = Beat | Capability | Gone | Digest | Plan | Ask | Out | Repair | Call
