"""A campaign: an undisturbed answer, then rounds that strike devices while the same answer is streaming."""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random

from swisd.chaos.asking import Stream, judge
from swisd.chaos.parts import pause_parts
from swisd.chaos.report import Round, Struck
from swisd.chaos.room import LEAST_CONTEXT, Room
from swisd.chaos.standing import Standing, taken_over
from swisd.chaos.streams import longest_pause
from swisd.chaos.swarm import LocalSwarm
from swisd.chaos.victims import Choice, Chooser
from swisd.chaos.watch import SETTLED_S, Watch
from swisd.client import Options
from swisd.core.errors import SessionFailed, SwisdError

PROMPTS = (
    "Tell me a story about a lighthouse.",
    "Explain in detail how rain forms.",
    "Write a long letter to an old friend.",
    "Describe a walk through a large city.",
)
LOOK_S = 2.0  # for the plan of running streams, else that of before counts
STREAM_S = 180.0  # for a whole answer, whatever happens to it
SIGNALS = {"kill": "SIGKILL", "leave": "SIGTERM", "stop": "SIGSTOP"}  # by name: Windows lacks some


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a campaign is to do. `at` of 0: drawn anew each round; an empty `prompt`: prompts of its own."""

    kill: str = "random"
    how: str = "kill"
    rounds: int = 1
    sessions: int = 1
    tokens: int = 200
    at: int = 0
    temperature: float = 0.0
    seed: int = 0
    prompt: str = ""
    freeze_s: float = 10.0


class Campaign:
    """Rounds over one swarm, which is formed anew where it does not come back by itself.

    `tell` hears what goes on meanwhile. `run` raises `SwisdError` only before the first round, or if the
    swarm cannot be formed anew.
    """

    def __init__(self, swarm: LocalSwarm, wishes: Wishes, tell: Callable[[str], None]) -> None:
        self._swarm, self._wishes, self._tell = swarm, wishes, tell
        self._random = Random(wishes.seed)
        self._chooser = Chooser(self._random)
        self._watch = Watch(swarm.asker, swarm.names)
        self._expected: list[tuple[int, ...]] = []

    async def run(self) -> AsyncGenerator[Round, None]:
        """The rounds, each after the swarm is whole again."""
        standing = await self._watch.whole()
        self._tell(f"{standing}")
        for number in range(self._wishes.sessions):
            self._expected.append(await self._undisturbed(number))
        lengths = " + ".join(str(len(answer)) for answer in self._expected)
        self._tell(f"the undisturbed answer: {lengths} tokens")
        for number in range(1, self._wishes.rounds + 1):
            began = time.monotonic()
            self._swarm.forget_lines()
            done, host = await self._round(number, standing)
            try:
                standing, problem = await self._restore(host)
            except SwisdError as error:
                yield replace(done, error=f"the swarm could not be formed anew: {error}")
                raise
            problems = "; ".join(filter(None, (done.error, problem)))
            yield replace(done, error=problems, seconds=round(time.monotonic() - began, 2))

    async def _undisturbed(self, number: int) -> tuple[int, ...]:
        stream = self._stream(number)
        await stream.run(STREAM_S)
        if stream.error:
            raise SessionFailed(f"the undisturbed answer failed: {stream.error}")
        if len(stream.ids) < 2:
            raise SessionFailed("the undisturbed answer has less than two tokens: choose another prompt")
        return tuple(stream.ids)

    def _stream(self, number: int) -> Stream:
        wishes = self._wishes
        prompt = wishes.prompt or PROMPTS[number % len(PROMPTS)]
        options = Options(max_tokens=wishes.tokens, temperature=wishes.temperature, seed=wishes.seed + number)
        return Stream(self._swarm.asker, prompt, options)

    async def _round(self, number: int, before: Standing) -> tuple[Round, str]:
        """The round, and the name of the device that leads after it (empty: unknown)."""
        wishes = self._wishes
        self._swarm.remember((before.host,))
        shortest = min(len(answer) for answer in self._expected)
        at = self._random.randint(max(shortest // 8, 1), max(shortest * 5 // 8, 1))
        at = min(wishes.at or at, shortest - 1)
        streams = [self._stream(session) for session in range(wishes.sessions)]
        running = [asyncio.create_task(stream.run(STREAM_S)) for stream in streams]
        try:
            # The plan does not change for the better under a session: it is still this one at the blow.
            if await streams[0].reached(1):
                with suppress(SwisdError, TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        before = await self._watch.now()
            choice = await self._choose(before)
            names = [part.name for part in choice.victims]
            reached = await streams[0].reached(at)
            struck_at, at = time.monotonic(), len(streams[0].ids) if reached else at
            running.append(self._strike(names if reached else []))
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
        results = tuple(judge(*pair, struck_at) for pair in zip(streams, self._expected, strict=True))
        worst = max((longest_pause(stream.times, struck_at) for stream in streams), default=(0.0, 0.0))
        done = Round(
            number=number, kind=choice.kind, how=wishes.how,
            struck=tuple(Struck(part.name, part.role, part.units, part.warm) for part in choice.victims),
            at_token=at, streams=results, epoch_before=before.plan.epoch, epoch_after=before.plan.epoch,
            parts=pause_parts(self._swarm.lines(struck_at), struck_at, worst[1], before.plan.epoch, names),
            note=choice.note,
            error="" if reached else f"the first stream ended before token {at}: nobody was struck",
        )  # fmt: skip
        return await self._aftermath(done, before, choice)

    async def _choose(self, before: Standing) -> Choice:
        manifest = await asyncio.to_thread(self._swarm.manifest, before.plan.model_id)
        parts = before.parts
        return self._chooser.choose(self._wishes.kill, parts, Room(parts, manifest, LEAST_CONTEXT))

    def _strike(self, names: list[str]) -> asyncio.Task[None]:
        """Strike at once; the task ends when frozen devices run again."""
        for name in names:
            self._swarm.send(name, signal.Signals[SIGNALS[self._wishes.how]])

        async def wake() -> None:
            if self._wishes.how != "stop" or not names:
                return
            try:
                await asyncio.sleep(self._wishes.freeze_s)
            finally:
                for name in names:
                    self._swarm.send(name, signal.SIGCONT)

        return asyncio.create_task(wake())

    async def _aftermath(self, done: Round, before: Standing, choice: Choice) -> tuple[Round, str]:
        """Who took over, from the plan after the streams have ended."""
        gone = [part.name for part in choice.victims] if done.how != "stop" else []
        for name in gone:
            await asyncio.to_thread(self._swarm.wait_end, name)
        if others := [name for name in self._swarm.ended() if name not in gone]:
            done = replace(done, error=f"{' and '.join(others)} ended without being struck")
        try:
            # Where the answer did not go on, its asker has waited long enough for a plan.
            within = SETTLED_S if done.identical else LOOK_S
            after = await self._watch.settled(without=gone, within=within)
        except SwisdError as error:
            return replace(done, error=done.error or str(error)), await self._watch.host()
        taken = taken_over(choice.victims, before, after)
        return replace(done, epoch_after=after.plan.epoch, taken_over=taken), after.host

    async def _restore(self, host: str) -> tuple[Standing, str]:
        """Start what has ended and wait for a whole swarm, or form it anew; the text says what was wrong.

        Raises `SwisdError` if that fails too.
        """
        try:
            ended = self._swarm.ended()
            if ended and not host:
                raise SessionFailed(f"{' and '.join(ended)} ended, and nobody leads")
            for name in ended:
                self._swarm.start_again(name, host)
            return await self._watch.whole(self._swarm.ended), ""
        except SwisdError as error:
            self._tell(f"the swarm is not whole again ({error}); forming it anew")
            await asyncio.to_thread(self._swarm.start_anew)
            return await self._watch.whole(), f"the swarm did not become whole again: {error}"
