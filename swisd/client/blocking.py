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
        tasks: list[asyncio.Task[T]] = []

        async def run() -> T:
            return await work

        def begin() -> None:
            tasks.append(self._loop.create_task(run()))
            tasks[0].add_done_callback(lambda task: _pass_on(task, done))

        def cancel() -> None:
            if tasks:
                tasks[0].cancel()
            else:
                done.cancel()  # interrupted before it could begin

        try:
            self._loop.call_soon_threadsafe(begin)
            return done.result()
        except KeyboardInterrupt:
            self._loop.call_soon_threadsafe(cancel)
            with suppress(Exception, asyncio.CancelledError):
                done.result(END_S)
            raise

    async def _stay(self, begun: "Future[asyncio.AbstractEventLoop]") -> None:
        begun.set_result(asyncio.get_running_loop())
        await self._leave.wait()


def _pass_on(task: asyncio.Task[T], done: Future[T]) -> None:
    if task.cancelled():
        done.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())
