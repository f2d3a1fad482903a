"""What is in memory: shards by their units, the KV store under them, and the load that is under way.

Only the compute thread touches it. Shards are built in another thread meanwhile and handed over, so that
steps go on; one is built at a time, since two at once need the memory of both beside their files. A shard is
built as soon as its own blobs are on disk, while those of others are still fetched.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swisd.core.effects import ForkKv, LoadShards, ReadKv
from swisd.core.errors import ModelError, SwisdError
from swisd.core.events import Event, LoadFailed, LoadProgress, ShardsLoaded
from swisd.core.model import Manifest
from swisd.core.rows import KvRows
from swisd.core.types import Units
from swisd.node.hand import Job
from swisd.runtime import heap

if TYPE_CHECKING:
    from swisd.runtime.kv import KvStore
    from swisd.runtime.shard import Shard

log = logging.getLogger(__name__)


class Shards:
    """`aside` runs a job in the loader's thread, `back` one in the compute thread; `tell` posts an event."""

    def __init__(
        self,
        blobs: Path,
        threads: int,
        aside: Callable[[Job], None],
        back: Callable[[Job], None],
        tell: Callable[[Event], None],
    ) -> None:
        self._blobs, self._threads = blobs, threads
        self._aside, self._back, self._tell = aside, back, tell
        self._model = ""
        self._manifest: Manifest | None = None
        self._store: KvStore | None = None
        self._loaded: dict[Units, Shard] = {}
        self._owned: frozenset[Units] = frozenset()
        self._job: LoadShards | None = None
        self._ready: set[Units] = set()  # what the job wants and has on disk
        self._fetched = False  # all that the job needs is on disk
        self._fresh: set[Units] = set()  # loaded, but no `ShardsLoaded` has told of it
        self._building: Units | None = None
        self.resident_bytes = 0  # what the loaded shards take, without KV caches; any thread may read it

    def get(self, units: Units) -> "Shard | None":
        return self._loaded.get(units)

    def use_threads(self, count: int) -> None:
        """Shards that are loaded from now on compute with so many."""
        self._threads = count

    @property
    def kv_bytes(self) -> int:
        """Memory of the KV caches; any thread may ask."""
        store = self._store
        return store.nbytes() if store is not None else 0

    def make_room(self, effect: LoadShards, manifest: Manifest | None) -> None:
        """Begin a load: close and free what it neither wants nor keeps, and take rows for what it wants.

        An earlier load is given up. Without a manifest rows are only taken once `ready` or `load` brings it.
        """
        if effect.model != self._model:
            self.keep(())
            self._model, self._manifest, self._store = effect.model, None, None
        self.keep((*effect.wanted, *effect.keep))
        self._job, self._ready, self._fetched = effect, set(), False
        self._know(effect, manifest)

    def ready(self, effect: LoadShards, manifest: Manifest, units: Sequence[Units]) -> None:
        """Build these of what is wanted, if they are missing: their blobs are on disk, others are fetched."""
        if effect is not self._job:  # it ended, or a newer one replaced it
            return
        self._know(effect, manifest)
        self._ready.update(units)
        self._go_on()

    def load(self, effect: LoadShards, manifest: Manifest) -> None:
        """All blobs are on disk: build what is still missing, then tell."""
        if effect is self._job:
            self._fetched = True
            self.ready(effect, manifest, effect.wanted)

    def give_up(self, effect: LoadShards, reason: str) -> None:
        """A load cannot go on, and this is told, unless it ended before."""
        if effect is self._job:
            self._fail(effect, reason)

    def keep(self, units: Sequence[Units]) -> None:
        """Close every shard but these, give up loading, free the KV rows of all other units."""
        self._job = None
        self._owned = frozenset(units)
        self._close([loaded for loaded in self._loaded if loaded not in self._owned])
        if self._store is not None:
            self._store.keep(units)

    def drop(self, session: str) -> None:
        if self._store is not None:
            self._store.drop(session)

    def read(self, effect: ReadKv) -> KvRows:
        """Raises `ModelError` if the rows are not all here."""
        payload = self._rows_store().read(effect.session, effect.units, effect.position, effect.rows)
        return KvRows(effect.epoch, effect.session, effect.units, effect.position, effect.rows, payload)

    def write(self, kv: KvRows) -> None:
        """Raises `ModelError` if they do not fit, `ValueError` if their bytes do not."""
        store = self._rows_store()
        store.write(kv.session, kv.units, kv.position, kv_array(kv, store.width))

    def fork(self, effect: ForkKv) -> None:
        """Raises `ModelError` if the rows are not all here."""
        self._rows_store().fork(effect.source, effect.session, effect.end, keep=effect.keep)

    def _rows_store(self) -> "KvStore":
        if self._store is None:
            raise ModelError("no model is loaded")
        return self._store

    def _know(self, effect: LoadShards, manifest: Manifest | None) -> None:
        from swisd.runtime.kv import KvStore

        if self._store is not None:
            self._store.allow(effect.max_tokens)
        elif manifest is not None:
            self._manifest, self._store = manifest, KvStore(manifest, effect.max_tokens)
            self._store.keep(tuple(self._owned))

    def _close(self, gone: Sequence[Units]) -> None:
        for units in gone:
            self._loaded.pop(units).close()
        self._fresh.difference_update(gone)
        self._count()

    def _count(self) -> None:
        manifest = self._manifest
        self.resident_bytes = (
            sum(manifest.resident_bytes(*units) for units in self._loaded) if manifest else 0
        )

    def _go_on(self) -> None:
        """Build the next shard of the job that is ready, or tell that all are here."""
        job, manifest, store = self._job, self._manifest, self._store
        if job is None or manifest is None or store is None:
            return
        missing = [units for units in job.wanted if units not in self._loaded]
        if self._fetched and not missing and self._building not in self._owned:
            self._job, self._fresh = None, set()
            self._tell(ShardsLoaded(job.epoch, tuple(sorted(self._loaded)), self.resident_bytes))
            self._aside(heap.sweep)
            return
        if self._fetched and missing:  # until then the fetch tells how far it is
            self._tell(LoadProgress(job.epoch, True, 1 - len(missing) / len(job.wanted)))
        units = next((units for units in missing if units in self._ready), None)
        if self._building is not None or units is None:
            return  # then it goes on
        self._building = units
        self._aside(lambda: self._build(job, units, manifest, store))

    def _build(self, job: LoadShards, units: Units, manifest: Manifest, store: "KvStore") -> None:
        """In the loader's thread; whatever happens, the compute thread hears of it."""
        from swisd.runtime.shard import Shard

        built: Shard | None = None
        reason = ""
        try:
            built = Shard.load(manifest, *units, self._blobs, threads=self._threads, store=store)
        except SwisdError as error:
            reason = str(error)
        except Exception as error:
            log.warning("loading units %d to %d failed", *units, exc_info=error)
            reason = f"{type(error).__name__}: {error}"
        self._back(lambda: self._take(job, units, built, reason))

    def _take(self, job: LoadShards, units: Units, built: "Shard | None", reason: str) -> None:
        self._building = None
        if built is None:
            self.give_up(job, reason)
        elif built.store is self._store and units in self._owned and units not in self._loaded:
            # Also for a load that was given up, if its successor wants the same.
            self._loaded[units] = built
            self._count()
            self._fresh.add(units)
        else:
            built.close()
        self._go_on()

    def _fail(self, job: LoadShards, reason: str) -> None:
        self._job = None
        self._close(tuple(self._fresh))  # half a plan is of no use, and its memory was promised to others
        self._owned = frozenset(self._loaded)  # nor is what is being built
        self._tell(LoadFailed(job.epoch, reason))


def kv_array(kv: KvRows, width: int) -> Any:
    """Rows as the store takes them: float32 [units, rows, width], perhaps from the bytes of a frame."""
    import numpy as np

    if isinstance(kv.payload, np.ndarray):
        return kv.payload
    values, units = np.frombuffer(kv.payload, "<f4"), kv.units[1] - kv.units[0]
    if values.size != units * kv.rows * width:
        raise ValueError(f"{values.size} values for {kv.rows} rows of {width} in {units} units")
    return values.reshape(units, kv.rows, width)
