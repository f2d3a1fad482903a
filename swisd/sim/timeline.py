"""Virtual time: what is to happen, in order, and one seeded generator for all that is random."""

import heapq
import random
from collections.abc import Callable

from swisd.core.effects import SetTimer
from swisd.core.events import Timer


class Timeline:
    """Runs actions at their time. `check` is called after each of them."""

    def __init__(self, seed: int, jitter: float) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.check: Callable[[], None] | None = None
        self._jitter = jitter
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self._next()
        self.now = end

    def run_until(self, condition: Callable[[], bool], within: float) -> bool:
        """Let time pass until the condition holds, at most `within` seconds."""
        end = self.now + within
        while not condition():
            if not self._queue or self._queue[0][0] > end:
                self.now = end
                return condition()
            self._next()
        return True

    def _next(self) -> None:
        self.now, _, action = heapq.heappop(self._queue)
        action()
        if self.check is not None:
            self.check()

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + delay, self._order, action))

    def _delay(self, base: float) -> float:
        return base * (1.0 + self._jitter * self.random.random())

    def _set_timer(self, timers: dict[str, int], effect: SetTimer, feed: Callable[[Timer], None]) -> None:
        self._order += 1
        token = self._order
        timers[effect.name] = token

        def fire() -> None:
            if timers.get(effect.name) == token:
                del timers[effect.name]
                feed(Timer(effect.name))

        self._later(max(0.0, effect.at - self.now), fire)
