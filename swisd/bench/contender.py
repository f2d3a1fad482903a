"""Whoever is asked in the rounds: a swarm over a link that stays open, or llama.cpp in this process."""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Protocol

from swisd.bench.figures import Stream
from swisd.bench.llama import LlamaCpp
from swisd.bench.report import Kind, Way, shape_of, way_of
from swisd.client.link import SwarmLink
from swisd.core import deadlines
from swisd.core.errors import NoSwarm, SessionFailed
from swisd.core.request import Answered, Ended, Request
from swisd.core.types import SamplingParams

PLAN_S = 180.0
PATIENCE_S = 60.0
ANSWER_S = 600.0
FRESH_DIGESTS = 4  # with that many more, every device has told its last steps
FRESH_S = 8.0

Prompt = Sequence[int]


class Contender(Protocol):
    """`context`: tokens that all questions together may hold; `most`: how many may be asked at once."""

    name: str
    kind: Kind
    lane: str
    context: int
    most: int

    async def ask(self, prompts: Sequence[Prompt], tokens: int) -> list[Stream]:
        """Ask at once; every answer has exactly so many greedy tokens. Raises `SessionFailed`."""
        ...

    async def way(self, prompt: Prompt, tokens: int) -> Way | None:
        """Where one token's time goes, as its devices tell it."""
        ...

    def shape(self) -> str:
        """What its plan is like, in a few words."""
        ...

    def epoch(self) -> int:
        """The plan's number: another one means that figures before and after it are of two plans."""
        ...


class SwarmSide:
    """A swarm, or one device alone, behind a link. Call `ready` before anything else."""

    most = 1 << 20

    def __init__(self, link: SwarmLink, name: str, kind: Kind, lane: str) -> None:
        self.name, self.kind, self.lane = name, kind, lane
        self.context = 0
        self._link = link

    async def ready(self) -> None:
        """Wait for a plan in force. Raises `NoSwarm` if none comes, soon where only a person can help."""
        until = asyncio.get_running_loop().time() + PLAN_S
        while True:
            try:
                self.context = await self._link.context(deadlines.NO_FIT)
                return
            except NoSwarm:
                plan = self._link.plan
                if (plan is not None and plan.problem) or asyncio.get_running_loop().time() >= until:
                    raise

    async def ask(self, prompts: Sequence[Prompt], tokens: int) -> list[Stream]:
        tasks = [asyncio.create_task(_answer(self._link, prompt, tokens)) for prompt in prompts]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def way(self, prompt: Prompt, tokens: int) -> Way | None:
        """Asks on until the host has told of steps with one question, so none with several are among them."""
        loop = asyncio.get_running_loop()
        until, seen = loop.time() + FRESH_S, self._link.digest
        first = seen.seq if seen is not None else 0
        while True:
            await self.ask([prompt], tokens)
            digest, plan = self._link.digest, self._link.plan
            if digest is not None and plan is not None and digest.seq >= first + FRESH_DIGESTS:
                found = way_of(plan, digest)
                if found is not None:
                    return found
            if loop.time() >= until:
                return None

    def shape(self) -> str:
        return shape_of(self._link.plan) if self._link.plan is not None else ""

    def epoch(self) -> int:
        return self._link.plan.epoch if self._link.plan is not None else 0


async def _answer(link: SwarmLink, prompt: Prompt, tokens: int) -> Stream:
    loop = asyncio.get_running_loop()
    request = Request(
        secrets.token_hex(8), link.ident, tuple(prompt), tokens, SamplingParams(), seed=0, stop_ids=()
    )
    began, times = loop.time(), list[float]()
    try:
        async with asyncio.timeout(ANSWER_S), aclosing(link.run(request, PATIENCE_S)) as effects:
            async for effect in effects:
                if isinstance(effect, Answered):
                    times.extend([loop.time()] * len(effect.out.tokens))
                elif isinstance(effect, Ended):
                    return _stream(effect, len(prompt), began, times)
    except TimeoutError:
        raise SessionFailed(
            f"an answer took longer than {ANSWER_S:.0f} s: try --quick, or see `swisd plan`"
        ) from None
    raise SessionFailed("an answer ended without a word: see `swisd status`")


def _stream(ended: Ended, prompt_tokens: int, began: float, times: list[float]) -> Stream:
    if ended.finish == "error" or not times:
        raise SessionFailed(ended.error or "a question was answered without a token: see `swisd status`")
    gaps = tuple((after - before) * 1000.0 for before, after in pairwise(times))
    first = (times[0] - began) * 1000.0
    return Stream(prompt_tokens, ended.prompt_ms, first, gaps, len(times), began, times[-1])


class LlamaSide:
    """llama.cpp, one question at a time; it tells no times of single tokens."""

    name: str = "llama.cpp"
    kind: Kind = "llama.cpp"
    lane: str = ""
    most: int = 1

    def __init__(self, llama: LlamaCpp, threads: int) -> None:
        self.context = llama.context
        self._llama, self._threads = llama, threads

    async def ask(self, prompts: Sequence[Prompt], tokens: int) -> list[Stream]:
        return [await asyncio.to_thread(self._llama.answer, prompt, tokens) for prompt in prompts]

    async def way(self, prompt: Prompt, tokens: int) -> Way | None:
        return None

    def shape(self) -> str:
        return f"{self._threads} threads" if self._threads > 1 else "1 thread"

    def epoch(self) -> int:
        return 0
