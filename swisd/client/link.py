"""An asker's connection to a swarm: follows digest and plan, runs sessions, offers nothing."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Protocol

from swisd.bus.api import Bus
from swisd.client.session import Session
from swisd.core import deadlines
from swisd.core.asker import Asker
from swisd.core.choice import Crowd
from swisd.core.errors import ModelError, NoSwarm, SessionFailed
from swisd.core.events import BusChanged, Received, Started, Stopping
from swisd.core.messages import Digest, Message, Out
from swisd.core.model import Manifest
from swisd.core.request import Answered, Ended, Request, Waiting
from swisd.core.types import Plan
from swisd.node.courier import Courier
from swisd.node.home import Home
from swisd.node.supply import Supply
from swisd.text.tokenizer import Tokenizer, load_tokenizer
from swisd.wire.topics import Kind

MakeBus = Callable[[Courier, str, Callable[[bool, str], None]], Bus]


class Follows(Protocol):
    """Whoever moves the bus when the host is lost; hears what the bus says."""

    def start(self) -> None: ...
    def feed(self, event: object) -> None: ...
    def close(self) -> None: ...


TICK = 0.5
PLAN_S = 3.0  # for a plan that the digest speaks of


class SwarmLink:
    """Open with `async with`. `tell(text)` hears why something takes a while."""

    def __init__(
        self,
        home: Home,
        key: bytes,
        make_bus: MakeBus,
        tell: Callable[[str], None],
        follow: Callable[[Bus], Follows | None] = lambda bus: None,
    ) -> None:
        self.ident = secrets.token_hex(8)
        self.home = home
        self.tell = tell
        self.digest: Digest | None = None
        self.plan: Plan | None = None
        self.drops: dict[str, int] = {}
        self._supply = Supply(home.blobs, home.models, key, self.ident)
        self._model: tuple[str, Manifest, Tokenizer] | None = None  # the last one that was named
        self._changed = asyncio.Event()
        self._sessions: set[Session] = set()
        self._crowd = Crowd()
        self._reason = "no answer"
        self._follower: Follows | None = None
        self._elsewhere = False  # a bus was reached anew, perhaps another host's
        self._courier = Courier(key, self.ident, self._on_message, self._on_drop)
        self._bus = make_bus(self._courier, self.ident, self._on_state)
        self._courier.attach(self._bus)
        self._follower = follow(self._bus)

    async def __aenter__(self) -> "SwarmLink":
        self._courier.subscribe(Kind.SWARM)
        self._courier.subscribe(Kind.PLAN)
        await self._bus.start()
        if self._follower is not None:
            self._follower.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in list(self._sessions):
            session.feed(Stopping())
        if self._follower is not None:
            self._follower.close()
        try:
            await self._bus.close()
        finally:
            await self._supply.close()

    @property
    def names(self) -> dict[str, str]:
        """Device names by id."""
        return {member.device: member.name for member in self.digest.members} if self.digest else {}

    async def connected(self, within: float) -> None:
        """Wait for the bus. Raises `NoSwarm` with the reason."""
        await self._until(
            lambda: self._bus.connected, within, lambda: f"the swarm's bus does not answer: {self._reason}"
        )

    async def heard(self, within: float) -> Digest:
        """Wait for the host's digest. Raises `NoSwarm`."""
        await self._until(
            lambda: self.digest is not None, within, lambda: "the swarm has no host at the moment"
        )
        assert self.digest is not None
        return self.digest

    async def model(self, patience: float | None) -> tuple[str, Manifest, Tokenizer]:
        """The swarm's model, once a plan or the digest names it. Raises `SessionFailed`, `ModelError`.

        `patience` is how long nothing may move, in seconds (None: `deadlines.PATIENCE`); with a figure also a
        device that has the model is waited for.
        """
        loop = asyncio.get_running_loop()
        most = deadlines.PATIENCE if patience is None else patience
        moved, signs = loop.time(), None
        while True:
            sha, size = self._named_model()
            if self._model is not None and self._model[0] == sha:
                return self._model  # a tokenizer takes as long to read as some tokens to compute
            if sha:
                self._supply_digest()
                try:
                    manifest = await self._supply.manifest(sha, size)
                    tokenizer = load_tokenizer(await self._supply.tokenizer(sha, manifest))
                    self._model = sha, manifest, tokenizer
                    return self._model
                except ModelError as error:
                    if patience is None:
                        raise
                    note = str(error)
            else:
                note = self.digest.note if self.digest else "waiting for the swarm's host"
            if note != signs:
                moved, signs = loop.time(), note
                if note:
                    self.tell(note)
            if loop.time() - moved > most:
                raise SessionFailed(f"the swarm has no model yet: {note or 'nothing moved'}")
            await self._wait_change(TICK)

    async def context(self, patience: float) -> int:
        """Tokens that a session may hold, once a plan is active. Raises `NoSwarm` if none is in time."""
        await self._until(lambda: self.plan is not None and self.plan.active, patience, self._no_plan)
        assert self.plan is not None
        return self.plan.context

    async def settled(self) -> None:
        """Wait a short time for the plan that the digest speaks of: the bus keeps both, in no order."""
        epoch = (await self.heard(PLAN_S)).epoch
        with suppress(NoSwarm):
            await self._until(lambda: self._epoch >= epoch, PLAN_S, self._no_plan)

    @property
    def _epoch(self) -> int:
        return self.plan.epoch if self.plan is not None else 0

    def _no_plan(self) -> str:
        return (
            self.plan.problem if self.plan is not None and self.plan.problem else "the swarm has no plan yet"
        )

    async def run(
        self, request: Request, patience: float | None
    ) -> AsyncGenerator[Answered | Waiting | Ended, None]:
        """Run one session to its end; ending the iteration early cancels it."""
        session = Session(Asker(request, patience=patience, crowd=self._crowd), self._courier)
        self._sessions.add(session)
        try:
            session.feed(Started())
            for message in (self.digest, self.plan):
                if message is not None:
                    session.feed(Received(message.host, message))
            while True:
                effect = await session.said.get()  # the asker's own deadlines end every session
                yield effect
                if isinstance(effect, Ended):
                    return
        finally:
            session.feed(Stopping())
            session.close()
            self._sessions.discard(session)

    def _named_model(self) -> tuple[str, int]:
        if self.plan is not None and self.plan.model and self.plan.model_bytes:
            return self.plan.model, self.plan.model_bytes
        if self.digest is not None and self.digest.model and self.digest.model_bytes:
            return self.digest.model, self.digest.model_bytes
        return "", 0

    def _supply_digest(self) -> None:
        if self.digest is not None:
            self._supply.on_digest(self.digest)

    async def _until(self, condition: Callable[[], bool], within: float, why: Callable[[], str]) -> None:
        deadline = asyncio.get_running_loop().time() + within
        while not condition():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise NoSwarm(why())
            await self._wait_change(min(left, TICK))

    async def _wait_change(self, seconds: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def _on_state(self, connected: bool, reason: str) -> None:
        self._reason = reason or self._reason
        self._elsewhere = self._elsewhere or connected
        self._changed.set()
        self._tell_all(BusChanged(connected, reason))

    def _tell_all(self, event: object) -> None:
        if self._follower is not None:
            self._follower.feed(event)
        for session in list(self._sessions):
            session.feed(event)

    def _on_message(self, sender: str, message: Message) -> None:
        match message:
            case Digest() | Plan() if message.host != sender:
                self._on_drop("message in another device's name")
                return
            case Digest():
                self.digest = message
            case Plan() if self._is_news(message):
                self.plan = message
            case Out():
                pass
            case _:
                return
        self._changed.set()
        self._tell_all(Received(sender, message))

    def _is_news(self, plan: Plan) -> bool:
        """Not of an older epoch, and not the same one from before it was in force."""
        known = self.plan
        if self._elsewhere:
            self._elsewhere, known = False, None
        if known is None or plan.epoch != known.epoch:
            return known is None or plan.epoch > known.epoch
        return plan.active or not known.active

    def _on_drop(self, reason: str) -> None:
        if reason not in self.drops:
            self.tell(f"what came over the bus was refused: {reason}")
        self.drops[reason] = self.drops.get(reason, 0) + 1
