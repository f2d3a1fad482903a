"""From a prompt to an answer: chat template, token ids, sampling defaults, text that comes piece by piece."""

import asyncio
import datetime
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from swisd.client.answers import Answer, Evaluation, Piece, Status, plan_info
from swisd.client.kept import MAX_TEXT, KeptSession, keep, now_ms
from swisd.client.link import SwarmLink
from swisd.client.streaming import run_session
from swisd.core.checked import Malformed, from_plain, plain
from swisd.core.errors import BadInput, SessionFailed
from swisd.core.history import History
from swisd.core.messages import Ask
from swisd.core.model import Manifest
from swisd.core.request import Answered, Ended, Request
from swisd.core.types import Plan, SamplingParams, Units
from swisd.node.settings import AnswerSettings
from swisd.text.chat import encode_chat
from swisd.text.tokenizer import Tokenizer

MAX_PROMPT_CHARS = 4 << 20
MAX_WINDOW = 1 << 16  # tokens scored in one session


@dataclass(frozen=True, slots=True)
class Options:
    """How to answer; None means: as the settings and then the model card say.

    `patience`: how many seconds to wait while nothing moves, also for a swarm that is away or has too little
    memory (`math.inf`: for ever). None: as is usual, and an error at once where only a person can help.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    system: str | None = None
    raw: bool = False
    patience: float | None = None


async def stream(
    link: SwarmLink, prompt: str, options: Options, settings: AnswerSettings
) -> AsyncGenerator[Status | Piece | Answer, None]:
    """Answer a prompt: pieces as they come, the whole `Answer` last. Raises `SwisdError`."""
    model = await link.model(options.patience)
    ids = encode_prompt(model[2], prompt, options, settings)
    async with aclosing(answer_ids(link, model, ids, prompt, options, settings)) as items:
        async for item in items:
            yield item


async def answer_ids(
    link: SwarmLink,
    model: tuple[str, Manifest, Tokenizer],
    ids: Sequence[int],
    text: str,
    options: Options,
    settings: AnswerSettings,
    *,
    alone: tuple[Units, ...] = (),
    note: Callable[[History | None], None] = lambda held: None,
) -> AsyncGenerator[Status | Piece | Answer, None]:
    """Answer token ids, the last of which come from `text`. `alone`: spans that were answers once.

    `model` is what `link.model` gave. `note` is told what the devices may hold of it in the end. Raises
    `SwisdError`.
    """
    sha, manifest, tokenizer = model
    if not ids:
        raise BadInput("the prompt is empty: say something")
    request = Request(
        session=secrets.token_hex(8),
        asker=link.ident,
        prompt=tuple(ids),
        max_tokens=options.max_tokens if options.max_tokens is not None else settings.max_tokens,
        sampling=sampling_for(manifest, options, settings),
        seed=options.seed if options.seed is not None else secrets.randbelow(1 << 62),
        stop_ids=tuple(sorted(tokenizer.eos_ids)),
        alone=alone,
    )
    _check_request(request)

    def write(emitted: Sequence[int]) -> str:
        kept = KeptSession(
            request.session, sha, manifest.model_id, request.prompt, tuple(emitted), request.stop_ids,
            request.max_tokens, request.seed, request.sampling, text[:MAX_TEXT], now_ms(),
        )  # fmt: skip
        keep(link.home, kept)
        return kept.session

    async with aclosing(run_session(link, tokenizer, request, options.patience, write, note)) as items:
        async for item in items:
            yield item


def check_prompt(prompt: str, options: Options) -> None:
    """Refuse what no swarm has to be reached for. Raises `BadInput`."""
    if not prompt.strip() and not options.raw:
        raise BadInput("the prompt is empty: say something")
    if len(prompt) > MAX_PROMPT_CHARS:
        raise BadInput(f"the prompt has {len(prompt)} characters; at most {MAX_PROMPT_CHARS} are taken")
    _check_text("the prompt", prompt)
    _check_text("the system message", options.system or "")


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # as the command line gives bytes that are not UTF-8
        raise BadInput(f"{what} is not UTF-8 text (character {error.start})") from None


def _check_request(request: Request) -> None:
    """A driver drops what is out of range without an answer, so it must not be sent. Raises `BadInput`."""
    if not request.score_top and request.max_tokens < 1:
        raise BadInput(f"max_tokens: {request.max_tokens} is less than 1")
    ask = Ask(
        "start", request.session, request.asker, 0, request.prompt, (), request.stop_ids, request.max_tokens,
        request.seed, request.sampling, request.score_top, alone=request.alone,
    )  # fmt: skip
    try:
        from_plain(Ask, plain(ask))
    except Malformed as error:
        raise BadInput(f"this cannot be asked: {str(error).removeprefix('Ask.')}") from None


def encode_prompt(tokenizer: Tokenizer, prompt: str, options: Options, settings: AnswerSettings) -> list[int]:
    """Token ids of a prompt: through the chat template, or as it is (`raw`).

    A raw text may spell control tokens, as a prompt written by hand does; in a chat they stay plain text.
    """
    if options.raw:
        ids = tokenizer.encode(prompt, special=True)
        return [tokenizer.bos_id, *ids] if tokenizer.add_bos and tokenizer.bos_id is not None else ids
    system = options.system if options.system is not None else settings.system
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    return encode_messages(tokenizer, messages)


def encode_messages(tokenizer: Tokenizer, messages: Sequence[dict[str, str]]) -> list[int]:
    """Token ids of a conversation, up to where the model answers."""
    return encode_chat(tokenizer, messages, today=datetime.date.today().isoformat())


def sampling_for(manifest: Manifest, options: Options, settings: AnswerSettings) -> SamplingParams:
    """What was asked for, else the settings, else the model card, else greedy."""
    from swisd.forge.cards import find_card

    card = find_card(manifest.model_id)
    params = card.sampling if card is not None else SamplingParams()
    for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty"):
        asked, setting = getattr(options, name), getattr(settings, name)
        if asked is not None:
            params = replace(params, **{name: asked})
        elif setting >= 0:
            params = replace(params, **{name: setting})
    if options.temperature == 0 and options.repetition_penalty is None:
        # Greedy on request means the model's own first choice, not the card's idea of good style.
        params = replace(params, repetition_penalty=1.0)
    return params


async def evaluate(link: SwarmLink, text: str, *, model_id: str, top: int, patience: float) -> Evaluation:
    """A teacher-forced pass over a text, in windows of the plan's context. Raises `SwisdError`.

    No template and no tokens are added; control tokens that the text spells count as such.
    """
    from swisd.runtime.scoring import perplexity

    if not 1 <= top <= 100:
        raise BadInput(f"top: {top} is not between 1 and 100")
    _check_text("the text", text)
    loop = asyncio.get_running_loop()
    began = loop.time()
    _, manifest, tokenizer = await link.model(patience)
    if model_id and manifest.model_id != model_id:
        advice = f"start its host with `swisd up --model {model_id}`"
        raise SessionFailed(f"the swarm runs {manifest.model_id}, not {model_id}: {advice}")
    ids = tokenizer.encode(text, special=True)
    if len(ids) < 2:
        raise BadInput("the text is too short to evaluate: it needs two tokens or more")
    tops: list[tuple[int, ...]] = []
    logprobs: list[tuple[float, ...]] = []
    nexts: list[float | None] = []
    plan: Plan | None = None
    while len(tops) < len(ids):
        done = len(tops)
        window = min(await link.context(patience), len(ids) - done, MAX_WINDOW)
        part = tuple(ids[done : done + window])
        session = secrets.token_hex(8)
        request = Request(session, link.ident, part, 0, SamplingParams(), 0, (), score_top=top)
        _check_request(request)
        async with aclosing(link.run(request, patience)) as effects:
            async for effect in effects:
                if isinstance(effect, Answered):
                    tops.extend(effect.out.top_ids)
                    logprobs.extend(effect.out.top_logprobs)
                    nexts.extend(effect.out.next_logprobs)
                elif isinstance(effect, Ended):
                    if effect.finish == "error" or effect.plan is None:
                        raise SessionFailed(effect.error or "the session ended without a word")
                    plan = effect.plan
        if len(tops) != done + window:
            raise SessionFailed(f"{len(tops) - done} of {window} positions were scored")
    assert plan is not None
    return Evaluation(
        perplexity(nexts), len(ids), tuple(ids), tuple(tops), tuple(logprobs), tuple(nexts),
        plan_info(plan, link.names), loop.time() - began,
    )  # fmt: skip
