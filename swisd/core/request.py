"""What is asked of the swarm, and what its asker says of it meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

from swisd.core.effects import CancelTimer, Publish, SetTimer
from swisd.core.history import History, history
from swisd.core.messages import Out
from swisd.core.types import FinishReason, Plan, SamplingParams, Units


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. `session` is 16 hex digits; its last two are replaced by the attempt's number."""

    session: str
    asker: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams
    seed: int
    stop_ids: tuple[int, ...]
    score_top: int = 0
    model_id: str = ""
    emitted: tuple[int, ...] = ()  # tokens answered before, by a session that this one goes on with
    alone: tuple[Units, ...] = ()  # spans of the prompt that were answers, and may be held still


@dataclass(frozen=True, slots=True)
class Listen:
    """Subscribe to what the driver says of this session."""

    session: str


@dataclass(frozen=True, slots=True)
class Answered:
    """New tokens or scores, in order, without gap or repeat."""

    out: Out


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why nothing comes yet, in words."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over. `error` says why if `finish` is "error"."""

    finish: FinishReason
    error: str
    plan: Plan | None
    prompt_ms: float
    alone: tuple[Units, ...] = ()  # spans of the prompt that were run one by one
    held: int = 0  # tokens of the prompt that were taken over from another session
    guessed: int = 0  # tokens of the answer whose rows ran before they were known, by the last driver


def kept_of(request: Request, ended: Ended, tokens: Sequence[int]) -> History | None:
    """What the devices may keep of a session whose whole answer `tokens` is; None if it did not end well."""
    if ended.finish not in ("stop", "length"):
        return None
    return history(request.prompt, ended.alone, tokens, whole=ended.finish == "stop")


AskerEffect = Publish | SetTimer | CancelTimer | Listen | Answered | Waiting | Ended
