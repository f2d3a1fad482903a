"""Shards beside each other: steps go on while others load, newer orders replace older ones, rows move."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.core.effects import KvRows, LoadShards, ReadKv
from swisd.core.errors import ModelError
from swisd.core.events import KvFailed, KvRead, LoadFailed, LoadProgress, ShardsLoaded, StepDone, StepFailed
from swisd.core.types import Units
from swisd.runtime import shard
from swisd.runtime.fake import FakeShard, fake_manifest
from tests.node.fakes import MIB, install_runtime
from tests.node.test_compute import ALL, FIRST, HALVES, MANIFEST, MODEL, SECOND, SESSION, WHOLE, Bench, step


class Loader:
    """Loads of shards that wait at a gate; `made` are those that were let through."""

    def __init__(self) -> None:
        self.made: list[FakeShard] = []
        self.asked: list[Units] = []
        self.closed: list[Units] = []
        self.closing: queue.SimpleQueue[Units] = queue.SimpleQueue()
        self.fail: set[Units] = set()
        self.at_gate, self.gate = threading.Semaphore(0), threading.Semaphore(0)

    def load(
        self, manifest: Any, start: int, end: int, blobs: Path, *, threads: int, store: Any
    ) -> FakeShard:
        self.asked.append((start, end))
        self.at_gate.release()
        assert self.gate.acquire(timeout=20)
        if (start, end) in self.fail:
            raise ModelError("no room")
        made = FakeShard(manifest, start, end, store=store)
        self.made.append(made)
        return made

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.at_gate.acquire, timeout=20)

    def let(self, count: int = 1) -> None:
        self.gate.release(count)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    install_runtime(monkeypatch)
    made = Bench(tmp_path)
    yield made
    await made.compute.close()


@pytest.fixture
async def loader(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loader]:
    made = Loader()
    close = FakeShard.close

    def closes(self: FakeShard) -> None:
        made.closed.append(self.units)
        made.closing.put(self.units)
        close(self)

    monkeypatch.setattr(FakeShard, "close", closes)
    monkeypatch.setattr(shard.Shard, "load", made.load)
    yield made
    made.let(100)


async def settled(bench: Bench) -> None:
    """Everything that was asked of the compute thread before is done."""
    bench.compute.run(step((), units=(40, 41)))
    assert isinstance(await bench.next(), StepFailed)


async def loaded(bench: Bench, loader: Loader, effect: LoadShards) -> None:
    loader.let(len(effect.wanted))
    bench.load(effect)
    assert isinstance(await bench.next(), ShardsLoaded)
    while loader.at_gate.acquire(blocking=False):
        pass


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


# --- keys and values --------------------------------------------------------------------------------


def read(units: Units, position: int = 0, rows: int = 3, session: str = SESSION) -> ReadKv:
    return ReadKv("22" * 8, 9, session, units, position, rows)


async def test_rows_move_to_another_device_before_its_shard_is_there(
    bench: Bench, loader: Loader, tmp_path: Path
) -> None:
    await loaded(bench, loader, HALVES)
    bench.compute.run(step((1, 2, 3), units=FIRST))
    bench.compute.read_kv(read((1, 3)))
    bench.compute.run(step((5,), number=1, units=FIRST, rows=1))
    first, kv, second = [await bench.next() for _ in range(3)]
    assert isinstance(first, StepDone) and isinstance(second, StepDone)
    assert isinstance(kv, KvRead) and kv.device == "22" * 8
    assert (kv.kv.epoch, kv.kv.session, kv.kv.units, kv.kv.position, kv.kv.rows) == (9, SESSION, (1, 3), 0, 3)

    other = Bench(tmp_path / "other")
    try:
        effect = LoadShards(9, MODEL, (FIRST,), (), 128)
        other.compute.make_room(effect, MANIFEST)
        wire = kv.kv.payload.tobytes()
        other.compute.write_kv(replace(kv.kv, payload=memoryview(wire)))
        other.compute.read_kv(read((1, 3)))
        again = await other.next()
        assert isinstance(again, KvRead) and np.array_equal(again.kv.payload, kv.kv.payload)
        other.compute.load(effect, MANIFEST)
        loader.let()
        assert isinstance(await other.next(), ShardsLoaded)
        other.compute.run(step((5,), number=1, units=FIRST, rows=1))
        done = await other.next()
        assert isinstance(done, StepDone) and np.array_equal(done.payload, second.payload)
    finally:
        await other.compute.close()


async def test_rows_that_are_not_here_are_no_event(bench: Bench, loader: Loader) -> None:
    bench.compute.read_kv(read((1, 3)))
    await settled(bench)
    await loaded(bench, loader, HALVES)
    bench.compute.run(step((1, 2, 3), units=FIRST))
    assert isinstance(await bench.next(), StepDone)
    for asked in (
        read((1, 3), rows=4),
        read((1, 3), session="cd" * 8),
        read((1, 5)),
        read((0, 1)),
        read((1, 99)),
    ):
        bench.compute.read_kv(asked)
    await settled(bench)


WIDTH = 2 * MANIFEST.hidden
GOOD = KvRows(9, SESSION, (1, 3), 0, 3, np.ones((2, 3, WIDTH), np.float32))


@pytest.mark.parametrize(
    ("kv", "words"),
    [
        (replace(GOOD, units=(3, 5)), "unit 3 is not"),
        (replace(GOOD, units=(1, 4), payload=np.ones((3, 3, WIDTH), np.float32)), "unit 3 is not"),
        (replace(GOOD, position=1), "come at 1"),
        (replace(GOOD, payload=bytes(8)), "2 values for 3 rows"),
        (replace(GOOD, payload=bytes(7)), "ValueError"),
        (replace(GOOD, payload=np.ones((2, 3, 5), np.float32)), "not float32"),
        (replace(GOOD, payload=None), "TypeError"),
        (replace(GOOD, rows=129, payload=bytes(4 * 2 * 129 * WIDTH)), "allows 128"),
        (replace(GOOD, units=(1, 99), payload=bytes(4 * 98 * 3 * WIDTH)), "do not exist"),
    ],
)
async def test_rows_that_do_not_fit_are_told(bench: Bench, kv: KvRows, words: str) -> None:
    bench.compute.make_room(LoadShards(9, MODEL, (FIRST,), (), 128), MANIFEST)
    bench.compute.write_kv(kv)
    failed = await bench.next()
    assert isinstance(failed, KvFailed) and (failed.session, failed.units) == (kv.session, kv.units)
    assert words in failed.reason
    bench.compute.write_kv(GOOD)
    bench.compute.read_kv(read((1, 3)))
    assert isinstance(await bench.next(), KvRead)


async def test_rows_come_too_early_or_too_late(bench: Bench, loader: Loader) -> None:
    effect = LoadShards(9, MODEL, (FIRST,), (), 128)
    bench.compute.write_kv(GOOD)
    assert await bench.next() == KvFailed(SESSION, (1, 3), "no model is loaded")
    bench.compute.make_room(effect, None)
    bench.compute.write_kv(GOOD)
    assert await bench.next() == KvFailed(SESSION, (1, 3), "no model is loaded")
    bench.compute.load(effect, MANIFEST)  # brings the manifest
    bench.compute.write_kv(GOOD)
    await settled(bench)
    assert bench.compute.kv_bytes > 0
    loader.let()
    assert isinstance(await bench.next(), ShardsLoaded)
    bench.compute.keep(())
    bench.compute.write_kv(GOOD)
    assert isinstance(await bench.next(), KvFailed)
    assert bench.compute.kv_bytes == 0


async def test_another_model_frees_everything_of_the_first(bench: Bench, loader: Loader) -> None:
    await loaded(bench, loader, WHOLE)
    bench.compute.run(step((1, 2, 3)))
    assert isinstance(await bench.next(), StepDone)
    wider = fake_manifest(layers=4, hidden=32, context=128)
    effect = LoadShards(9, "bb" * 32, (ALL,), (ALL,), 64)
    bench.compute.make_room(effect, wider)
    await settled(bench)
    assert loader.closed == [ALL] and bench.compute.kv_bytes == bench.compute.resident_bytes == 0
    loader.let()
    bench.compute.load(effect, wider)
    assert await bench.next() == ShardsLoaded(9, (ALL,), 6 * MIB)
    bench.compute.run(step((1,) * 65, rows=65))
    failed = await bench.next()
    assert isinstance(failed, StepFailed) and "allows 64" in failed.reason


async def test_a_new_bound_on_sessions_holds_for_shards_that_stay(bench: Bench, loader: Loader) -> None:
    await loaded(bench, loader, WHOLE)
    bench.load(replace(WHOLE, epoch=9, wanted=(), keep=(ALL,), max_tokens=2))
    assert await bench.next() == ShardsLoaded(9, (ALL,), 6 * MIB)
    bench.compute.run(step((1, 2, 3)))
    failed = await bench.next()
    assert isinstance(failed, StepFailed) and "allows 2" in failed.reason
