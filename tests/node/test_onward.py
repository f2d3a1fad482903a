"""Rows that the computing thread sends on before the machine hears of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from swisd.core.effects import RunStep
from swisd.core.events import Event, StepDone, StepFailed
from swisd.core.rows import Activation, Work
from swisd.core.types import Slot
from swisd.node.hops import HopTimes
from swisd.node.onward import Onward
from swisd.node.rows import activation_of
from swisd.node.stepping import Stepping
from swisd.transport.api import Probe
from swisd.wire.frames import Frame, decode
from tests.node.test_foreseen import Shards

ME, ANN, BOB = "11" * 8, "22" * 8, "33" * 8
A, B = "a" * 16, "b" * 16


class Lanes:
    """Take frames from any thread while they are open."""

    def __init__(self) -> None:
        self.open = True
        self.sent: list[tuple[str, Activation]] = []

    def try_send_threadsafe(self, device: str, buffers: list[memoryview], size: int) -> bool:
        data = b"".join(buffers)
        assert len(data) == size
        if self.open:
            self.sent.append((device, activation_of(decode(data))))
        return self.open

    async def send(self, device: str, frame: Frame) -> None:
        raise NotImplementedError

    def try_send(self, device: str, frame: Frame) -> bool:
        raise NotImplementedError

    async def probe(self, device: str, payload_bytes: int, count: int) -> Probe:
        raise NotImplementedError

    async def close(self) -> None: ...


class Desk:
    def __init__(self) -> None:
        self.lanes, self.times = Lanes(), HopTimes()
        self.waiting: set[str] = set()
        self.onward = Onward(self.lanes, ME, lambda device: device not in self.waiting, self.times)

    def send(self, *pairs: tuple[RunStep, Event]) -> Sequence[Event]:
        return self.onward.send([effect for effect, _ in pairs], [event for _, event in pairs])


def made(session: str = A, number: int = 4, *, rows: int = 1, to: str = ANN) -> tuple[RunStep, StepDone]:
    """A step and what came of it: its number, in each value."""
    slot = Slot(session, number, number, rows, 1)
    work = Work(7, 1, session, number)
    step = RunStep(work, (2, 4), Activation(7, 0, 1, (slot,), rows, None, spent_ms=2.0), onward=to)
    return step, StepDone(work, rows, np.full((rows, 8), number, np.float32), 1.5, ran_ms=1.0)


def test_rows_go_on_and_the_machine_learns_that_they_did() -> None:
    desk = Desk()
    step, done = made()
    (event,) = desk.send((step, done))
    assert isinstance(event, StepDone) and event.sent and event.work == done.work
    ((device, rows),) = desk.lanes.sent
    assert device == ANN and bytes(rows.payload) == done.payload.tobytes()
    expected = step.activation.onward(1, rows.payload, 1.0)
    assert rows == expected and (rows.stage, rows.spent_ms) == (2, 3.0)
    assert desk.times.parts().wait_ms == 0.0 and desk.times.parts().serialise_ms > 0.0


def test_a_frame_that_was_made_ready_is_the_one_that_is_sent() -> None:
    desk = Desk()
    step, done = made()
    desk.onward.prepare(step, 8)
    (event,) = desk.send((step, done))
    assert isinstance(event, StepDone) and event.sent
    assert desk.lanes.sent == [(ANN, step.activation.onward(1, done.payload.tobytes(), 1.0))]
    desk.send(made(number=5))  # once
    assert [rows.slots[0].step for _, rows in desk.lanes.sent] == [4, 5]


@pytest.mark.parametrize("why", ["another", "two", "wider", "shape", "nowhere"])
def test_a_frame_that_was_made_ready_is_for_its_row_alone(why: str) -> None:
    desk = Desk()
    step, done = made()
    prepared = replace(step, onward="" if why == "nowhere" else ANN)
    desk.onward.prepare(prepared, 4 if why == "wider" else 8)
    if why == "shape":
        done = replace(done, payload=done.payload.repeat(2, axis=1)[:, ::2])
    pairs = {"another": [made(B, 9)], "two": [(step, done), made(B, 9)]}.get(why, [(step, done)])
    events = desk.send(*pairs)
    assert len(desk.lanes.sent) == (0 if why in ("wider", "shape") else 1)
    for event, (_, before) in zip(events, pairs, strict=True):
        assert event == replace(before, sent=why not in ("wider", "shape"))


def test_rows_that_ran_in_one_pass_share_a_frame() -> None:
    desk = Desk()
    events = desk.send(made(A), made(B, 9))
    assert [isinstance(event, StepDone) and event.sent for event in events] == [True, True]
    ((_, rows),) = desk.lanes.sent
    assert [(slot.session, slot.step) for slot in rows.slots] == [(A, 4), (B, 9)]
    assert np.frombuffer(rows.payload, np.float32).reshape(2, 8)[:, 0].tolist() == [4.0, 9.0]


@pytest.mark.parametrize("why", ["own", "waits", "lane", "apart", "failed", "shape"])
def test_what_cannot_go_at_once_is_left_to_the_machine(why: str) -> None:
    desk = Desk()
    step, done = made()
    pairs: list[tuple[RunStep, Event]] = [(step, done)]
    if why == "own":
        pairs = [(replace(step, onward=""), done)]
    elif why == "waits":
        desk.waiting.add(ANN)
    elif why == "lane":
        desk.lanes.open = False
    elif why == "apart":
        pairs.append(made(B, to=BOB))
    elif why == "failed":
        pairs = [(step, StepFailed(step.work, "no memory"))]
    else:
        pairs = [(step, replace(done, payload=done.payload[:, ::2]))]  # not in one piece
    assert desk.send(*pairs) == [event for _, event in pairs]
    assert desk.lanes.sent == []


def test_rows_do_not_overtake_those_that_the_loop_is_told_of() -> None:
    """While the loop has something to send, and nobody knows yet, all goes by the loop."""
    desk = Desk()
    shards, told = Shards(2), list[Event]()
    stepping = Stepping(shards, HopTimes(), lambda *events: told.extend(events))  # type: ignore[arg-type]
    stepping.onward = desk.onward

    def run(position: int) -> bool:
        slot = Slot(A, position, position, 1, 1)
        rows = Activation(7, 0, 0, (slot,), 1, (5,))
        stepping.line.add(RunStep(Work(7, 0, A, position), (0, 2), rows, onward=ANN), 0)
        stepping.take(0)
        event = told[-1]
        assert isinstance(event, StepDone)
        return event.sent

    desk.lanes.open = False
    assert not run(0)
    desk.lanes.open = True
    assert not run(1)
    stepping.heard += 1
    assert not run(2)  # the one before is under way
    stepping.heard += 2
    assert run(3)
    stepping.heard += 1
    assert run(4) and [rows.slots[0].step for _, rows in desk.lanes.sent] == [3, 4]
