"""A small model of this home beside the shards: it guesses tokens for sessions that this device drives."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from swisd.core.effects import Draft
from swisd.core.errors import ModelError, SwisdError
from swisd.core.events import DraftMade
from swisd.core.model import Manifest
from swisd.node.describe import threads_of
from swisd.node.hand import Hand
from swisd.node.home import Home
from swisd.node.settings import Settings
from swisd.store.disk import BlobStore
from swisd.store.models import ModelIndex

if TYPE_CHECKING:
    from swisd.runtime.drafter import Drafter

log = logging.getLogger(__name__)
CLOSE_S = 5.0


class Drafting:
    """Asks the small model, one question at a time and in a thread of its own; only the last question counts.

    `post` is called in the event loop, once it is set.
    """

    def __init__(self, blobs: Path, manifest: Manifest, *, threads: int, max_tokens: int) -> None:
        self.post: Callable[[DraftMade], object] = lambda made: None
        self._blobs, self._manifest = blobs, manifest
        self._threads, self._max_tokens = threads, min(max_tokens, manifest.context)
        self._loop = asyncio.get_running_loop()
        self._hand = Hand("draft")
        self._lock = threading.Lock()
        self._asked: Draft | None = None
        self._drafter: Drafter | None = None

    @classmethod
    async def of(cls, home: Home, settings: Settings) -> "Drafting | None":
        """The one that the settings name, loaded; None if they name none.

        Raises `ModelError` if the model is not whole on this device, `BadInput` for a name that is none.
        """
        name = settings.device.drafter
        if not name or not settings.device.speculation:
            return None
        store = BlobStore(home.blobs)
        index = ModelIndex(home.models, store)
        try:
            manifest = index.manifest(name)
        except ModelError as error:
            raise ModelError(f"device.drafter: {error}; get it with `swisd models pull {name}`") from None
        if not index.has_all(manifest):
            missing = f"device.drafter: {name} is not whole on this device"
            raise ModelError(f"{missing}; get it with `swisd models pull {name}`")
        made = cls(home.blobs, manifest, threads=threads_of(settings), max_tokens=settings.model.context)
        await made.load()
        return made

    @property
    def memory_bytes(self) -> int:
        """What the model takes, with a text as long as it may get."""
        units = 0, self._manifest.n_units
        kv = self._manifest.kv_bytes_per_token(*units) * self._max_tokens
        return self._manifest.resident_bytes(*units) + kv

    async def load(self) -> None:
        """Have the model in memory. Raises `ModelError`."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._hand.submit(lambda: self._load(done))
        await done

    def ask(self, effect: Draft) -> None:
        """Answered by a `DraftMade`, unless another question comes before its turn."""
        with self._lock:
            self._asked = effect
        self._hand.submit(self._answer)

    async def close(self) -> None:
        """Free the model, once what it computes has ended, or `CLOSE_S` are over."""
        done: asyncio.Future[None] = self._loop.create_future()
        with self._lock:
            self._asked = None
        self._hand.submit(lambda: self._free(done))
        self._hand.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await done

    # --- in its thread --------------------------------------------------------------------------------

    def _load(self, done: "asyncio.Future[None]") -> None:
        from swisd.runtime.drafter import Drafter

        failed: Exception | None = None
        try:
            self._drafter = Drafter(
                self._manifest, self._blobs, threads=self._threads, max_tokens=self._max_tokens
            )
        except Exception as error:  # noqa: BLE001 - whoever waits for it is told
            failed = error
        self._tell(lambda: done.set_exception(failed) if failed else done.set_result(None))

    def _answer(self) -> None:
        with self._lock:
            asked, self._asked = self._asked, None
        if asked is None or self._drafter is None:
            return
        try:
            ids = self._drafter.guess(asked.ids, asked.count)
        except (SwisdError, MemoryError) as error:
            log.warning("nothing is guessed: %s", error)
            return
        if ids:
            made = DraftMade(asked.session, len(asked.ids), ids)
            self._tell(lambda: self.post(made))

    def _free(self, done: "asyncio.Future[None]") -> None:
        if self._drafter is not None:
            self._drafter.close()
            self._drafter = None
        self._tell(lambda: _end(done))

    def _tell(self, action: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(action)


def _end(done: "asyncio.Future[None]") -> None:
    if not done.done():  # nobody waits any more
        done.set_result(None)
