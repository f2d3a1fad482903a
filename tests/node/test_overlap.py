"""Loading overlaps with fetching: a shard is built once its own blobs are here, and told with all others."""

import asyncio
from typing import Any

import pytest

from swisd.core.effects import KeepShards, LoadShards
from swisd.core.errors import ModelError
from swisd.core.events import HoldingsChanged, LoadFailed, LoadProgress, ShardsLoaded, StepFailed
from swisd.core.types import Units
from swisd.store.fetch import Progress
from tests.node.conftest import Until
from tests.node.fakes import MIB
from tests.node.loading import Loader, bench, loader, settled
from tests.node.test_compute import HALVES, MANIFEST, MODEL, Bench, step
from tests.node.test_errands import Office, office

__all__ = ["bench", "loader", "office"]  # fixtures
FIRST, SECOND, THIRD = (0, 2), (2, 4), (4, 5)  # no blob is in two of them
TOLD = (LoadFailed, ShardsLoaded)


class Far:
    """Blobs of an office's home that are on no disk until a test lets them come."""

    def __init__(self, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.manifest = office.supply.store, office.model.manifest
        self.away: dict[str, bytes] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.asked: list[str] = []
        self.gone: set[str] = set()  # who had them left
        self.given_up: list[str] = []
        self.fetch = office.supply._fetcher.fetch
        monkeypatch.setattr(office.supply._fetcher, "fetch", self._fetch)

    def blobs(self, what: Units | None) -> list[str]:
        """The blobs of a range of units; of the tokenizer for None."""
        indices = [self.manifest.tokenizer] if what is None else self.manifest.blob_indices(*what)
        return [self.manifest.blobs[index].sha256 for index in indices]

    def take(self, *ranges: Units | None) -> None:
        for sha in (sha for what in ranges for sha in self.blobs(what)):
            self.away[sha], self.gates[sha] = self.store.read(sha), asyncio.Event()
            self.store.remove(sha)

    def let(self, what: Units | None, *, fail: bool = False) -> None:
        """Let the blobs come, or whoever has them leave."""
        for sha in self.blobs(what):
            if fail:
                self.gone.add(sha)
            self.gates[sha].set()

    def waits_for(self, what: Units | None) -> bool:
        return set(self.blobs(what)) <= set(self.asked)

    async def _fetch(self, sha: str, size: int, sources: Any, progress: Progress | None = None) -> None:
        if sha in self.away:
            self.asked.append(sha)
            try:
                await self.gates[sha].wait()
            except asyncio.CancelledError:
                self.given_up.append(sha)
                raise
            if sha in self.gone:
                raise ModelError("on no device")
            self.store.put(self.away.pop(sha))
        await self.fetch(sha, size, sources, progress)


@pytest.fixture
def far(loader: Loader, office: Office, monkeypatch: pytest.MonkeyPatch) -> Far:
    return Far(office, monkeypatch)


def told(office: Office) -> list[Any]:
    return [event for event in office.events if isinstance(event, TOLD)]


async def quiet(office: Office, until: Until) -> None:
    """What was asked of the loop and of the compute thread before is done, and told."""
    for _ in range(20):
        await asyncio.sleep(0)
    before = len(office.of(StepFailed))
    office.compute.run(step((), units=(40, 41)))
    await until(lambda: len(office.of(StepFailed)) > before)


async def half(office: Office, far: Far, loader: Loader, until: Until, effect: LoadShards) -> None:
    """The first shard of a load is built, the blobs of the second do not come."""
    far.take(SECOND)
    loader.let()
    office.errands.do(effect)
    await until(lambda: office.compute.resident_bytes == 2 * MIB and far.waits_for((3, 4)))
    assert loader.asked == [FIRST]


async def test_a_shard_is_built_while_the_blobs_of_another_are_fetched(
    office: Office, far: Far, loader: Loader, until: Until
) -> None:
    await half(office, far, loader, until, office.load(3, FIRST, SECOND))
    await quiet(office, until)
    assert told(office) == [] and {event.loading for event in office.of(LoadProgress)} == {False}
    far.let(SECOND)
    await until(lambda: office.of(LoadProgress)[-1] == LoadProgress(3, True, 0.5))  # the first is here
    loader.let()
    await until(lambda: told(office))
    assert told(office) == [ShardsLoaded(3, (FIRST, SECOND), 4 * MIB)]
    assert loader.asked == [FIRST, SECOND] and loader.closed == []
    kinds = [type(event) for event in office.events]
    assert kinds.index(HoldingsChanged) < kinds.index(ShardsLoaded)
    phases = [event.loading for event in office.of(LoadProgress)]
    assert phases == sorted(phases)


async def test_a_shard_that_is_still_built_after_the_fetch_is_told_as_loading(
    office: Office, far: Far, loader: Loader, until: Until
) -> None:
    far.take(SECOND)
    office.errands.do(office.load(3, FIRST, SECOND))
    await loader.reached()
    far.let(SECOND)
    await until(lambda: office.of(HoldingsChanged))
    await until(lambda: office.of(LoadProgress)[-1] == LoadProgress(3, True, 0.0))
    loader.let(2)
    await until(lambda: told(office))
    assert told(office) == [ShardsLoaded(3, (FIRST, SECOND), 4 * MIB)] and loader.asked == [FIRST, SECOND]


async def test_a_range_whose_blobs_come_first_is_built_first(
    office: Office, far: Far, loader: Loader, until: Until
) -> None:
    far.take((1, 2))
    loader.let(3)
    office.errands.do(office.load(3, FIRST, SECOND, THIRD))
    await until(lambda: office.compute.resident_bytes == 3 * MIB)
    assert loader.asked == [SECOND, THIRD]
    far.let((1, 2))
    await until(lambda: told(office))
    assert told(office) == [ShardsLoaded(3, (FIRST, SECOND, THIRD), 5 * MIB)]


async def test_a_fetch_that_fails_closes_what_was_built_for_it(
    office: Office, far: Far, loader: Loader, until: Until
) -> None:
    loader.let()
    office.errands.do(office.load(2, THIRD))
    await until(lambda: told(office))
    far.take(SECOND)
    loader.let()
    office.errands.do(office.load(3, FIRST, SECOND, keep=(THIRD,)))
    await until(lambda: office.compute.resident_bytes == 3 * MIB)
    far.let(SECOND, fail=True)
    await until(lambda: office.of(LoadFailed))
    await quiet(office, until)
    assert told(office)[1:] == [LoadFailed(3, "on no device")]
    assert loader.closed == [FIRST] and office.compute.resident_bytes == MIB  # what was told of stays


async def test_a_shard_that_is_being_built_when_the_fetch_fails_is_closed_when_it_is_there(
    office: Office, far: Far, loader: Loader, until: Until
) -> None:
    far.take(SECOND)
    office.errands.do(office.load(3, FIRST, SECOND))
    await loader.reached()
    far.let(SECOND, fail=True)
    await until(lambda: told(office))
    loader.let()
    assert await asyncio.to_thread(loader.closing.get, timeout=20) == FIRST
    await quiet(office, until)
    assert told(office) == [LoadFailed(3, "on no device")] and office.compute.resident_bytes == 0


async def test_all_is_loaded_only_when_the_tokenizer_is_there_too(
    office: Office, far: Far, loader: Loader, until: Until
) -> None:
    far.take(None)
    loader.let(2)
    office.errands.do(office.load(3, FIRST, SECOND))
    await until(lambda: office.compute.resident_bytes == 4 * MIB)
    await quiet(office, until)
    assert told(office) == []
    far.let(None, fail=True)
    await until(lambda: told(office))
    await quiet(office, until)
    assert told(office) == [LoadFailed(3, "on no device")]
    assert sorted(loader.closed) == [FIRST, SECOND]


@pytest.mark.parametrize("wants", [True, False], ids=["wants the same", "wants others"])
async def test_a_newer_plan_takes_over_what_it_wants_of_a_half_loaded_one(
    office: Office, far: Far, loader: Loader, until: Until, wants: bool
) -> None:
    await half(office, far, loader, until, office.load(3, FIRST, SECOND))
    loader.let()
    newer = (FIRST, THIRD) if wants else (THIRD,)
    office.errands.do(office.load(4, *newer))
    await until(lambda: told(office))
    await quiet(office, until)
    assert told(office) == [ShardsLoaded(4, newer, 3 * MIB if wants else MIB)]
    assert loader.asked == [FIRST, THIRD] and loader.closed == ([] if wants else [FIRST])
    assert set(far.given_up) == set(far.blobs(SECOND))


async def test_a_newer_plan_that_fails_closes_what_it_took_over(
    office: Office, far: Far, loader: Loader, until: Until
) -> None:
    await half(office, far, loader, until, office.load(3, FIRST, SECOND))
    office.errands.do(office.load(4, FIRST, (2, 5)))
    far.let(SECOND, fail=True)
    await until(lambda: told(office))
    assert told(office) == [LoadFailed(4, "on no device")]
    assert loader.closed == [FIRST] and office.compute.resident_bytes == 0


@pytest.mark.parametrize("kept", [(FIRST, SECOND), (THIRD,)], ids=["the same", "others"])
async def test_keeping_gives_up_a_half_loaded_plan(
    office: Office, far: Far, loader: Loader, until: Until, kept: tuple[Units, ...]
) -> None:
    await half(office, far, loader, until, office.load(3, FIRST, SECOND))
    office.errands.do(KeepShards(kept))
    far.let(SECOND)  # at the last moment
    progress = office.of(LoadProgress)
    loader.let()
    await until(lambda: not office.errands._tasks)
    await quiet(office, until)
    assert told(office) == [] and loader.asked == [FIRST] and office.of(LoadProgress) == progress
    assert loader.closed == ([] if FIRST in kept else [FIRST])


async def test_a_shard_that_cannot_be_built_ends_the_fetch_for_the_others(
    office: Office, far: Far, loader: Loader, until: Until
) -> None:
    far.take(SECOND)
    loader.fail.add(FIRST)
    office.errands.do(office.load(3, FIRST, SECOND))
    await until(lambda: far.waits_for(SECOND))
    loader.let()
    await until(lambda: told(office))
    await until(lambda: len(far.given_up) == 2)
    last = office.events[-1]
    await quiet(office, until)
    assert told(office) == [last] == [LoadFailed(3, "no room")]
    loader.fail.clear()
    loader.let()
    office.errands.do(office.load(4, FIRST))
    office.errands.on_load_failed(LoadFailed(3, "late"))  # is not about this one
    await until(lambda: office.of(ShardsLoaded))


async def test_a_word_of_an_older_load_that_comes_late_is_ignored(bench: Bench, loader: Loader) -> None:
    loader.let(9)
    newer = LoadShards(9, MODEL, HALVES.wanted, (), 128)
    bench.compute.make_room(HALVES, MANIFEST)
    bench.compute.make_room(newer, MANIFEST)
    bench.compute.ready(HALVES, MANIFEST, HALVES.wanted[0])
    bench.compute.load(HALVES, MANIFEST)
    bench.compute.give_up_load(HALVES, "late")
    await settled(bench)  # and told nothing
    assert loader.asked == []
    bench.compute.load(newer, MANIFEST)
    assert await bench.next() == ShardsLoaded(9, HALVES.wanted, 6 * MIB)
