"""Answers that broke off, in the home folder: all that is needed to go on with exactly the same tokens.

The random number of a token depends on the seed and its position alone, and answered tokens are run again one
by one: so prompt, tokens so far, seed and sampling are the whole truth about a session.
"""

import time
from dataclasses import dataclass, field
from typing import Annotated

from swisd.core.checked import MAX_JSON_BYTES, Ident, Items, Range, Text
from swisd.core.errors import BadInput, SessionFailed
from swisd.core.messages import Tokens
from swisd.core.types import SamplingParams, SessionId, Sha
from swisd.node.home import Home

MOST = 20  # answers kept
MAX_TEXT = 2000  # characters of the prompt that are kept, for people


@dataclass(frozen=True, slots=True)
class KeptSession:
    """One answer that broke off. `text` is what was asked, perhaps shortened: only people read it."""

    session: SessionId
    model: Sha
    model_id: Annotated[str, Text(200)]
    prompt: Tokens
    emitted: Tokens
    stop_ids: Annotated[tuple[Annotated[int, Range(0, 1 << 24)], ...], Items(64)]
    max_tokens: Annotated[int, Range(1, 1 << 24)]  # of the whole answer, with those in `emitted`
    seed: Annotated[int, Range(0, (1 << 63) - 1)]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    text: Annotated[str, Text(MAX_TEXT)] = ""
    at: Annotated[int, Range(0, 1 << 62)] = 0  # ms since 1970

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("the prompt is empty")
        if len(self.emitted) > self.max_tokens:
            raise ValueError("there are more tokens than were asked for")


class BrokeOff(SessionFailed):
    """An answer ended by an error after its first token. `session` names what was kept of it."""

    def __init__(self, reason: str, session: str) -> None:
        super().__init__(f"{reason}; {how_to_go_on(session)}")
        self.session = session


def how_to_go_on(session: str) -> str:
    """The command that goes on with a kept answer."""
    return f"go on with: swisd ask --continue {session}"


def keep(home: Home, kept: KeptSession) -> None:
    """Write it, or write it again with more tokens; the oldest beyond `MOST` go. Raises `BadInput`."""
    try:
        home.sessions.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot make {home.sessions}: {error.strerror}") from None
    home.write(_name(kept.session), kept)
    for session in _newest_first(home)[MOST:]:
        forget(home, session)


def load(home: Home, session: str) -> KeptSession:
    """What was kept of an answer. Raises `BadInput` if nothing was, or if the file is damaged."""
    found = (
        home.read(_name(session), KeptSession, MAX_JSON_BYTES) if Ident.pattern.fullmatch(session) else None
    )
    if found is not None and found.session == session:
        return found
    known = _newest_first(home)
    if session in known:
        raise BadInput(f"{home.path / _name(session)} is damaged: ask again, and remove it")
    there = f"there are: {', '.join(known[:3])}" if known else "there is none at all"
    raise BadInput(f"no answer that broke off is kept as {session[:40]!r} in {home.sessions}; {there}")


def forget(home: Home, session: str) -> None:
    """Remove it: the answer is whole, or too old."""
    (home.path / _name(session)).unlink(missing_ok=True)


def now_ms() -> int:
    return int(time.time() * 1000)


def _name(session: str) -> str:
    return f"sessions/{session}.json"


def _newest_first(home: Home) -> list[str]:
    found: list[tuple[int, str]] = []
    for path in home.sessions.glob("*.json"):
        if Ident.pattern.fullmatch(path.stem):
            try:
                found.append((path.stat().st_mtime_ns, path.stem))
            except FileNotFoundError:
                continue  # another command was faster
    return [session for _, session in sorted(found, reverse=True)]
