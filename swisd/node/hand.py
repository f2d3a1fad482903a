"""A thread that does one job after the other.

Jobs are handed over by a queue that is all C, and nobody waits for a result: a pool of the standard library
makes a future, a work item and three locks for each job, which every hop of every token would pay.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue

Job = Callable[[], None]


class Hand:
    """Does jobs in their order, in a thread that begins with the first; a job that raises ends it."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._name = name
        self._begun = False
        self._ending = threading.Lock()

    def submit(self, job: Job) -> None:
        """Have a job done after those before; after `end` it is dropped. Any thread may call this."""
        if not self._begun:
            with self._ending:
                if not self._begun:
                    self._begun = True
                    threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._jobs.put(job)

    def end(self) -> None:
        """No job after those that wait. Whoever wants to know when makes the last one tell."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # or what it holds would stay until the next one comes
