"""The Python way in: `swisd.Client(home=...)`. The commands and the examples use nothing else."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from swisd.client.answers import Answer, Evaluation, Piece, PlanInfo, ShardInfo, Status, Timings
from swisd.client.asking import Options
from swisd.client.blocking import LoopThread
from swisd.client.kept import BrokeOff, load
from swisd.core.errors import BadInput, SwisdError
from swisd.core.messages import Digest
from swisd.core.types import Plan
from swisd.node.home import Home
from swisd.node.settings import Settings, load_settings

if TYPE_CHECKING:
    from swisd.client.talk import Talk

__all__ = [
    "Answer",
    "AsyncClient",
    "BlockingTalk",
    "BrokeOff",
    "Client",
    "Evaluation",
    "Options",
    "Piece",
    "PlanInfo",
    "ShardInfo",
    "Status",
    "SwisdError",
    "Timings",
]

Tell = Callable[[str], None]


def _silent(text: str) -> None:
    """Nobody listens."""


class AsyncClient:
    """Talks to the swarm of a home folder, or runs the model on this device alone if there is none.

    Every call connects, works and disconnects. `tell` hears, in words, why something takes a while. All calls
    raise `SwisdError` with one clear line.
    """

    def __init__(
        self, home: str | Path | None = None, *, settings: Settings | None = None, tell: Tell = _silent
    ) -> None:
        self._home = Home(Path(home) if home is not None else None)
        self._settings = settings or load_settings(self._home.path)
        self._tell = tell

    async def stream(
        self, prompt: str, options: Options | None = None, *, alone: bool = True
    ) -> AsyncGenerator[Status | Piece | Answer, None]:
        """Pieces of the answer as they come; the last item is the whole `Answer`."""
        from swisd.client.asking import check_prompt, stream
        from swisd.client.reach import reach

        chosen = options or Options()
        check_prompt(prompt, chosen)
        async with (
            reach(self._home, self._settings, self._tell, alone=alone, patience=chosen.patience) as link,
            aclosing(stream(link, prompt, chosen, self._settings.answer)) as items,
        ):
            async for item in items:
                yield item

    @asynccontextmanager
    async def talk(
        self, options: Options | None = None, *, alone: bool = True
    ) -> AsyncGenerator["Talk", None]:
        """A conversation: `async with client.talk() as talk`, then `talk.say(...)` for each turn."""
        from swisd.client.reach import reach
        from swisd.client.talk import Talk

        chosen = options or Options()
        async with reach(
            self._home, self._settings, self._tell, alone=alone, patience=chosen.patience
        ) as link:
            yield Talk(link, chosen, self._settings.answer)

    async def resume(
        self, session: str, *, patience: float | None = None, alone: bool = True
    ) -> AsyncGenerator[Status | Piece | Answer, None]:
        """Go on with an answer that broke off: `BrokeOff.session` names it. `patience` as in `Options`.

        The first piece is the text so far; the tokens are those that an undisturbed run gives.
        """
        from swisd.client.reach import reach
        from swisd.client.resuming import resume

        kept = load(self._home, session)
        async with (
            reach(self._home, self._settings, self._tell, alone=alone, patience=patience) as link,
            aclosing(resume(link, kept, patience)) as items,
        ):
            async for item in items:
                yield item

    async def ask(self, prompt: str, options: Options | None = None, *, alone: bool = True) -> Answer:
        """The whole answer."""
        answer: Answer | None = None
        async with aclosing(self.stream(prompt, options, alone=alone)) as items:
            async for item in items:
                if isinstance(item, Status):
                    self._tell(item.text)
                elif isinstance(item, Answer):
                    answer = item
        assert answer is not None  # the stream ends with an answer or raises
        return answer

    async def evaluate(
        self, text: str, *, model_id: str = "", top: int = 20, patience: float = 60.0, alone: bool = True
    ) -> Evaluation:
        """Perplexity of a text, with the `top` best next tokens at each position."""
        from swisd.client.asking import evaluate
        from swisd.client.reach import reach

        async with reach(self._home, self._settings, self._tell, alone=alone) as link:
            return await evaluate(link, text, model_id=model_id, top=top, patience=patience)

    async def status(self) -> tuple[Digest, Plan | None]:
        """The swarm's digest and its plan, if it has made one. Raises `NoSwarm` if none is running."""
        from swisd.client.reach import reach

        async with reach(self._home, self._settings, self._tell, alone=False) as link:
            await link.settled()
            assert link.digest is not None  # `reach` heard it
            return link.digest, link.plan


class Client:
    """`AsyncClient` for programs without an event loop: the same calls, blocking.

    Inside a running event loop they raise `BadInput`.
    """

    def __init__(
        self, home: str | Path | None = None, *, settings: Settings | None = None, tell: Tell = _silent
    ) -> None:
        self._async = AsyncClient(home, settings=settings, tell=tell)

    def ask(self, prompt: str, options: Options | None = None, *, alone: bool = True) -> Answer:
        """The whole answer."""
        _must_block()
        return asyncio.run(self._async.ask(prompt, options, alone=alone))

    def stream(
        self, prompt: str, options: Options | None = None, *, alone: bool = True
    ) -> Generator[Status | Piece | Answer, None, None]:
        """Pieces of the answer as they come; the last item is the whole `Answer`. Closing it cancels."""
        _must_block()
        yield from _blocking(lambda: self._async.stream(prompt, options, alone=alone))

    @contextmanager
    def talk(
        self, options: Options | None = None, *, alone: bool = True
    ) -> Generator["BlockingTalk", None, None]:
        """A conversation: `with client.talk() as talk`, then `talk.say(...)` for each turn."""
        _must_block()
        with LoopThread() as loop:
            opened = self._async.talk(options, alone=alone)
            talk = loop.wait(opened.__aenter__())
            try:
                yield BlockingTalk(talk, loop)
            finally:
                loop.wait(opened.__aexit__(None, None, None))

    def resume(
        self, session: str, *, patience: float | None = None, alone: bool = True
    ) -> Generator[Status | Piece | Answer, None, None]:
        """Go on with an answer that broke off: the text so far, then what is missing."""
        _must_block()
        yield from _blocking(lambda: self._async.resume(session, patience=patience, alone=alone))

    def evaluate(
        self, text: str, *, model_id: str = "", top: int = 20, patience: float = 60.0, alone: bool = True
    ) -> Evaluation:
        """Perplexity of a text, with the `top` best next tokens at each position."""
        _must_block()
        return asyncio.run(
            self._async.evaluate(text, model_id=model_id, top=top, patience=patience, alone=alone)
        )

    def status(self) -> tuple[Digest, Plan | None]:
        """The swarm's digest and its plan, if it has made one. Raises `NoSwarm` if none is running."""
        _must_block()
        return asyncio.run(self._async.status())


class BlockingTalk:
    """A `Talk` for programs without an event loop."""

    def __init__(self, talk: "Talk", loop: LoopThread) -> None:
        self._talk, self._loop = talk, loop

    @property
    def messages(self) -> list[dict[str, str]]:
        """All turns so far, as `role` and `content`."""
        return self._talk.messages

    def say(self, text: str) -> Generator[Status | Piece | Answer, None, None]:
        """The answer to the next message, as `Client.stream` gives it. Closing it cancels this turn alone."""
        yield from _in_turn(self._loop, self._talk.say(text))


def _blocking(
    make: Callable[[], AsyncGenerator[Status | Piece | Answer, None]],
) -> Generator[Status | Piece | Answer, None, None]:
    with LoopThread() as loop:
        yield from _in_turn(loop, make())


def _in_turn(
    loop: LoopThread, items: AsyncGenerator[Status | Piece | Answer, None]
) -> Generator[Status | Piece | Answer, None, None]:
    try:
        while True:
            try:
                yield loop.wait(anext(items))
            except StopAsyncIteration:
                return
    finally:
        loop.wait(items.aclose())


def _must_block() -> None:
    """Raises `BadInput` where blocking would stop an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise BadInput("swisd.Client would block this event loop: use swisd.client.AsyncClient here")
