"""What takes a while: fetching, loading, importing, measuring. Each errand is a task and ends in an event."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from swisd.core.effects import (
    Effect,
    GetManifest,
    KeepShards,
    LoadShards,
    MeasureCompute,
    MeasureLinks,
    Notice,
    ProvideModel,
)
from swisd.core.errors import SwisdError
from swisd.core.events import (
    Event,
    HoldingsChanged,
    LinksMeasured,
    LoadFailed,
    LoadProgress,
    ManifestFailed,
    ManifestReady,
    Measured,
    ProvideFailed,
    ProvideProgress,
)
from swisd.core.local import Local
from swisd.core.model import Manifest
from swisd.core.types import PeerLink, Profile, Units
from swisd.node.compute import Compute
from swisd.node.home import Home
from swisd.node.importing import import_model
from swisd.node.profiles import remember, remembered
from swisd.node.supply import Supply
from swisd.transport.api import LaneDown, Lanes, Probe

log = logging.getLogger(__name__)
SMALL_BYTES, SMALL_COUNT = 4 << 10, 6
LARGE_BYTES, LARGE_COUNT = 128 << 10, 3
FILL_S = 0.02  # seconds that a large ping may take one way
Failed = Callable[[str], Event | None]  # makes of a reason what tells of it; None if somebody else will


class Errands:
    """Runs the errands of one device; `post` and `observe` are called in the event loop."""

    def __init__(
        self,
        local: Local,
        home: Home,
        supply: Supply,
        compute: Compute,
        post: Callable[[Event], None],
        observe: Callable[[Notice], None],
        *,
        alone: bool = False,
    ) -> None:
        self._alone = alone
        self.lanes: Lanes | None = None
        self._local, self._home, self._supply, self._compute = local, home, supply, compute
        self._post, self._observe = post, observe
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading: asyncio.Task[None] | None = None
        self._fetching: LoadShards | None = None  # what `_loading` is for

    def do(self, effect: Effect) -> None:
        """Begin an errand."""
        match effect:
            case LoadShards():
                self._cancel_loading()
                self._compute.make_room(effect, self._local.manifests.get(effect.model))
                self._fetching = effect
                self._loading = self._spawn(
                    self._load(effect), lambda reason: self._compute.give_up_load(effect, reason)
                )
            case KeepShards():
                self._cancel_loading()
                self._compute.keep(effect.units)
            case GetManifest():
                self._spawn(self._get_manifest(effect), lambda reason: ManifestFailed(effect.model, reason))
            case ProvideModel():
                self._spawn(
                    self._provide(effect.model_id), lambda reason: ProvideFailed(effect.model_id, reason)
                )
            case MeasureCompute():
                self._measure(effect.model)
            case MeasureLinks():
                self._spawn(self._measure_links(effect.devices), lambda reason: LinksMeasured(()))
            case _:
                log.error("no hand for %s", type(effect).__name__)

    def _measure(self, model: str) -> None:
        known = remembered(self._home, model, self._wanted_threads) if self._alone else None
        if known is not None:
            self._compute.use_threads(known.threads)
            self._post(Measured(known))
            return
        limit = self._local.capability.memory_bytes
        self._compute.measure(self._local.manifests[model], model, limit)

    def keep(self, profile: Profile) -> None:
        """Remember what was measured, if the disk takes it."""
        try:
            remember(self._home, profile, self._wanted_threads)
        except SwisdError as error:
            log.warning("the figures of this device are not kept: %s", error)

    @property
    def _wanted_threads(self) -> int:
        config = self._local.config
        return 0 if config.fewer else config.threads

    def on_load_failed(self, event: LoadFailed) -> None:
        """A shard cannot be built: what is still fetched for that plan is for nothing."""
        if self._fetching is not None and self._fetching.epoch == event.epoch:
            self._cancel_loading()

    async def close(self) -> None:
        """End every errand, within a deadline."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)

    def _cancel_loading(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            self._loading = self._fetching = None

    async def _load(self, effect: LoadShards) -> None:
        """Fetch what is wanted; each shard is loaded once its blobs are here. A newer plan cancels this."""

        def progress(fraction: float) -> None:
            if effect is self._fetching:  # a fetch that is cancelled may have something on its way
                self._post(LoadProgress(effect.epoch, False, min(fraction, 1.0)))

        def ready(units: Units) -> None:
            self._compute.ready(effect, manifest, units)

        newest = self._local.newest
        size = newest.model_bytes if newest else 0
        manifest = await self._manifest(effect.model, size)
        await self._supply.units(effect.model, manifest, effect.wanted, progress, ready)
        self._post(HoldingsChanged(self._supply.holdings()))
        self._compute.load(effect, manifest)

    async def _get_manifest(self, effect: GetManifest) -> None:
        self._post(ManifestReady(effect.model, await self._manifest(effect.model, effect.size)))

    async def _manifest(self, model: str, size: int) -> Manifest:
        return self._local.manifests.get(model) or await self._supply.manifest(model, size)

    async def _provide(self, model_id: str) -> None:
        def progress(what: str, done: int, total: int) -> None:
            fraction = min(done / total, 1.0) if total else 0.0
            self._post(ProvideProgress(fraction, f"{what} {model_id}: {fraction:.0%}"))

        self._observe(Notice("info", f"no device has {model_id} yet: fetching and importing it"))
        await import_model(model_id, self._home.path, progress)
        self._observe(Notice("info", f"{model_id} is imported"))
        self._post(HoldingsChanged(self._supply.holdings()))

    async def _measure_links(self, devices: tuple[str, ...]) -> None:
        links: list[PeerLink] = []
        assert self.lanes is not None
        for device in devices:
            try:
                measured = await self._probe(self.lanes, device)
            except LaneDown as error:
                log.info("no link to %s: %s", device, error.reason)
                continue
            links.append(PeerLink(device, measured.rtt_ms, min(measured.mbit_s, 1e7)))
        self._post(LinksMeasured(tuple(links)))

    async def _probe(self, lanes: Lanes, device: str) -> Probe:
        """Small pings first; they say how large a payload may be to fill a fast link and spare a slow one."""
        first = await lanes.probe(device, SMALL_BYTES, SMALL_COUNT)
        size = min(int(first.mbit_s * 1e6 / 8 * FILL_S), LARGE_BYTES)
        if size <= SMALL_BYTES:
            return first
        second = await lanes.probe(device, size, LARGE_COUNT)
        return Probe(min(first.rtt_ms, second.rtt_ms), max(first.mbit_s, second.mbit_s))

    def _spawn(self, work: Coroutine[Any, Any, None], failed: Failed) -> asyncio.Task[None]:
        task = asyncio.create_task(self._to_an_end(work, failed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _to_an_end(self, work: Coroutine[Any, Any, None], failed: Failed) -> None:
        """The machine waits for an event, whatever goes wrong."""
        try:
            await work
        except SwisdError as error:
            reason = str(error)
        except Exception as error:
            log.error("an errand failed", exc_info=error)
            reason = f"{type(error).__name__}: {error}"
        else:
            return
        event = failed(reason)
        if event is not None:
            self._post(event)
