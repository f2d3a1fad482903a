"""Rows of several sessions in one frame: what leaves is what arrives."""

from dataclasses import replace

import numpy as np

from swisd.core.events import FrameArrived
from swisd.core.rows import Activation, KvRows
from swisd.core.types import Slot
from swisd.node.company import companies, joined, parted
from swisd.node.rows import arrived, frame_of
from swisd.wire.frames import MAX_SLOTS, decode, encode

ANN = "1" * 16
WIDTH = 6


def rows(number: int, *, count: int = 1, stage: int = 1, epoch: int = 7) -> Activation:
    slot = Slot(f"{number:016x}", number + 3, number, count, 1)
    payload = np.full((count, WIDTH), number, np.float32)
    return Activation(epoch, 0, stage, (slot,), count, payload)


def test_rows_that_go_the_same_way_share_a_frame_in_their_order() -> None:
    kv = KvRows(7, "a" * 16, (1, 2), 0, 1, np.zeros((1, 1, 4), np.float32))
    sent = [rows(0), rows(1), rows(2, count=3), rows(3), rows(4, stage=2), kv, kv, rows(5), rows(6, epoch=8)]
    shared = companies(sent)
    assert [len(part) for part in shared] == [2, 1, 1, 1, 1, 1, 1, 1]
    assert [item for part in shared for item in part] == sent
    assert [len(part) for part in companies([rows(n) for n in range(MAX_SLOTS + 2)])] == [MAX_SLOTS, 2]


def test_each_arrives_as_a_step_of_its_own() -> None:
    sent = [rows(number) for number in range(5)]
    frame = decode(b"".join(encode(frame_of(joined(sent), ANN))))
    came = [event.activation for event in arrived(ANN, frame) if isinstance(event, FrameArrived)]
    assert [(item.slots, item.rows, item.epoch, item.stage) for item in came] == [
        (item.slots, 1, 7, 1) for item in sent
    ]
    for item, was in zip(came, sent, strict=True):
        assert np.array_equal(np.frombuffer(item.payload, "<f4").reshape(1, WIDTH), was.payload)


def test_rows_of_one_alone_are_left_as_they_are() -> None:
    alone = rows(1, count=4)
    assert joined([alone]) is alone and parted(alone) == [alone]


def test_steps_of_one_session_that_is_brought_back_share_a_frame() -> None:
    again = [replace(rows(1), slots=(Slot("a" * 16, 5 + n, n, 1, 0),)) for n in range(4)]
    (company,) = companies(again)
    frame = decode(b"".join(encode(frame_of(joined(company), ANN))))
    came = [event.activation for event in arrived(ANN, frame) if isinstance(event, FrameArrived)]
    assert [item.slots for item in came] == [item.slots for item in again]


def test_rows_that_are_not_what_their_slots_say_mean_nothing() -> None:
    slots = (Slot(ANN, 0, 0, 1, 1), Slot("2" * 16, 0, 0, 2, 1))
    activation = Activation(7, 0, 1, slots, 2, np.zeros((2, WIDTH), np.float32))
    assert parted(activation) == []
