"""Keys and values on their way: out of one device's caches and into another's, in order with the steps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from swisd.core.effects import LoadShards, ReadKv
from swisd.core.events import KvFailed, KvRead, ShardsLoaded, StepDone, StepFailed
from swisd.core.rows import KvRows
from swisd.core.types import Units
from swisd.runtime.fake import fake_manifest
from tests.node.fakes import MIB
from tests.node.loading import Loader, bench, loaded, loader, settled
from tests.node.test_compute import ALL, FIRST, HALVES, MANIFEST, MODEL, SESSION, WHOLE, Bench, step

__all__ = ["bench", "loader"]  # fixtures


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
