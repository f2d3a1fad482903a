"""Rows to the other devices: in order, never blocking, every loss reported."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from swisd.core.rows import Activation, KvRows
from swisd.core.types import Slot
from swisd.node.company import Sent
from swisd.node.outgoing import QUEUE, Outgoing
from swisd.transport.api import LaneDown, Probe
from swisd.wire.frames import Frame, FrameKind
from tests.node.conftest import Until

ME, ANN, BOB = "11" * 8, "22" * 8, "33" * 8


class Lanes:
    """Lanes that keep what is sent; a device can be shut, or slow until `go` is set."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.shut: dict[str, Exception] = {}
        self.slow: set[str] = set()
        self.open: set[str] = set()  # devices that take frames at once
        self.go = asyncio.Event()

    async def send(self, device: str, frame: Frame) -> None:
        if device in self.slow:
            await self.go.wait()
        if device in self.shut:
            raise self.shut[device]
        self.sent.append((device, frame.slots[0].step))

    def try_send(self, device: str, frame: Frame) -> bool:
        if device in self.open:
            self.sent.append((device, frame.slots[0].step))
        return device in self.open

    async def probe(self, device: str, payload_bytes: int, count: int) -> Probe:
        raise NotImplementedError

    async def close(self) -> None: ...


class Promptly(Outgoing):
    """Flushed a turn of the loop later, if not before."""

    def send(self, device: str, rows: Sent) -> None:
        super().send(device, rows)
        asyncio.get_running_loop().call_soon(self.flush)


class Sender:
    def __init__(self) -> None:
        self.lanes = Lanes()
        self.lost: list[tuple[str, int, str]] = []
        self.outgoing = Promptly(self.lanes, ME, self._failed)

    def _failed(self, device: str, rows: Sent, reason: str) -> None:
        self.lost.append((device, rows.slots[0].step if isinstance(rows, Activation) else -1, reason))

    def send(self, device: str, step: int) -> None:
        self.outgoing.send(device, rows(step))


def rows(step: int = 0, payload: Any = None) -> Activation:
    values = np.arange(8, dtype=np.float32).reshape(2, 4) if payload is None else payload
    return Activation(3, 0, 1, (Slot("ab" * 8, step, 5, 2, 1),), 2, values)


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    made = Sender()
    yield made
    await made.outgoing.close()


async def test_each_device_gets_its_rows_in_order(sender: Sender, until: Until) -> None:
    for step in range(50):
        sender.send(ANN, step)
        sender.send(BOB, step)
    await until(lambda: len(sender.lanes.sent) == 100)
    for device in (ANN, BOB):
        assert [step for to, step in sender.lanes.sent if to == device] == list(range(50))


async def test_a_slow_device_holds_up_nobody_else_and_its_queue_has_an_end(
    sender: Sender, until: Until
) -> None:
    sender.lanes.slow.add(ANN)
    sender.send(ANN, 0)
    await asyncio.sleep(0)  # its task takes the first
    for step in range(1, QUEUE + 3):
        sender.send(ANN, step)
    sender.send(BOB, 0)
    await until(lambda: sender.lanes.sent == [(BOB, 0)])
    assert [(device, step) for device, step, _ in sender.lost] == [(ANN, QUEUE + 1), (ANN, QUEUE + 2)]
    assert str(QUEUE) in sender.lost[0][2]
    sender.lanes.go.set()
    await until(lambda: len(sender.lanes.sent) == QUEUE + 2)


@pytest.mark.parametrize(
    "error",
    [LaneDown(ANN, "the cable is out"), ValueError("a frame of 70000000 bytes is longer"), TypeError("x")],
)
async def test_what_cannot_be_sent_is_reported_and_the_next_rows_go(
    sender: Sender, until: Until, error: Exception
) -> None:
    sender.lanes.shut[ANN] = error
    sender.send(ANN, 0)
    await until(lambda: sender.lost)
    device, step, reason = sender.lost[0]
    assert (device, step) == (ANN, 0) and (getattr(error, "reason", None) or str(error)) in reason
    del sender.lanes.shut[ANN]
    sender.send(ANN, 1)
    await until(lambda: sender.lanes.sent == [(ANN, 1)])


async def test_rows_that_make_no_frame_are_reported(sender: Sender, until: Until) -> None:
    wide = np.zeros((2, 8), np.float32)[:, ::2]  # not in one piece
    sender.outgoing.send(ANN, rows(4, wide))
    sender.outgoing.send(ANN, rows(5, None))
    await until(lambda: sender.lanes.sent == [(ANN, 5)])
    assert [(device, step) for device, step, _ in sender.lost] == [(ANN, 4)]


async def test_closing_stops_what_is_under_way(sender: Sender) -> None:
    sender.lanes.slow.add(ANN)
    sender.send(ANN, 0)
    await asyncio.sleep(0)
    await sender.outgoing.close()
    sender.lanes.go.set()
    await asyncio.sleep(0)
    assert sender.lanes.sent == [] and sender.lost == []


async def test_keys_and_values_keep_their_place_among_rows(sender: Sender, until: Until) -> None:
    kv = KvRows(3, "ab" * 8, (1, 3), 0, 2, np.zeros((2, 2, 8), np.float32))
    kinds: list[FrameKind] = []

    async def send(device: str, frame: Frame) -> None:
        await sender.lanes.go.wait()
        kinds.append(frame.kind)

    sender.lanes.send = send  # type: ignore[method-assign]
    for rows_of in (rows(0), kv, rows(1), replace(kv, rows=0), kv):
        sender.outgoing.send(ANN, rows_of)
    sender.lanes.go.set()
    await until(lambda: len(kinds) == 4)
    assert kinds == [FrameKind.ACTIVATION, FrameKind.KV, FrameKind.ACTIVATION, FrameKind.KV]
    (lost,) = sender.lost
    assert lost[0] == ANN and "make no frame" in lost[2]


async def test_rows_that_can_go_at_once_do_not_overtake_those_that_wait(until: Until) -> None:
    sender = Sender()
    sender.lanes.open = {ANN}
    sender.send(ANN, 0)
    sender.outgoing.flush()
    assert sender.lanes.sent == [(ANN, 0)]  # without a turn of the loop
    sender.lanes.open = set()
    sender.lanes.slow = {ANN}
    sender.send(ANN, 1)
    sender.outgoing.flush()
    await asyncio.sleep(0)  # the task has it in hand
    sender.lanes.open = {ANN}
    sender.send(ANN, 2)
    sender.lanes.go.set()
    await until(lambda: len(sender.lanes.sent) == 3)
    assert sender.lanes.sent == [(ANN, 0), (ANN, 1), (ANN, 2)]
    await sender.outgoing.close()
