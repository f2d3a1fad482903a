"""Frames that are made and read by a template are those that are made and read from the beginning."""

import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.checked import Malformed
from swisd.core.types import Slot
from swisd.wire.frames import HEADER, MAX_SPENT_MS, SLOT, Dtype, Frame, FrameKind, decode, encode
from swisd.wire.template import Template

SENDER, SESSION = "11" * 8, "5e" * 8
ROW = Frame(
    FrameKind.ACTIVATION, 7, SENDER, 1, 2, (Slot(SESSION, 4, 9, 1, 1),), Dtype.FLOAT32, 8, 1, bytes(32)
)
payloads = st.binary(min_size=32, max_size=32)
times = st.floats(0.0, MAX_SPENT_MS, width=16) | st.just(1e9)


def on_wire(frame: Frame) -> bytes:
    return b"".join(encode(frame))


@given(payloads, times)
def test_what_is_filled_in_is_the_frame(payload: bytes, spent_ms: float) -> None:
    buffers, size = Template(ROW).fill(memoryview(payload), spent_ms)
    assert b"".join(buffers) == on_wire(replace(ROW, payload=payload, spent_ms=spent_ms))
    assert size == sum(len(buffer) for buffer in buffers)


@given(payloads, times)
def test_what_is_read_is_what_was_sent(payload: bytes, spent_ms: float) -> None:
    data = on_wire(replace(ROW, payload=payload, spent_ms=spent_ms))
    found = Template(replace(ROW, spent_ms=5.0)).read(data)
    assert found is not None and (bytes(found[0]), found[1]) == (payload, min(spent_ms, MAX_SPENT_MS))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": FrameKind.KV},
        {"epoch": 8},
        {"sender": "22" * 8},
        {"pipeline": 2},
        {"stage": 3},
        {"until": 3},
        {"dtype": Dtype.INT64, "width": 4},
        {"width": 4, "rows": 2},
        {"width": 9, "payload": bytes(36)},
        {"slots": (Slot(SESSION, 5, 9, 1, 1),)},
        {"slots": (Slot(SESSION, 4, 10, 1, 1),)},
        {"slots": (Slot(SESSION, 4, 9, 1, 0),)},
        {"slots": (Slot(SESSION, 4, 9, 1, 1, True),)},
        {"slots": (Slot("66" * 8, 4, 9, 1, 1),)},
        {"slots": ROW.slots * 2},
    ],
)
def test_another_frame_is_not_read(changes: dict[str, object]) -> None:
    other = replace(ROW, **changes)  # type: ignore[arg-type]
    assert decode(on_wire(other)) == other
    assert Template(ROW).read(on_wire(other)) is None


@given(st.integers(0, HEADER.size + SLOT.size + 31), st.integers(1, 255))
def test_no_byte_may_be_another(at: int, change: int) -> None:
    data = bytearray(on_wire(ROW))
    data[at] ^= change
    assert Template(ROW).read(bytes(data)) is None
    with pytest.raises(Malformed):
        decode(bytes(data))


@given(st.binary(max_size=200))
def test_anything_may_come(data: bytes) -> None:
    assert Template(ROW).read(data) is None


@pytest.mark.parametrize("spent", [b"\x00\xbc", b"\x00\x7e", b"\x00\x7c"])  # -1, nan, infinity
def test_a_time_that_cannot_be_is_not_read(spent: bytes) -> None:
    data = bytearray(on_wire(ROW))
    data[42:44] = spent
    data[4:8] = zlib.crc32(memoryview(data)[8:]).to_bytes(4, "little")
    assert Template(ROW).read(bytes(data)) is None


def test_values_of_another_size_are_no_such_frame() -> None:
    with pytest.raises(ValueError, match="instead of"):
        Template(ROW).fill(memoryview(bytes(36)), 0.0)
