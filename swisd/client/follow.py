"""The hands of an asker's search for the bus: it moves the bus client where the host may be now."""

import asyncio
from collections.abc import Sequence

from swisd.bus.mqtt import MqttBus
from swisd.core import deadlines
from swisd.core.effects import Knock, MoveBus, SetTimer
from swisd.core.events import PortClosed, Started, Timer
from swisd.core.search import BusSearch
from swisd.net.knock import loops, port_closed, telling

MAX_ADDRESSES = 3


class Follower:
    """Follows the host of a swarm with one bus client. `known`: where hosts were before."""

    def __init__(self, bus: MqttBus, known: Sequence[tuple[str, int]]) -> None:
        self._bus, self._search = bus, BusSearch(tuple(known))
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._knocks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self) -> None:
        """Begin; the bus connects meanwhile."""
        self.feed(Started())

    def feed(self, event: object) -> None:
        """An event of the bus: its state, or a message."""
        if self._closed:
            return
        for effect in self._search.handle(event, self._loop.time()):
            match effect:
                case SetTimer():
                    if handle := self._timers.pop(effect.name, None):
                        handle.cancel()
                    self._timers[effect.name] = self._loop.call_at(effect.at, self.feed, Timer(effect.name))
                case MoveBus():
                    first, *others = effect.addresses[:MAX_ADDRESSES]
                    each = deadlines.DIAL / (1 + len(others))
                    self._bus.set_endpoint(*first, others=others, timeout=each)
                case Knock():
                    task = asyncio.create_task(self._knock(effect))
                    self._knocks.add(task)
                    task.add_done_callback(self._knocks.discard)

    def close(self) -> None:
        """Stop following."""
        self._closed = True
        for handle in self._timers.values():
            handle.cancel()
        for task in self._knocks:
            task.cancel()

    async def _knock(self, effect: Knock) -> None:
        near = loops(self._bus.where[0])
        if await port_closed(telling(effect.addresses, near=near)):
            self.feed(PortClosed(effect.device))
