"""One question under way: the asker's machine, with a clock, a timer and the bus."""

import asyncio

from swisd.core.asker import Asker
from swisd.core.effects import CancelTimer, Publish, SetTimer
from swisd.core.events import Timer
from swisd.core.request import Answered, AskerEffect, Ended, Listen, Waiting
from swisd.node.courier import Courier
from swisd.wire.topics import Kind


class Session:
    """The hands of one asker. What it says comes on `said`, in order; `Ended` is the last."""

    def __init__(self, asker: Asker, courier: Courier) -> None:
        self.said: asyncio.Queue[Answered | Waiting | Ended] = asyncio.Queue()
        self._asker, self._courier = asker, courier
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._listening: set[str] = set()

    def feed(self, event: object) -> None:
        """Tell the asker of an event and do what it says."""
        for effect in self._asker.handle(event, self._loop.time()):
            self._do(effect)

    def close(self) -> None:
        """Stop listening and waiting."""
        self._stop_timer()
        for session in self._listening:
            self._courier.unsubscribe(Kind.OUT, session)
        self._listening.clear()

    def _do(self, effect: AskerEffect) -> None:
        match effect:
            case Publish():
                self._courier.publish(effect.message, effect.to)
            case Listen():
                self._listening.add(effect.session)
                self._courier.subscribe(Kind.OUT, effect.session)
            case SetTimer():
                self._stop_timer()
                self._timer = self._loop.call_at(effect.at, self.feed, Timer(effect.name))
            case CancelTimer():
                self._stop_timer()
            case Answered() | Waiting() | Ended():
                self.said.put_nowait(effect)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
