"""The Python way in: `swisd.Client(home=...)`. The commands and the examples use nothing else."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from swisd.client.answers import Answer, Evaluation, Piece, PlanInfo, ShardInfo, Status, Timings
from swisd.client.asking import Options
from swisd.core.errors import SwisdError
from swisd.core.messages import Digest
from swisd.core.types import Plan
from swisd.node.home import Home
from swisd.node.settings import Settings, load_settings

__all__ = [
    "Answer",
    "AsyncClient",
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

T = TypeVar("T")
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
        from swisd.client.asking import stream
        from swisd.client.reach import reach

        async with reach(self._home, self._settings, self._tell, alone=alone) as link:
            async for item in stream(link, prompt, options or Options(), self._settings.answer):
                yield item

    async def ask(self, prompt: str, options: Options | None = None, *, alone: bool = True) -> Answer:
        """The whole answer."""
        answer: Answer | None = None
        async for item in self.stream(prompt, options, alone=alone):
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
        async with self._watching() as link:
            return link.digest, link.plan

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[Any]:
        from swisd.client.reach import reach

        async with reach(self._home, self._settings, self._tell, alone=False) as link:
            await link.settled()
            yield link


class Client:
    """`AsyncClient` for programs without an event loop: the same calls, blocking."""

    def __init__(
        self, home: str | Path | None = None, *, settings: Settings | None = None, tell: Tell = _silent
    ) -> None:
        self._async = AsyncClient(home, settings=settings, tell=tell)

    def ask(self, prompt: str, options: Options | None = None, *, alone: bool = True) -> Answer:
        """The whole answer."""
        return asyncio.run(self._async.ask(prompt, options, alone=alone))

    def stream(
        self, prompt: str, options: Options | None = None, *, alone: bool = True
    ) -> Generator[Status | Piece | Answer, None, None]:
        """Pieces of the answer as they come; the last item is the whole `Answer`. Closing it cancels."""
        with _LoopThread() as loop:
            items = self._async.stream(prompt, options, alone=alone)
            try:
                while True:
                    try:
                        yield loop.wait(anext(items))
                    except StopAsyncIteration:
                        return
            finally:
                loop.wait(items.aclose())

    def evaluate(
        self, text: str, *, model_id: str = "", top: int = 20, patience: float = 60.0, alone: bool = True
    ) -> Evaluation:
        """Perplexity of a text, with the `top` best next tokens at each position."""
        return asyncio.run(
            self._async.evaluate(text, model_id=model_id, top=top, patience=patience, alone=alone)
        )

    def status(self) -> tuple[Digest, Plan | None]:
        """The swarm's digest and its plan, if it has made one. Raises `NoSwarm` if none is running."""
        return asyncio.run(self._async.status())


class _LoopThread:
    """An event loop in a thread, for a blocking iterator over an asynchronous one."""

    def __enter__(self) -> "_LoopThread":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="swisd client", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10.0)
        self._loop.close()

    def wait(self, work: Coroutine[Any, Any, T] | Any) -> T:
        async def run() -> T:
            made: T = await work
            return made

        future: Future[T] = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
