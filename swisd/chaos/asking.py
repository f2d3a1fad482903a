"""A question to the swarm from a home that runs no device, with the time at which each token came."""

import asyncio
import time
from contextlib import aclosing
from pathlib import Path

from swisd.chaos.report import StreamResult
from swisd.chaos.streams import first_difference, longest_pause, median_time
from swisd.client import AsyncClient, Options, Piece
from swisd.core.errors import SwisdError


class Stream:
    """One question under way: `ids` and `times` grow as tokens come, times on the monotonic clock."""

    def __init__(self, home: Path, prompt: str, options: Options) -> None:
        self.ids: list[int] = []
        self.times: list[float] = []
        self.error = ""
        self._client, self._prompt, self._options = AsyncClient(home), prompt, options
        self._news = asyncio.Condition()
        self._ended = False

    async def run(self, within: float) -> None:
        """Read the stream to its end; what goes wrong is kept in `error`. `within`: seconds in all."""
        try:
            async with asyncio.timeout(within):
                items = self._client.stream(self._prompt, self._options, alone=False)
                async with aclosing(items):
                    async for item in items:
                        if isinstance(item, Piece) and item.token_ids:
                            await self._take(item.token_ids)
        except (SwisdError, OSError) as error:
            self.error = str(error) or type(error).__name__
        except TimeoutError:
            self.error = f"the stream did not end within {within:.0f} s"
        finally:
            async with self._news:
                self._ended = True
                self._news.notify_all()

    async def reached(self, count: int) -> bool:
        """Wait until `count` tokens have come; False if the stream ends before."""
        async with self._news:
            await self._news.wait_for(lambda: self._ended or len(self.ids) >= count)
            return len(self.ids) >= count

    async def _take(self, ids: tuple[int, ...]) -> None:
        async with self._news:
            self.ids.extend(ids)
            self.times.extend([time.monotonic()] * len(ids))
            self._news.notify_all()


def judge(stream: Stream, expected: tuple[int, ...], struck_at: float) -> StreamResult:
    """A stream that has ended beside the undisturbed answer."""
    difference = first_difference(expected, stream.ids)
    problem = "; ".join(filter(None, (str(difference) if difference else "", stream.error)))
    pause, _ = longest_pause(stream.times, struck_at)
    return StreamResult(
        identical=not problem,
        tokens=len(stream.ids),
        expected=len(expected),
        pause_s=round(pause, 3),
        median_ms=round(median_time(stream.times) * 1000, 2),
        problem=problem,
    )
