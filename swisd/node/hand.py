"""A thread that does one job after the other.

Jobs are handed over by a queue that is all C, and nobody waits for a result: a pool of the standard library
makes a future, a work item and three locks for each job, which every hop of every token would pay.
"""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

Job = Callable[[], None]


class Hand:
    """Does jobs in their order, in a thread that begins with the first; a job that raises ends it.

    Those of one that `waits` may wait for a file, too.
    """

    def __init__(self, name: str, *, waits: bool = False) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._name = name
        self._begun = False
        self._ending = threading.Lock()
        self._waits = waits
        self._bell: _Bell | None = None
        self._waiting = False  # at a socket, and for the bell

    def submit(self, job: Job) -> None:
        """Have a job done after those before; after `end` it is dropped. Any thread may call this."""
        if not self._begun:
            with self._ending:
                if not self._begun:
                    self._begun = True
                    threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._put(job)

    def end(self) -> None:
        """No job after those that wait. Whoever wants to know when makes the last one tell."""
        self._put(None)

    def wait(self, file: int, seconds: float) -> bool:
        """Wait until `file` can be read: False if another job comes first, or none of them in time.

        For jobs only. False at once where sockets cannot be polled (Windows), or no more files may be open.
        """
        if self._bell is None:
            return False
        self._waiting = True  # before the look into the queue: who puts a job there looks here afterwards
        try:
            while self._jobs.empty():
                if (ready := self._bell.await_other(file, seconds)) is not None:
                    return ready and self._jobs.empty()
            return False
        finally:
            self._waiting = False

    def _put(self, job: Job | None) -> None:
        self._jobs.put(job)
        if self._waiting and self._bell is not None:
            self._bell.ring()

    def _work(self) -> None:
        if self._waits and hasattr(select, "poll"):
            with suppress(OSError):
                self._bell = _Bell()
        while (job := self._jobs.get()) is not None:
            job()
            del job  # or what it holds would stay until the next one comes
        if self._bell is not None:
            self._bell.close()
            self._bell = None


class _Bell:
    """Wakes a thread that waits for a file."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._here, select.POLLIN)

    def ring(self) -> None:
        with suppress(OSError):  # full: it rings already; closed: the thread is at its end
            self._there.send(b"\0")

    def await_other(self, file: int, seconds: float) -> bool | None:
        """Whether the other file can be read, or is over, before time is up; None if it rings."""
        self._poll.register(file, select.POLLIN)
        try:
            found = self._poll.poll(seconds * 1000.0)
        finally:
            self._poll.unregister(file)
        if all(ready == file for ready, _ in found):
            return bool(found)
        with suppress(BlockingIOError):
            self._here.recv(4096)
        return None

    def close(self) -> None:
        self._here.close()
        self._there.close()
