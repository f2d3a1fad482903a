"""Rows that run when they arrive, before the machine asks for them: told once it does, else forgotten."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.core.effects import LoadShards, RunStep
from swisd.core.events import Event, LoadProgress, ShardsLoaded, StepDone, StepFailed
from swisd.core.rows import Activation, Following, Sample, Work
from swisd.core.types import SamplingParams, Slot
from swisd.node.compute import Compute
from swisd.runtime.fake import FakeShard
from tests.node.fakes import install_runtime
from tests.node.test_foreseen import MANIFEST
from tests.node.test_foreseen import Desk as Line

A, B = "a" * 16, "b" * 16
ANN = "22" * 8
UNITS = (2, 4)


class Onward:
    """Says of all rows that they are sent, and keeps them."""

    def __init__(self) -> None:
        self.sent: list[Event] = []

    def send(self, effects: Sequence[RunStep], events: Sequence[Event]) -> Sequence[Event]:
        sent = [replace(event, sent=True) if isinstance(event, StepDone) else event for event in events]
        self.sent += [event for event in sent if isinstance(event, StepDone)]
        return sent


class Desk(Line):
    """The second of three shards, whose rows go on."""

    def __init__(self) -> None:
        super().__init__(2, 4)
        self.onward = Onward()
        self.stepping.onward = self.onward  # type: ignore[assignment]

    def begin(self, step: RunStep) -> None:
        self.stepping.coming = step
        self.stepping.begin()


def a_step(position: int, session: str = A, *, value: float = 1.0, units: tuple[int, int] = UNITS) -> RunStep:
    slot = Slot(session, position, position, 1, 1)
    payload = np.full((1, MANIFEST.hidden), value + position, np.float32).tobytes()
    return RunStep(Work(7, 1, session, position), units, Activation(7, 0, 1, (slot,), 1, payload), onward=ANN)


def payloads(events: Sequence[Event]) -> list[bytes]:
    return [event.payload.tobytes() for event in events if isinstance(event, StepDone)]


def asked_as_ever() -> list[bytes]:
    desk = Desk()
    return [payload for position in range(3) for payload in payloads(desk.run(a_step(position)))]


def test_a_row_runs_and_goes_on_before_it_is_asked_for() -> None:
    desk, right = Desk(), asked_as_ever()
    assert payloads(desk.run(a_step(0))) == right[:1]
    for position in (1, 2):
        step = a_step(position)
        desk.begin(step)
        assert desk.passes[-1] == {A: position} and len(desk.onward.sent) == position + 1
        assert len(desk.told) == position  # not yet
        (done,) = desk.run(replace(step, together=3))
        assert isinstance(done, StepDone) and done.sent and done.work == step.work
        assert payloads([done]) == right[position : position + 1] and len(desk.passes) == position + 1


def interrupted(desk: Desk) -> None:
    desk.stepping.interrupt()


def another(desk: Desk) -> None:
    desk.run(a_step(0, B))


@pytest.mark.parametrize("between", [interrupted, another])
def test_what_ran_early_is_forgotten_once_something_else_is_done(between: Callable[[Desk], None]) -> None:
    desk, right = Desk(), asked_as_ever()
    desk.run(a_step(0))
    desk.begin(step := a_step(1))
    between(desk)
    assert payloads(desk.run(step)) == right[1:2]  # the same bits
    assert [one for one in desk.passes if A in one] == [{A: 0}, {A: 1}, {A: 1}]
    assert payloads(desk.run(a_step(2))) == right[2:]


def test_another_frame_of_the_same_step_runs_anew() -> None:
    desk = Desk()
    desk.run(a_step(0))
    desk.begin(a_step(1, value=5.0))
    assert payloads(desk.run(a_step(1))) == asked_as_ever()[1:2]
    assert desk.passes == [{A: 0}, {A: 1}, {A: 1}]


def test_a_row_does_not_run_early_while_others_wait() -> None:
    desk = Desk()
    desk.run(a_step(0), a_step(0, B))
    desk.stepping.line.add(a_step(1, B), 0)
    ran = len(desk.passes)
    desk.begin(a_step(1))
    assert len(desk.passes) == ran


def test_the_head_says_its_token_once_it_is_asked_and_goes_on() -> None:
    desk = Line(2)
    slot, following = Slot(A, 0, 0, 1, 1), Following((0, 2), ())
    desk.run(RunStep(Work(7, 0, A, 0), (0, 2), Activation(7, 0, 0, (slot,), 1, (5,))))
    desk.passes.clear()
    desk.told.clear()
    rows = Activation(7, 0, 1, (slot,), 1, np.ones((1, MANIFEST.hidden), np.float32).tobytes())
    sample = Sample(SamplingParams(), 0, 1, ())
    step = RunStep(Work(7, 1, A, 0), (2, 6), rows, sample)
    assert desk.stepping.run_early(step)  # nothing waits to be sent
    assert desk.passes == [{A: 0}] and desk.told == []
    (done,) = desk.run(replace(step, following=following))
    assert isinstance(done, StepDone) and done.token is not None
    assert desk.passes == [{A: 0}, {A: 1}]  # the token's row through the first stage, already
    fed = Activation(7, 0, 0, (Slot(A, 1, 1, 1, 1),), 1, (done.token,))
    desk.run(RunStep(Work(7, 0, A, 1), (0, 2), fed))
    assert len(desk.passes) == 2


def test_a_head_that_is_asked_to_answer_otherwise_runs_anew() -> None:
    desk = Line(2)
    rows = Activation(7, 0, 1, (Slot(A, 0, 0, 1, 1),), 1, np.ones((1, MANIFEST.hidden), np.float32).tobytes())
    step = RunStep(Work(7, 1, A, 0), (2, 6), rows, Sample(SamplingParams(), 0, 1, ()))
    desk.stepping.run_early(step)
    desk.run(replace(step, sample=Sample(SamplingParams(temperature=1.0), 5, 1, ())))
    assert desk.passes == [{A: 0}, {A: 0}]


def test_rows_that_no_lane_took_are_in_a_hurry() -> None:
    desk = Desk()
    desk.run(a_step(0))
    desk.stepping.coming = a_step(1)
    assert desk.stepping.begin()
    desk.run(a_step(1))
    desk.stepping.onward = None
    desk.stepping.coming = step = a_step(2)
    assert not desk.stepping.begin()
    (done,) = desk.run(step)
    assert isinstance(done, StepDone) and not done.sent
    assert desk.stepping.begin()  # nothing is coming


def test_an_early_row_that_fails_is_told_when_it_is_asked_for() -> None:
    desk = Desk()
    for step in (a_step(0, units=(8, 9)), a_step(3)):  # no such shard; rows before it are missing
        desk.begin(step)
        (failed,) = desk.run(step)
        assert isinstance(failed, StepFailed) and failed.work == step.work
    assert desk.onward.sent == []


async def test_a_row_that_was_served_meanwhile_does_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while another's long prompt runs, and has its turn between two slices of that."""
    install_runtime(monkeypatch)
    events: asyncio.Queue[Event] = asyncio.Queue()
    compute = Compute(tmp_path, tmp_path / "scratch", (1,), lambda some: [*map(events.put_nowait, some)])
    compute.make_room(load := LoadShards(7, "aa" * 32, (UNITS,), (), 128), MANIFEST)
    compute.load(load, MANIFEST)
    passes: list[tuple[str, int]] = []
    in_slice, go = threading.Event(), threading.Event()
    run = FakeShard.run

    def noted(self: FakeShard, slots: Sequence[Any], x: Any) -> Any:
        passes.append((slots[0].session, slots[0].position))
        if passes[-1] == (B, 0):
            in_slice.set()
            assert go.wait(20)
        return run(self, slots, x)

    async def answer() -> Event:
        async with asyncio.timeout(20):
            while isinstance(event := await events.get(), LoadProgress):
                pass
            return event

    def ask(step: RunStep, *, expected: bool) -> None:
        if expected:
            compute.begin(step)
        compute.run(step)
        compute.flush()

    assert isinstance(await answer(), ShardsLoaded)
    monkeypatch.setattr(FakeShard, "run", noted)
    ask(a_step(0), expected=False)
    assert isinstance(await answer(), StepDone)
    slot = Slot(B, 0, 0, 100, 0)
    rows = Activation(7, 0, 1, (slot,), 100, np.ones((100, MANIFEST.hidden), np.float32).tobytes())
    ask(RunStep(Work(7, 1, B, 0), UNITS, rows), expected=False)
    assert await asyncio.to_thread(in_slice.wait, 20)
    ask(a_step(1), expected=True)
    go.set()
    sessions = [
        event.work.session for event in (await answer(), await answer()) if isinstance(event, StepDone)
    ]
    assert sessions == [A, B]
    ask(a_step(2), expected=True)
    assert isinstance(await answer(), StepDone)
    assert [position for session, position in passes if session == A] == [0, 1, 2]
    await compute.close()
