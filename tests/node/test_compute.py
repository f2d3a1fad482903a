"""The compute thread: whatever happens in it comes back as an event."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.core.effects import Activation, LoadShards, RunStep, Sample, Score, Work
from swisd.core.errors import ModelError
from swisd.core.events import (
    Event,
    LoadFailed,
    LoadProgress,
    Measured,
    MeasureFailed,
    ShardsLoaded,
    StepDone,
    StepFailed,
)
from swisd.core.types import SamplingParams, Slot
from swisd.node.compute import Compute
from swisd.runtime import fake, probe, shard
from swisd.runtime.fake import FakeShard, fake_manifest
from tests.node.fakes import MIB, install_runtime, stage

MANIFEST = fake_manifest(layers=4, context=128)
SESSION = "ab" * 8
WHOLE = LoadShards(7, "aa" * 32, ((0, stage(0, 6)),), 128)
HALVES = LoadShards(8, "aa" * 32, ((0, stage(0, 3)), (1, stage(3, 6))), 128)
GREEDY = Sample(SamplingParams(), 0, 3, ())


class Bench:
    """A compute thread and the events that came of it."""

    def __init__(self, folder: Path) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.compute = Compute(folder / "blobs", folder / "scratch", 1, self.events.put_nowait)

    async def next(self) -> Event:
        async with asyncio.timeout(20):
            while True:
                event = await self.events.get()
                if not isinstance(event, LoadProgress):
                    return event


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    install_runtime(monkeypatch)
    made = Bench(tmp_path)
    yield made
    await made.compute.close()


def step(payload: Any, *, number: int = 0, stage: int = 0, rows: int = 3, **head: Any) -> RunStep:
    slot = Slot(SESSION, number, number and number + 2, rows, 1)
    return RunStep(Work(7, stage, SESSION, number), Activation(7, 0, stage, (slot,), rows, payload), **head)


async def test_a_whole_model_loads_and_answers(bench: Bench) -> None:
    bench.compute.load(WHOLE, MANIFEST)
    assert await bench.next() == ShardsLoaded(7, 6 * MIB)
    bench.compute.run(step((1, 2, 3), sample=GREEDY))
    done = await bench.next()
    assert isinstance(done, StepDone) and done.work == Work(7, 0, SESSION, 0)
    lone = FakeShard(MANIFEST, 0, 6, max_tokens=128)
    logits = lone.run([Slot(SESSION, 0, 0, 3, 1)], np.array([1, 2, 3]))
    assert done.token == int(logits[-1].argmax()) and done.payload is None and done.compute_ms >= 0
    assert bench.compute.kv_bytes > 0
    bench.compute.run(step((1, 2, 3), score=Score(2, (None,)), number=0))
    assert isinstance(again := await bench.next(), StepDone) and again.scores is not None
    assert len(again.scores.top_ids[0]) == 2


async def test_rows_travel_as_arrays_and_as_the_bytes_of_a_frame(bench: Bench) -> None:
    bench.compute.load(HALVES, MANIFEST)
    assert isinstance(await bench.next(), ShardsLoaded)
    tokens = []
    for form in ("array", "bytes"):
        bench.compute.run(step((1, 2, 3)))
        first = await bench.next()
        assert isinstance(first, StepDone) and first.rows == 3 and first.token is None
        rows = first.payload if form == "array" else memoryview(first.payload.tobytes())
        bench.compute.run(step(rows, stage=1, sample=GREEDY))
        second = await bench.next()
        assert isinstance(second, StepDone)
        tokens.append(second.token)
    assert tokens[0] == tokens[1] is not None


@pytest.mark.parametrize(
    "payload", [b"", b"odd", bytes(4), bytes(4 * 16 * 4), np.zeros((3, 5), np.float32), None, "text"]
)
async def test_rows_that_do_not_fit_fail_their_step_and_no_other(bench: Bench, payload: Any) -> None:
    bench.compute.load(HALVES, MANIFEST)
    await bench.next()
    bench.compute.run(step(payload, stage=1))
    failed = await bench.next()
    assert isinstance(failed, StepFailed) and failed.work == Work(7, 1, SESSION, 0) and failed.reason
    bench.compute.run(step((1, 2, 3)))
    assert isinstance(await bench.next(), StepDone)


async def test_a_stage_that_is_not_loaded_is_a_failed_step(bench: Bench) -> None:
    bench.compute.run(step((1, 2, 3)))
    assert await bench.next() == StepFailed(Work(7, 0, SESSION, 0), "stage 0 is not loaded")


class Strange(Exception):
    """As the classes of ONNX Runtime's bindings: derived from nothing but `Exception`."""


@pytest.mark.parametrize(
    "error",
    [ModelError("the graph is bad"), MemoryError(), OSError(5, "I/O"), ValueError("v"), RuntimeError("r"),
     KeyError("k"), TypeError("t"), IndexError("i"), AttributeError("a"), ZeroDivisionError(), Strange("s"),
     AssertionError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_every_kind_of_exception_is_an_event(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    bench.compute.load(WHOLE, MANIFEST)
    await bench.next()
    said = "the graph is bad" if isinstance(error, ModelError) else type(error).__name__
    with monkeypatch.context() as patch:
        patch.setattr(FakeShard, "run", fails)
        bench.compute.run(step((1, 2, 3)))
        event = await bench.next()
        assert isinstance(event, StepFailed) and said in event.reason
        patch.setattr(probe, "probe", fails)
        bench.compute.measure(MANIFEST, "aa" * 32, MIB)
        event = await bench.next()
        assert isinstance(event, MeasureFailed) and event.model == "aa" * 32 and said in event.reason
        patch.setattr(FakeShard, "load", fails)
        bench.compute.load(HALVES, MANIFEST)
        event = await bench.next()
        assert isinstance(event, LoadFailed) and event.epoch == 8 and said in event.reason
    bench.compute.load(WHOLE, MANIFEST)
    assert isinstance(await bench.next(), ShardsLoaded)


async def test_half_a_plan_is_not_kept_in_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeShard] = []

    def load(manifest: Any, start: int, end: int, blobs: Path, **options: Any) -> FakeShard:
        if made:
            raise ModelError("no room")
        made.append(FakeShard(manifest, start, end, max_tokens=options["max_tokens"]))
        return made[0]

    monkeypatch.setattr(shard.Shard, "load", load)
    bench.compute.load(HALVES, MANIFEST)
    assert await bench.next() == LoadFailed(8, "no room")
    bench.compute.run(step((1, 2, 3)))
    assert await bench.next() == StepFailed(Work(7, 0, SESSION, 0), "stage 0 is not loaded")
    with pytest.raises(ModelError, match="closed"):
        made[0].run([], np.array([], np.int64))


async def test_what_a_session_holds_is_freed_by_drop_and_by_unload(bench: Bench) -> None:
    bench.compute.load(WHOLE, MANIFEST)
    await bench.next()
    for free in (lambda: bench.compute.drop(SESSION), bench.compute.unload):
        bench.compute.run(step((1, 2, 3)))
        assert isinstance(await bench.next(), StepDone)
        assert bench.compute.kv_bytes > 0
        free()
        bench.compute.run(step((), stage=9))  # an answer to wait for
        await bench.next()
        assert bench.compute.kv_bytes == 0


async def test_measuring_gives_a_profile(bench: Bench) -> None:
    bench.compute.measure(MANIFEST, "aa" * 32, MIB)
    event = await bench.next()
    assert isinstance(event, Measured) and event.profile.model == "aa" * 32 and event.profile.layer_ms == 1.0


async def test_steps_that_wait_when_the_device_leaves_are_dropped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.compute.load(WHOLE, MANIFEST)
    await bench.next()
    started, go, runs = threading.Event(), threading.Event(), []
    run = FakeShard.run

    def slow(self: FakeShard, *arguments: Any) -> Any:
        runs.append(1)
        started.set()
        assert go.wait(20)
        return run(self, *arguments)

    monkeypatch.setattr(FakeShard, "run", slow)
    for number in range(3):
        bench.compute.run(step((1,), number=number, rows=1))
    await asyncio.to_thread(started.wait, 20)
    closing = asyncio.create_task(bench.compute.close())
    await asyncio.sleep(0)
    go.set()
    await closing
    assert runs == [1]
    assert bench.events.empty()
    bench.compute.run(step((1,)))
    bench.compute.unload()
    await bench.compute.close()
    assert bench.events.empty()


async def test_a_computation_that_does_not_end_does_not_hold_up_leaving(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, started = threading.Event(), threading.Event()

    def stuck(*_: Any, **__: Any) -> Any:
        started.set()
        go.wait(20)

    monkeypatch.setattr("swisd.node.compute.CLOSE_S", 0.01)
    monkeypatch.setattr(probe, "probe", stuck)
    bench.compute.measure(MANIFEST, "aa" * 32, MIB)
    await asyncio.to_thread(started.wait, 20)
    await bench.compute.close()
    assert not go.is_set()
    go.set()


def test_the_fake_is_the_twin_of_the_real_shard() -> None:
    for name in ("load", "run", "drop", "close", "kv_bytes"):
        assert callable(getattr(fake.FakeShard, name)) and callable(getattr(shard.Shard, name))
