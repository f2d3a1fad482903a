"""Going on with an answer that broke off: the same tokens as if nothing had happened."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from swisd.client.answers import Answer, Piece, PlanInfo, Status, Timings, plan_info
from swisd.client.kept import KeptSession, forget, keep, now_ms
from swisd.client.link import SwarmLink
from swisd.client.streaming import run_session
from swisd.core.errors import SessionFailed
from swisd.core.request import Request
from swisd.text.stream import IncrementalDecoder
from swisd.text.tokenizer import Tokenizer


async def resume(
    link: SwarmLink, kept: KeptSession, patience: float | None
) -> AsyncGenerator[Status | Piece | Answer, None]:
    """The text so far as the first piece, then what is missing. What was kept goes once the answer is whole.

    Raises `SessionFailed` if the swarm runs another model, or if the answer breaks off again.
    """
    sha, manifest, tokenizer = await link.model(patience)
    if sha != kept.model:
        same = manifest.model_id == kept.model_id
        advice = (
            "the file that it was imported from has changed since"
            if same
            else f"start the swarm's host with `swisd up --model {kept.model_id}`"
        )
        raise SessionFailed(
            f"the swarm runs {manifest.model_id} ({sha[:8]}), this answer was begun with {kept.model_id} "
            f"({kept.model[:8]}): {advice}"
        )
    if len(kept.emitted) >= kept.max_tokens:  # only the word that it is over was missing
        for part in _whole(link, kept, tokenizer):
            yield part
        forget(link.home, kept.session)
        return
    request = Request(
        session=secrets.token_hex(8),  # devices may still remember the other one
        asker=link.ident,
        prompt=kept.prompt,
        max_tokens=kept.max_tokens,
        sampling=kept.sampling,
        seed=kept.seed,
        stop_ids=kept.stop_ids,
        model_id=kept.model_id,
        emitted=kept.emitted,
    )

    def write(ids: Sequence[int]) -> str:
        keep(link.home, replace(kept, emitted=tuple(ids), at=now_ms()))
        return kept.session

    async with aclosing(run_session(link, tokenizer, request, patience, write)) as items:
        async for item in items:
            if isinstance(item, Answer) and item.finish_reason in ("stop", "length"):
                forget(link.home, kept.session)
            yield item


def _whole(link: SwarmLink, kept: KeptSession, tokenizer: Tokenizer) -> tuple[Piece, Answer]:
    decoder = IncrementalDecoder(tokenizer)
    text = "".join(decoder.push(token) for token in kept.emitted) + decoder.flush()
    plan = plan_info(link.plan, link.names) if link.plan is not None else PlanInfo(0, kept.model_id, ())
    timings = Timings(len(kept.prompt), 0.0, 0.0, 0, 0.0)
    return Piece(text, kept.emitted), Answer(text, kept.emitted, "length", timings, plan)
