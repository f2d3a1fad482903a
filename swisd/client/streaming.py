"""One session as pieces of text: what every answer has in common, new or gone on with."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from swisd.client.answers import Answer, Piece, Status, Timings, plan_info
from swisd.client.kept import BrokeOff, how_to_go_on
from swisd.client.link import SwarmLink
from swisd.core.errors import BadInput, SessionFailed
from swisd.core.history import History
from swisd.core.request import Answered, Ended, Request, Waiting, kept_of
from swisd.core.types import Plan
from swisd.text.stream import IncrementalDecoder
from swisd.text.tokenizer import Tokenizer

Keep = Callable[[Sequence[int]], str]  # writes down the tokens so far; returns the id to go on with


@dataclass(slots=True)
class _Clock:
    """When things happened, in seconds of the event loop's clock; `before` tokens were answered earlier."""

    asked: float
    ids: list[int] = field(default_factory=list)
    before: int = 0
    first: float = 0.0
    last: float = 0.0

    def take(self, ids: tuple[int, ...], now: float) -> None:
        if ids:
            self.first = self.first or now
            self.last = now
            self.ids.extend(ids)

    def timings(self, prompt_tokens: int, ended: Ended) -> Timings:
        fresh, span = len(self.ids) - self.before, self.last - self.first
        rate = (fresh - 1) / span if span > 0 else 0.0
        first = (self.first - self.asked) * 1000.0 if self.first else 0.0
        read = round(ended.prompt_ms, 2)
        return Timings(prompt_tokens, read, round(first, 2), fresh, round(rate, 3), ended.held, ended.guessed)


async def run_session(
    link: SwarmLink,
    tokenizer: Tokenizer,
    request: Request,
    patience: float | None,
    keep: Keep,
    note: Callable[[History | None], None] = lambda held: None,
) -> AsyncGenerator[Status | Piece | Answer, None]:
    """Run a session to its end: pieces as they come, first the text so far, the whole `Answer` last.

    An answer that breaks off after its first token is kept, and the error says how to go on with it. `note`
    is told what the devices may hold of the session when it ends. Raises `SessionFailed`.
    """
    loop = asyncio.get_running_loop()
    decoder = IncrementalDecoder(tokenizer)
    clock = _Clock(loop.time(), list(request.emitted), len(request.emitted))
    text: list[str] = []
    stands_still = False
    if request.emitted:
        text.append("".join(decoder.push(token) for token in request.emitted))
        yield Piece(text[0], request.emitted)
    try:
        async with aclosing(link.run(request, patience)) as effects:
            async for effect in effects:
                match effect:
                    case Waiting():
                        stands_still = True
                        yield Status(effect.text)
                    case Answered():
                        stands_still = False
                        clock.take(effect.out.tokens, loop.time())
                        piece = "".join(decoder.push(token) for token in effect.out.tokens)
                        text.append(piece)
                        yield Piece(piece, effect.out.tokens)
                    case Ended():
                        stands_still = False
                        note(kept_of(request, effect, clock.ids))
                        plan = _plan_of(effect, clock.ids, keep)
                        if effect.finish == "cancelled" and clock.ids:  # by the swarm, while nobody listened
                            yield Status(f"{effect.error}; {how_to_go_on(keep(clock.ids))}", "warning")
                        rest = decoder.flush()
                        if rest:
                            text.append(rest)
                            yield Piece(rest, ())
                        timings = clock.timings(len(request.prompt), effect)
                        info = plan_info(plan, link.names)
                        yield Answer("".join(text), tuple(clock.ids), effect.finish, timings, info)
    except (asyncio.CancelledError, GeneratorExit):
        if stands_still and clock.ids:  # whoever waited for the swarm to come back gave up
            link.tell(how_to_go_on(keep(clock.ids)))
        raise


def _plan_of(ended: Ended, ids: Sequence[int], keep: Keep) -> Plan:
    """The plan of a session that ended well. Raises `SessionFailed` with what went wrong."""
    if ended.finish != "error" and ended.plan is not None:
        return ended.plan
    reason = ended.error or "the session ended without a word"
    if not ids:
        raise SessionFailed(reason)
    try:
        session = keep(ids)
    except BadInput as trouble:
        raise SessionFailed(f"{reason}; the answer so far could not be kept: {trouble}") from None
    raise BrokeOff(reason, session)
