"""An event loop in a thread of its own, for blocking code that reads an asynchronous iterator."""

import asyncio
import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
END_S = 15.0  # for work that was interrupted, and for the loop, to end


class LoopThread:
    """Use with `with`; on leaving, whatever still runs in the loop is cancelled and has ended."""

    def __enter__(self) -> "LoopThread":
        begun: Future[asyncio.AbstractEventLoop] = Future()
        self._leave = asyncio.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._stay(begun),), name="swisd client", daemon=True
        )
        self._thread.start()
        self._loop = begun.result(END_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join(END_S)

    def wait(self, work: Awaitable[T]) -> T:
        """Its result. If the waiting is interrupted, the work is cancelled and ends before this raises."""
        done: Future[T] = Future()
        tasks: list[asyncio.Task[None]] = []

        async def run() -> None:
            try:
                done.set_result(await work)
            except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
                done.set_exception(error)

        def cancel() -> None:
            tasks[0].cancel()

        self._loop.call_soon_threadsafe(lambda: tasks.append(self._loop.create_task(run())))
        try:
            return done.result()
        except KeyboardInterrupt:
            self._loop.call_soon_threadsafe(cancel)
            with suppress(Exception, asyncio.CancelledError):
                done.result(END_S)
            raise

    async def _stay(self, begun: "Future[asyncio.AbstractEventLoop]") -> None:
        begun.set_result(asyncio.get_running_loop())
        await self._leave.wait()
