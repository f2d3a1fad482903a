"""What a question gets back, as values: for Python callers and, as JSON, for `--json`."""

from dataclasses import dataclass, field
from typing import Literal

from swisd.core.types import FinishReason, Plan


@dataclass(frozen=True, slots=True)
class Timings:
    """Times of one answer in ms, as the asker saw them; `prompt_ms` as the driver did."""

    prompt_tokens: int
    prompt_ms: float
    first_token_ms: float
    decode_tokens: int
    decode_tokens_per_s: float
    held_tokens: int = 0  # of the prompt, which the devices held already
    guessed_tokens: int = 0  # of the answer, whose rows ran before they were known (speculation)


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """Units `[start, end)` of the plan and the device that ran them."""

    device: str
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PlanInfo:
    """The plan under which an answer was made."""

    epoch: int
    model: str
    shards: tuple[ShardInfo, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    timings: Timings
    plan: PlanInfo


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer as it comes. `text` may be empty while a character is incomplete."""

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """Why nothing comes yet, in words."""

    text: str
    level: Literal["info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A teacher-forced pass. Row `p` holds what the model expected after token `p`.

    `next_logprobs[p]` is the log-probability (natural) of token `p + 1`, None for the last row of a window.
    """

    perplexity: float
    tokens: int
    token_ids: tuple[int, ...]
    top_ids: tuple[tuple[int, ...], ...] = field(repr=False)
    top_logprobs: tuple[tuple[float, ...], ...] = field(repr=False)
    next_logprobs: tuple[float | None, ...] = field(repr=False)
    plan: PlanInfo
    seconds: float


def plan_info(plan: Plan, names: dict[str, str]) -> PlanInfo:
    """The part of a plan that an answer tells."""
    return PlanInfo(
        plan.epoch,
        plan.model_id,
        tuple(
            ShardInfo(stage.device, names.get(stage.device, stage.device), stage.start, stage.end)
            for pipeline in plan.pipelines
            for stage in pipeline.stages
        ),
    )
