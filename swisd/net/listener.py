"""One TCP port for all purposes: only connections that prove the swarm key reach a handler."""

import asyncio
import errno
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from swisd.core.checked import Malformed
from swisd.core.errors import BadInput
from swisd.net.secure import STREAM_LIMIT, SaidNothing, admit, hang_up
from swisd.wire.handshake import Hello, Purpose, Refused

log = logging.getLogger(__name__)

Handler = Callable[[Hello, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

BAD_MAGIC, WRONG_KEY, TIMEOUT, CLOSED_EARLY = "bad magic", "wrong key", "timeout", "closed early"
TOO_MANY, NO_HANDLER = "too many pending", "no handler"


class Listener:
    """Accepts connections, checks their proof, and gives each to the handler of its purpose.

    A connection that has not proved the key gets no byte and a deadline, and there are at most `max_pending`
    of them: one more, and the oldest is cut. An honest peer proves its key within a round trip, so under a
    flood of strangers the oldest is a stranger.

    The connection is closed when its handler returns. `refused` counts the strangers by reason; one that goes
    away without a word only wanted to know whether this device runs (net/knock.py).
    """

    def __init__(
        self, key: bytes, handlers: Mapping[Purpose, Handler], *, max_pending: int, proof_timeout: float
    ) -> None:
        self.refused: Counter[str] = Counter()
        self.host, self.port = "", 0
        self._key = key
        self._handlers = dict(handlers)
        self._max_pending = max_pending
        self._proof_timeout = proof_timeout
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._pending: dict[asyncio.Task[None], None] = {}  # a dict keeps the order of arrival

    @classmethod
    async def start(
        cls,
        host: str,
        port: int,
        key: bytes,
        handlers: Mapping[Purpose, Handler],
        *,
        max_pending: int = 64,
        proof_timeout: float = 5.0,
    ) -> Self:
        """Listen on `host` (an address of this device, `0.0.0.0` for all) and `port` (0: any free one, see
        `.port`). Strangers have `proof_timeout` seconds. Raises `BadInput` where it cannot listen.
        """
        self = cls(key, handlers, max_pending=max_pending, proof_timeout=proof_timeout)
        try:
            self._server = await asyncio.start_server(self._accepted, host, port, limit=STREAM_LIMIT)
        except OSError as error:
            raise BadInput(_why_not(host, port, error)) from None
        self.host, self.port = self._server.sockets[0].getsockname()[:2]
        return self

    def set_handler(self, purpose: Purpose, handler: Handler | None) -> None:
        """Serve one more purpose from now on, or (None) stop taking new connections for it."""
        if handler is None:
            self._handlers.pop(purpose, None)
        else:
            self._handlers[purpose] = handler

    @property
    def connections(self) -> int:
        """Connections that are open now, proved or not."""
        return len(self._tasks)

    async def close(self, *, timeout: float = 2.0) -> None:
        """Stop listening, cancel the handlers and close their connections; what still lives after `timeout`
        seconds is cut and logged."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                log.warning("a connection handler did not end within %g s: %s", timeout, task.get_name())
                self._tasks[task].transport.abort()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._pending) >= self._max_pending:
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            self.refused[TOO_MANY] += 1
            oldest.cancel()
        peer = writer.get_extra_info("peername") or ("?", 0)
        task = asyncio.create_task(self._serve(reader, writer), name=f"connection from {peer[0]}:{peer[1]}")
        self._tasks[task] = writer
        self._pending[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._pending.pop(task, None)
        # A task cancelled before it first ran has not closed its connection.
        self._tasks.pop(task).transport.abort()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: handler failed", task.get_name(), exc_info=error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            greeting = await self._prove(reader, writer)
            if greeting is None:
                return
            handler = self._handlers.get(greeting.purpose)
            if handler is None:
                self.refused[NO_HANDLER] += 1
                return
            try:
                await handler(greeting, reader, writer)
            except (ConnectionError, TimeoutError, asyncio.IncompleteReadError) as error:
                log.debug("%s connection of %s ended: %s", greeting.purpose.name, greeting.device, error)
        finally:
            await hang_up(writer)

    async def _prove(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Hello | None:
        """The proved hello, or None for a stranger, which is counted."""
        try:
            greeting = await admit(reader, writer, self._key, timeout=self._proof_timeout)
        except Malformed:
            reason = BAD_MAGIC
        except Refused:
            reason = WRONG_KEY
        except TimeoutError:
            reason = TIMEOUT
        except SaidNothing:
            writer.transport.abort()
            return None
        except (OSError, asyncio.IncompleteReadError):
            reason = CLOSED_EARLY
        else:
            self._pending.pop(_current_task(), None)
            return greeting
        self.refused[reason] += 1
        writer.transport.abort()
        return None


def _current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # only ever called in a task
    return task


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is in use on this device (by another swisd?): "
            "stop it, or choose another port with --port or the setting `port`"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges: choose one above 1023 with --port or the setting `port`"
    return f"cannot listen on {host} port {port}: {error.strerror or error}"
