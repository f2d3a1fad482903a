"""Askers of a simulated swarm: real machines, and what they saw."""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swisd.core.asker import Asker
from swisd.core.effects import CancelTimer, Knock, MoveBus, Publish, SetTimer
from swisd.core.events import BusChanged, Received, Started
from swisd.core.request import Answered, Ended, Listen, Request, Waiting
from swisd.core.search import BusSearch
from swisd.core.types import SamplingParams, Units
from swisd.sim.bus import EXTERNAL, Broker, Client, kept_by
from swisd.wire.topics import Kind, Topic

if TYPE_CHECKING:
    from swisd.sim.world import World


@dataclass(slots=True)
class Stream:
    """What an asker saw."""

    asker: Asker
    search: BusSearch = field(default_factory=BusSearch)
    tokens: list[int] = field(default_factory=list)
    scores: int = 0
    ended: Ended | None = None
    timers: dict[str, int] = field(default_factory=dict)


class Askers:
    """All askers of a world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.streams: dict[str, Stream] = {}
        self.open: dict[str, Stream] = {}  # those that have not ended, oldest first
        self.news = 0  # counts what changed in any stream
        self._listeners: dict[str, list[str]] = {}  # session -> who reads of it; keys sort by age

    def ask(
        self,
        prompt: tuple[int, ...],
        count: int,
        *,
        seed: int = 1,
        score_top: int = 0,
        alone: tuple[Units, ...] = (),
    ) -> str:
        """Submit a session; returns its key in `streams`."""
        world = self._world
        number = len(self.streams) + 1
        key = f"a{number:013x}00"
        request = Request(
            key, f"f{number:015x}", prompt, count, SamplingParams(), seed, (), score_top, alone=alone
        )
        stream = Stream(Asker(request))
        self.streams[key] = self.open[key] = stream
        self.news += 1
        self.feed(key, Started())
        self._search(key, Started())

        def gained(broker: Broker) -> None:
            self.from_bus(key, BusChanged(True))
            for sender, message in kept_by(broker):
                self.from_bus(key, Received(sender, message))

        def lost(why: str) -> None:
            self.from_bus(key, BusChanged(False, why))

        external = any(item.machine.local.config.claims == "when silent" for item in world.devices.values())
        client = Client(EXTERNAL if external else None, lambda: stream.ended is None, gained, lost)
        world.buses.join_now(key, client)
        return key

    def subscribers(self, topic: Topic) -> Iterable[str]:
        """The streams that read a topic, oldest first."""
        if topic.kind in (Kind.PLAN, Kind.SWARM):
            return self.open
        return self._listeners.get(topic.ident, ())

    def from_bus(self, key: str, event: object) -> None:
        """An event of the bus, for the session and for the search after the next host."""
        self.feed(key, event)
        self._search(key, event)

    def feed(self, key: str, event: object) -> None:
        """Hand an event to an asker."""
        world, stream = self._world, self.streams[key]
        for effect in stream.asker.handle(event, world.now):
            match effect:
                case Publish():
                    world._publish(f"f{key[1:]}", effect, client=key)
                case SetTimer():
                    world._set_timer(stream.timers, effect, lambda item: self.feed(key, item))
                case CancelTimer():
                    stream.timers.pop(effect.name, None)
                case Listen():
                    listeners = self._listeners.setdefault(effect.session, [])
                    if key not in listeners:
                        insort(listeners, key)
                case Answered():
                    stream.tokens.extend(effect.out.tokens)
                    stream.scores += len(effect.out.top_ids)
                    self.news += 1
                case Waiting():
                    world._say(f"asker {_short(key)} waits: {effect.text}")
                case Ended():
                    stream.ended = effect
                    self.open.pop(key, None)
                    self.news += 1
                    world._say(f"asker {_short(key)} ended: {effect.finish} {effect.error}".rstrip())

    def _search(self, key: str, event: object) -> None:
        world, stream = self._world, self.streams[key]
        if stream.ended is not None or world.buses.of(key) == EXTERNAL:
            return
        for effect in stream.search.handle(event, world.now):
            match effect:
                case SetTimer():
                    world._set_timer(stream.timers, effect, lambda item: self._search(key, item))
                case MoveBus():
                    world.buses.move(key, effect.device)
                case Knock():
                    world.knock(key, effect, lambda closed: self._search(key, closed))


def _short(key: str) -> str:
    return key[:14].lstrip("a0") or "0"
