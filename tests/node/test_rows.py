"""Rows over the wire: the same on the other side, and nothing else is taken for rows."""

from dataclasses import replace

import numpy as np
import pytest

from swisd.core.events import FrameArrived, KvArrived
from swisd.core.rows import TO_THE_END, Activation, KvRows
from swisd.core.types import Slot
from swisd.node.rows import activation_of, arrived, frame_of
from swisd.wire import frames
from swisd.wire.frames import Dtype, Frame, FrameKind

ME, ANN, SESSION = "11" * 8, "22" * 8, "ab" * 8
ROWS = Activation(3, 2, 1, (Slot(SESSION, 7, 5, 2, 1),), 2, np.arange(8, dtype=np.float32).reshape(2, 4), 4)
KV = KvRows(3, SESSION, (4, 7), 60, 5, np.arange(3 * 5 * 8, dtype=np.float32).reshape(3, 5, 8))


def over_the_wire(frame: Frame) -> Frame:
    return frames.decode(b"".join(bytes(part) for part in frames.encode(frame)))


@pytest.mark.parametrize("until", [1, 4, TO_THE_END])
def test_activations_are_the_same_after_the_wire(until: int) -> None:
    sent = replace(ROWS, until=until)
    frame = over_the_wire(frame_of(sent, ME))
    assert frame.sender == ME
    (event,) = arrived(ANN, frame)
    assert isinstance(event, FrameArrived) and event.sender == ANN
    got = event.activation
    assert replace(got, payload=None) == replace(sent, payload=None)
    assert isinstance(got.payload, memoryview)
    assert np.array_equal(np.frombuffer(got.payload, "<f4").reshape(2, 4), ROWS.payload)


def test_frames_without_rows_are_allowed() -> None:
    nothing = frame_of(replace(ROWS, rows=0, payload=b""), ME)
    assert (nothing.rows, nothing.width, bytes(nothing.payload)) == (0, 0, b"")
    assert activation_of(over_the_wire(nothing)).rows == 0


def test_keys_and_values_are_the_same_after_the_wire() -> None:
    frame = frame_of(KV, ME)
    assert (frame.kind, frame.rows, frame.width) == (FrameKind.KV, 15, 8)
    assert memoryview(frame.payload).obj is KV.payload  # no copy
    (event,) = arrived(ANN, over_the_wire(frame))
    assert isinstance(event, KvArrived) and event.sender == ANN
    assert replace(event.kv, payload=None) == replace(KV, payload=None)
    assert isinstance(event.kv.payload, memoryview)
    assert np.array_equal(np.frombuffer(event.kv.payload, "<f4").reshape(3, 5, 8), KV.payload)
    relayed = over_the_wire(frame_of(event.kv, ME))
    assert (relayed.rows, relayed.width, relayed.payload) == (15, 8, event.kv.payload)


@pytest.mark.parametrize("kv", [replace(KV, rows=0), replace(KV, units=(4, 4)), replace(KV, rows=30_000)])
def test_rows_that_make_no_frame_are_refused_at_once(kv: KvRows) -> None:
    with pytest.raises(ValueError, match="make no frame"):
        frame_of(kv, ME)


GOOD_KV, GOOD_ROWS = frame_of(KV, ME), frame_of(ROWS, ME)


@pytest.mark.parametrize(
    "frame",
    [
        replace(GOOD_KV, dtype=Dtype.FLOAT16),
        replace(GOOD_KV, slots=()),
        replace(GOOD_KV, slots=GOOD_KV.slots * 2),
        replace(GOOD_KV, until=4),
        replace(GOOD_KV, until=3),
        replace(GOOD_KV, until=8),
        replace(GOOD_KV, stage=5000, until=5003),
        replace(GOOD_KV, until=TO_THE_END),
        replace(GOOD_KV, rows=14),
        replace(GOOD_KV, width=7),
        replace(GOOD_KV, width=0, payload=b""),
        replace(GOOD_ROWS, kind=FrameKind.PONG),
        replace(GOOD_ROWS, slots=()),
        replace(GOOD_ROWS, dtype=Dtype.INT64),
        replace(GOOD_ROWS, until=0),
    ],
)
def test_frames_that_mean_nothing(frame: Frame) -> None:
    assert arrived(ANN, GOOD_KV) and arrived(ANN, GOOD_ROWS)
    assert arrived(ANN, frame) == []
