"""Shards beside each other: steps go on while others load, newer orders replace older ones."""

import asyncio
from dataclasses import replace

import pytest

from swisd.core.effects import LoadShards
from swisd.core.events import LoadFailed, LoadProgress, ShardsLoaded, StepDone, StepFailed
from swisd.core.types import Units
from tests.node.fakes import MIB
from tests.node.loading import Loader, bench, loaded, loader, settled
from tests.node.test_compute import ALL, FIRST, HALVES, MANIFEST, MODEL, SECOND, WHOLE, Bench, step

__all__ = ["bench", "loader"]  # fixtures


async def test_steps_go_on_while_a_shard_loads(bench: Bench, loader: Loader) -> None:
    await loaded(bench, loader, LoadShards(1, MODEL, (FIRST,), (), 128))
    bench.load(LoadShards(2, MODEL, (SECOND,), (FIRST,), 128))
    await loader.reached()
    for number in range(3):
        bench.compute.run(step((1, 2, 3), units=FIRST))
        done = await bench.next()
        assert isinstance(done, StepDone) and done.work.step == 0, number
    assert bench.compute.resident_bytes == 3 * MIB
    loader.let()
    assert await bench.next() == ShardsLoaded(2, (FIRST, SECOND), 6 * MIB)
    assert loader.asked == [FIRST, SECOND] and loader.closed == []


async def test_what_is_neither_wanted_nor_kept_is_closed_before_anything_loads(
    bench: Bench, loader: Loader
) -> None:
    await loaded(bench, loader, HALVES)
    bench.compute.run(step((1, 2, 3), units=FIRST))
    assert isinstance(await bench.next(), StepDone)
    held = bench.compute.kv_bytes
    bench.load(LoadShards(9, MODEL, ((2, 4),), (SECOND,), 128))
    await loader.reached()
    assert loader.closed == [FIRST] and bench.compute.resident_bytes == 3 * MIB
    assert bench.compute.kv_bytes == held // 2  # of unit 2, which the new shard goes on with; unit 1 is gone
    bench.compute.run(step((1, 2, 3), units=FIRST))
    failed = await bench.next()
    assert isinstance(failed, StepFailed) and failed.reason == "units 0 to 3 are not loaded"
    loader.let()
    assert await bench.next() == ShardsLoaded(9, ((2, 4), SECOND), 5 * MIB)


async def test_what_is_loaded_already_is_not_loaded_again(bench: Bench, loader: Loader) -> None:
    await loaded(bench, loader, HALVES)
    bench.load(replace(HALVES, epoch=9))
    assert await bench.next() == ShardsLoaded(9, (FIRST, SECOND), 6 * MIB)
    bench.load(LoadShards(10, MODEL, (), (), 128))
    assert await bench.next() == ShardsLoaded(10, (), 0)
    assert loader.asked == [FIRST, SECOND] and sorted(loader.closed) == [FIRST, SECOND]


async def test_a_newer_load_takes_over_what_it_wants_of_an_older_one(bench: Bench, loader: Loader) -> None:
    bench.load(HALVES)
    await loader.reached()
    bench.load(LoadShards(9, MODEL, (FIRST, (3, 5)), (), 128))
    await settled(bench)
    loader.let()
    await loader.reached()
    loader.let()
    assert await bench.next() == ShardsLoaded(9, (FIRST, (3, 5)), 5 * MIB)  # and nothing of epoch 8
    assert loader.asked == [FIRST, (3, 5)] and loader.closed == []


@pytest.mark.parametrize(
    ("model", "wanted", "keep"),
    [(MODEL, (FIRST,), ()), ("bb" * 32, (ALL,), ()), (MODEL, (), (FIRST,))],
    ids=["other units", "another model", "nothing"],
)
async def test_what_nobody_wants_any_more_is_closed_when_it_is_there(
    bench: Bench, loader: Loader, model: str, wanted: tuple[Units, ...], keep: tuple[Units, ...]
) -> None:
    bench.load(WHOLE)
    await loader.reached()
    bench.load(LoadShards(9, model, wanted, keep, 128))
    if not wanted:
        assert await bench.next() == ShardsLoaded(9, (), 0)  # without waiting for the other
    loader.let(2)
    assert await asyncio.to_thread(loader.closing.get, timeout=20) == ALL
    if wanted:
        assert await bench.next() == ShardsLoaded(9, wanted, MANIFEST.resident_bytes(*wanted[0]))
    await settled(bench)
    assert loader.closed == [ALL]


async def test_keeping_alone_gives_up_a_load(bench: Bench, loader: Loader) -> None:
    await loaded(bench, loader, LoadShards(1, MODEL, (FIRST,), (), 128))
    bench.load(LoadShards(2, MODEL, (SECOND,), (FIRST,), 128))
    await loader.reached()
    bench.compute.keep((FIRST,))
    await settled(bench)
    loader.let()
    assert await asyncio.to_thread(loader.closing.get, timeout=20) == SECOND
    bench.compute.run(step((1, 2, 3), units=FIRST))
    assert isinstance(await bench.next(), StepDone)
    assert loader.closed == [SECOND]


async def test_what_is_kept_and_still_loads_is_waited_for(bench: Bench, loader: Loader) -> None:
    bench.load(LoadShards(1, MODEL, (FIRST,), (), 128))
    await loader.reached()
    bench.load(LoadShards(2, MODEL, (), (FIRST,), 128))
    await settled(bench)
    loader.let()
    assert await bench.next() == ShardsLoaded(2, (FIRST,), 3 * MIB)


async def test_a_failed_load_leaves_what_was_there(bench: Bench, loader: Loader) -> None:
    await loaded(bench, loader, LoadShards(1, MODEL, (FIRST,), (), 128))
    loader.fail.add((4, 6))
    bench.load(LoadShards(2, MODEL, ((3, 4), (4, 6)), (FIRST,), 128))
    loader.let(2)
    assert await bench.next() == LoadFailed(2, "no room")
    bench.compute.run(step((1, 2, 3), units=FIRST))
    assert isinstance(await bench.next(), StepDone)
    assert loader.closed == [(3, 4)] and bench.compute.resident_bytes == 3 * MIB


async def test_an_older_load_that_fails_does_not_fail_the_newer_one(bench: Bench, loader: Loader) -> None:
    loader.fail.add(FIRST)
    bench.load(LoadShards(1, MODEL, (FIRST,), (), 128))
    await loader.reached()
    bench.load(LoadShards(2, MODEL, (FIRST,), (), 128))
    await settled(bench)
    loader.let()
    await loader.reached()  # again
    loader.fail.clear()
    loader.let()
    assert await bench.next() == ShardsLoaded(2, (FIRST,), 3 * MIB)


async def test_how_far_a_load_is_is_told(bench: Bench, loader: Loader) -> None:
    loader.let(2)
    bench.load(HALVES)
    events = []
    async with asyncio.timeout(20):
        while not events or not isinstance(events[-1], ShardsLoaded):
            events.append(await bench.events.get())
    assert events[:2] == [LoadProgress(8, True, 0.0), LoadProgress(8, True, 0.5)]


async def test_leaving_while_a_shard_loads_frees_it(bench: Bench, loader: Loader) -> None:
    bench.load(WHOLE)
    await loader.reached()
    closing = asyncio.create_task(bench.compute.close())
    await asyncio.sleep(0)
    loader.let()
    async with asyncio.timeout(20):
        await closing
    assert all(isinstance(bench.events.get_nowait(), LoadProgress) for _ in range(bench.events.qsize()))
