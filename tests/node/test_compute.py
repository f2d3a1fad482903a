"""The compute thread: whatever happens in it comes back as an event."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.core.effects import GiveUp, LoadShards, RunStep
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
from swisd.core.rows import Activation, Sample, Score, Work
from swisd.core.types import SamplingParams, Slot, Units
from swisd.runtime import fake, probe, shard
from swisd.runtime.fake import FakeShard, fake_manifest
from swisd.runtime.kv import KvStore
from tests.node.fakes import MIB, Promptly, install_runtime

MANIFEST = fake_manifest(layers=4, context=128)
SESSION = "ab" * 8
MODEL = "aa" * 32
FIRST, SECOND, ALL = (0, 3), (3, 6), (0, 6)
WHOLE = LoadShards(7, MODEL, (ALL,), (), 128)
HALVES = LoadShards(8, MODEL, (FIRST, SECOND), (), 128)
GREEDY = Sample(SamplingParams(), 0, 3, ())


class Bench:
    """A compute thread and the events that came of it."""

    def __init__(self, folder: Path) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.compute = Promptly(folder / "blobs", folder / "scratch", (4, 2), self._take)

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            self.events.put_nowait(event)

    def load(self, effect: LoadShards) -> None:
        self.compute.make_room(effect, MANIFEST)
        self.compute.load(effect, MANIFEST)

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


def step(
    payload: Any, *, number: int = 0, stage: int = 0, units: Units = ALL, rows: int = 3, **head: Any
) -> RunStep:
    slot = Slot(SESSION, number, number and number + 2, rows, 1)
    rows_in = Activation(7, 0, stage, (slot,), rows, payload)
    return RunStep(Work(7, stage, SESSION, number), units, rows_in, **head)


async def test_a_whole_model_loads_and_answers(bench: Bench) -> None:
    bench.load(WHOLE)
    assert await bench.next() == ShardsLoaded(7, (ALL,), 6 * MIB)
    assert bench.compute.resident_bytes == 6 * MIB
    bench.compute.run(step((1, 2, 3), sample=GREEDY))
    done = await bench.next()
    assert isinstance(done, StepDone) and done.work == Work(7, 0, SESSION, 0)
    lone = FakeShard(MANIFEST, 0, 6, store=KvStore(MANIFEST, 128))
    logits = lone.run([Slot(SESSION, 0, 0, 3, 1)], np.array([1, 2, 3]))
    assert done.token == int(logits[-1].argmax()) and done.payload is None and done.compute_ms >= 0
    assert bench.compute.kv_bytes > 0
    bench.compute.run(step((1, 2, 3), score=Score(2, (None,)), number=0))
    assert isinstance(again := await bench.next(), StepDone) and again.scores is not None
    assert len(again.scores.top_ids[0]) == 2


async def test_who_computes_does_not_wake_the_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would lose Python's lock to the loop, and a pass that is to begin would wait for that."""
    loop, names = asyncio.get_running_loop(), set[str]()
    wake = loop.call_soon_threadsafe

    def noted(*arguments: Any, **options: Any) -> Any:
        names.add(threading.current_thread().name)
        return wake(*arguments, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", noted)
    bench.load(WHOLE)
    assert isinstance(await bench.next(), ShardsLoaded)
    bench.compute.run(step((1, 2, 3), sample=GREEDY))
    assert isinstance(await bench.next(), StepDone)
    assert names == {"tell"}


async def test_rows_travel_as_arrays_and_as_the_bytes_of_a_frame(bench: Bench) -> None:
    bench.load(HALVES)
    assert isinstance(await bench.next(), ShardsLoaded)
    tokens = []
    for form in ("array", "bytes"):
        bench.compute.run(step((1, 2, 3), units=FIRST))
        first = await bench.next()
        assert isinstance(first, StepDone) and first.rows == 3 and first.token is None
        rows = first.payload if form == "array" else memoryview(first.payload.tobytes())
        bench.compute.run(step(rows, stage=1, units=SECOND, sample=GREEDY))
        second = await bench.next()
        assert isinstance(second, StepDone)
        tokens.append(second.token)
    assert tokens[0] == tokens[1] is not None


@pytest.mark.parametrize(
    "payload", [b"", b"odd", bytes(4), bytes(4 * 16 * 4), np.zeros((3, 5), np.float32), None, "text"]
)
async def test_rows_that_do_not_fit_fail_their_step_and_no_other(bench: Bench, payload: Any) -> None:
    bench.load(HALVES)
    await bench.next()
    bench.compute.run(step(payload, stage=1, units=SECOND))
    failed = await bench.next()
    assert isinstance(failed, StepFailed) and failed.work == Work(7, 1, SESSION, 0) and failed.reason
    bench.compute.run(step((1, 2, 3), units=FIRST))
    assert isinstance(await bench.next(), StepDone)


async def test_a_shard_that_is_not_loaded_is_a_failed_step(bench: Bench) -> None:
    bench.compute.run(step((1, 2, 3)))
    assert await bench.next() == StepFailed(Work(7, 0, SESSION, 0), "units 0 to 6 are not loaded")


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

    bench.load(WHOLE)
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
        bench.load(HALVES)
        event = await bench.next()
        assert isinstance(event, LoadFailed) and event.epoch == 8 and said in event.reason
    bench.load(WHOLE)
    assert isinstance(await bench.next(), ShardsLoaded)


async def test_what_a_session_holds_is_freed_by_drop_and_with_its_units(bench: Bench) -> None:
    bench.load(WHOLE)
    await bench.next()
    for free in (lambda: bench.compute.drop(SESSION), lambda: bench.compute.keep(())):
        bench.compute.run(step((1, 2, 3)))
        assert isinstance(await bench.next(), StepDone)
        assert bench.compute.kv_bytes > 0
        free()
        bench.compute.run(step((), units=(9, 10)))  # an answer to wait for
        await bench.next()
        assert bench.compute.kv_bytes == 0
    assert bench.compute.resident_bytes == 0


async def test_measuring_gives_a_profile(bench: Bench) -> None:
    bench.compute.measure(MANIFEST, "aa" * 32, MIB)
    event = await bench.next()
    assert isinstance(event, Measured) and event.profile.model == "aa" * 32 and event.profile.layer_ms == 1.0


async def test_shards_are_loaded_with_the_threads_that_were_found_best(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    load = FakeShard.load

    def noted(*arguments: Any, threads: int, **more: Any) -> FakeShard:
        loaded.append(threads)
        return load(*arguments, threads=threads, **more)

    monkeypatch.setattr(shard.Shard, "load", noted)

    async def load_again() -> None:
        bench.compute.keep(())
        bench.load(WHOLE)
        assert isinstance(await bench.next(), ShardsLoaded)

    await load_again()
    bench.compute.measure(MANIFEST, MODEL, MIB)  # the stand-in finds the fewest best
    event = await bench.next()
    assert isinstance(event, Measured) and event.profile.threads == 2
    await load_again()
    bench.compute.use_threads(1)  # as was measured another time
    await load_again()
    assert loaded == [4, 2, 1]


async def test_steps_that_wait_when_the_device_leaves_are_dropped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.load(WHOLE)
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
    bench.load(HALVES)
    bench.compute.keep(())
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
    for name in ("load", "run", "close"):
        assert callable(getattr(fake.FakeShard, name)) and callable(getattr(shard.Shard, name))


async def test_steps_that_were_given_up_do_not_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait behind a step that runs; what is asked for afterwards runs."""
    entered, go_on = threading.Event(), threading.Event()
    right = FakeShard.run

    def held_up(self: FakeShard, *arguments: Any) -> Any:
        entered.set()
        assert go_on.wait(20)
        return right(self, *arguments)

    bench.load(WHOLE)
    assert isinstance(await bench.next(), ShardsLoaded)
    monkeypatch.setattr(FakeShard, "run", held_up)
    bench.compute.run(step((1, 2, 3)))
    assert await asyncio.to_thread(entered.wait, 20)
    bench.compute.run(step((4,), number=1, rows=1))
    bench.compute.give_up(GiveUp(SESSION, 7, 2))
    again = Activation(7, 0, 0, (Slot(SESSION, 2, 3, 1, 1),), 1, (4,))
    bench.compute.run(RunStep(Work(7, 0, SESSION, 2), ALL, again))
    go_on.set()
    done = [await bench.next(), await bench.next()]
    assert [item.work.step for item in done if isinstance(item, StepDone)] == [0, 2]


def row(session: str, number: int, token: int, **head: Any) -> RunStep:
    slot = Slot(session, number, number + 2, 1, 1)
    return RunStep(
        Work(7, 0, session, number),
        ALL,
        Activation(7, 0, 0, (slot,), 1, (token,)),
        GREEDY,
        together=16,
        **head,
    )


def prompt(session: str) -> RunStep:
    slot = Slot(session, 0, 0, 3, 1)
    return RunStep(Work(7, 0, session, 0), ALL, Activation(7, 0, 0, (slot,), 3, (1, 2, 3)), GREEDY)


async def test_steps_that_come_together_share_a_pass_and_each_has_its_answer(bench: Bench) -> None:
    bench.load(WHOLE)
    await bench.next()
    sessions = [f"{number:016x}" for number in range(5)]
    lone = FakeShard(MANIFEST, 0, 6, store=KvStore(MANIFEST, 128))
    for session in sessions:
        bench.compute.run(prompt(session))
        lone.run([Slot(session, 0, 0, 3, 1)], np.array([1, 2, 3]))
    bench.compute.flush()
    for _ in sessions:
        assert isinstance(await bench.next(), StepDone)
    for number, session in enumerate(sessions):
        bench.compute.run(row(session, 1, 10 + number))
    bench.compute.flush()
    for number, session in enumerate(sessions):
        done = await bench.next()
        assert isinstance(done, StepDone) and done.work.session == session and done.shared == 5
        logits = lone.run([Slot(session, 1, 3, 1, 1)], np.array([10 + number]))
        assert done.token == int(logits[-1].argmax())


async def test_rows_of_one_session_share_a_pass_and_each_has_its_answer(bench: Bench) -> None:
    bench.load(WHOLE)
    await bench.next()
    session, tokens = "a" * 16, (10, 11, 12, 13)
    lone = FakeShard(MANIFEST, 0, 6, store=KvStore(MANIFEST, 128))
    bench.compute.run(prompt(session))
    lone.run([Slot(session, 0, 0, 3, 1)], np.array([1, 2, 3]))
    assert isinstance(await bench.next(), StepDone)
    for _ in range(2):  # the second time the session goes back
        for number, token in enumerate(tokens, 1):
            bench.compute.run(row(session, number, token))
        bench.compute.flush()
        for number, token in enumerate(tokens, 1):
            done = await bench.next()
            assert isinstance(done, StepDone) and done.work.step == number and done.shared == len(tokens)
            logits = lone.run([Slot(session, number, number + 2, 1, 1)], np.array([token]))
            assert done.token == int(logits[-1].argmax())


async def test_rows_behind_one_that_fails_fail_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before it have their answers: they run once more, each alone and in order."""
    bench.load(WHOLE)
    await bench.next()
    session = "a" * 16
    bench.compute.run(prompt(session))
    assert isinstance(await bench.next(), StepDone)
    run = FakeShard.run

    def fails(self: FakeShard, slots: Any, x: Any) -> Any:
        found = run(self, slots, x)
        if any(slot.step == 3 for slot in slots):
            self.store.write(session, (1, 5), 4, self.store.read(session, (1, 5), 4, 1))  # as if not run
            raise ModelError("a bad row")
        return found

    monkeypatch.setattr(FakeShard, "run", fails)
    for number in (1, 2, 3, 4, 5):
        bench.compute.run(row(session, number, 10 + number))
    bench.compute.flush()
    events = [await bench.next() for _ in range(5)]
    assert [type(event) for event in events] == [StepDone] * 2 + [StepFailed] * 3
    assert [event.work.step for event in events if isinstance(event, StepDone | StepFailed)] == [
        1,
        2,
        3,
        4,
        5,
    ]
    lone = FakeShard(MANIFEST, 0, 6, store=KvStore(MANIFEST, 128))
    run(lone, [Slot(session, 0, 0, 3, 1)], np.array([1, 2, 3]))
    for event in events[:2]:
        assert isinstance(event, StepDone) and event.shared == 1
        number = event.work.step
        logits = run(lone, [Slot(session, number, number + 2, 1, 1)], np.array([10 + number]))
        assert event.token == int(logits[-1].argmax())


async def test_one_that_fails_does_not_take_the_others_with_it(bench: Bench) -> None:
    bench.load(WHOLE)
    await bench.next()
    bench.compute.run(prompt("a" * 16))
    await bench.next()
    bench.compute.run(row("a" * 16, 1, 5))
    bench.compute.run(row("b" * 16, 1, 5))  # it has no rows before
    bench.compute.flush()
    events = [await bench.next(), await bench.next()]
    assert [type(event) for event in events] == [StepDone, StepFailed]


async def test_a_long_prompt_lets_others_through(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.load(WHOLE)
    await bench.next()
    bench.compute.run(prompt("a" * 16))
    await bench.next()
    gate, began = threading.Event(), threading.Event()
    real = FakeShard.run

    def slowly(self: FakeShard, slots: Any, x: Any) -> Any:
        if slots[0].rows > 1:
            began.set()
            assert gate.wait(20)
        return real(self, slots, x)

    bench.compute.run(row("a" * 16, 1, 5))
    assert isinstance(await bench.next(), StepDone)  # somebody gets tokens at the moment
    monkeypatch.setattr(FakeShard, "run", slowly)
    slot = Slot("b" * 16, 0, 0, 100, 1)
    ids = tuple(range(1, 51)) * 2
    bench.compute.run(RunStep(Work(7, 0, "b" * 16, 0), ALL, Activation(7, 0, 0, (slot,), 100, ids), GREEDY))
    bench.compute.flush()
    await asyncio.to_thread(began.wait, 20)
    bench.compute.run(row("a" * 16, 2, 6))
    bench.compute.flush()
    gate.set()
    first, second = await bench.next(), await bench.next()
    assert isinstance(first, StepDone) and first.work.session == "a" * 16
    assert isinstance(second, StepDone) and second.work.session == "b" * 16
    lone = FakeShard(MANIFEST, 0, 6, store=KvStore(MANIFEST, 128))
    assert second.token == int(real(lone, [slot], np.array(ids))[-1].argmax())
