import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.checked import Malformed
from swisd.core.types import Slot
from swisd.wire.frames import (
    HEADER,
    MAGIC,
    MAX_FRAME_BYTES,
    MAX_ROWS,
    MAX_SLOTS,
    MAX_SPENT_MS,
    SLOT,
    Dtype,
    Frame,
    FrameKind,
    decode,
    encode,
)

ids = st.binary(min_size=8, max_size=8).map(bytes.hex)
steps = st.integers(0, 1 << 30)


@st.composite
def slots(draw: st.DrawFn) -> Slot:
    rows = draw(st.integers(1, MAX_ROWS))
    return Slot(draw(ids), draw(steps), draw(steps), rows, draw(st.integers(0, rows)), draw(st.booleans()))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    dtype = draw(st.sampled_from(Dtype))
    rows, width = draw(st.integers(0, 20)), draw(st.integers(0, 50))
    size = rows * width * dtype.size if dtype is not Dtype.NONE else draw(st.integers(0, 200))
    return Frame(
        draw(st.sampled_from(FrameKind)),
        draw(st.integers(0, (1 << 64) - 1)),
        draw(ids),
        draw(st.integers(0, 65535)),
        draw(st.integers(0, 65535)),
        tuple(draw(st.lists(slots(), max_size=5))),
        dtype,
        width,
        rows,
        draw(st.binary(min_size=size, max_size=size)),
        draw(st.integers(0, 65535)),
        draw(st.floats(0, MAX_SPENT_MS, width=16)),
    )


def data_of(frame: Frame) -> bytes:
    return b"".join(encode(frame))


def resealed(data: bytes) -> bytes:
    """With the right checksum, so that the other checks are reached."""
    return data[:4] + struct.pack("<I", zlib.crc32(data[8:])) + data[8:]


def same(one: Frame, other: Frame) -> bool:
    names = ("kind", "epoch", "sender", "pipeline", "stage", "slots", "dtype", "width", "rows", "until")
    return all(getattr(one, name) == getattr(other, name) for name in names) and bytes(one.payload) == bytes(
        other.payload
    )


@given(frames())
def test_round_trip(frame: Frame) -> None:
    for data in (data_of(frame), bytearray(data_of(frame))):
        assert same(decode(memoryview(data)), frame)


@pytest.mark.parametrize("spent_ms", [-1.0, float("nan"), float("inf")])
def test_no_time_before_is_longer_than_time(spent_ms: float) -> None:
    data = bytearray(data_of(Frame(FrameKind.ACTIVATION, 1, "11" * 8)))
    struct.pack_into("<e", data, 42, spent_ms)
    with pytest.raises(Malformed, match="computing"):
        decode(resealed(bytes(data)))


def test_a_time_that_is_too_long_is_told_as_the_longest() -> None:
    frame = Frame(FrameKind.ACTIVATION, 1, "11" * 8, spent_ms=1e6)
    assert decode(data_of(frame)).spent_ms == MAX_SPENT_MS


def test_the_payload_is_not_copied() -> None:
    payload = bytes(1000)
    head, body = encode(Frame(FrameKind.PING, 0, "aa" * 8, payload=payload))
    assert body is payload and len(head) == HEADER.size
    data = bytearray(head + payload)
    view = decode(memoryview(data)).payload
    data[-1] = 7
    assert view[-1] == 7


@given(frames(), st.data())
def test_any_change_is_found(frame: Frame, data: st.DataObject) -> None:
    good = data_of(frame)
    at = data.draw(st.integers(0, len(good) - 1))
    bit = data.draw(st.integers(0, 7))
    bad = bytearray(good)
    bad[at] ^= 1 << bit
    with pytest.raises(Malformed):
        decode(memoryview(bad))
    with pytest.raises(Malformed):
        decode(good[:at])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_malformed(junk: bytes) -> None:
    for data in (junk, resealed(MAGIC + junk.ljust(8, b"\0"))):
        try:
            frame = decode(data)
        except Malformed:
            continue
        assert len(frame.payload) <= len(data)


@given(frames(), st.data())
def test_headers_with_a_right_checksum_are_still_checked(frame: Frame, data: st.DataObject) -> None:
    good = data_of(frame)
    at = data.draw(st.integers(8, HEADER.size + SLOT.size * len(frame.slots) - 1))
    changed = resealed(good[:at] + data.draw(st.binary(min_size=1, max_size=1)) + good[at + 1 :])
    try:
        read = decode(changed)
    except Malformed:
        return
    assert read.rows <= MAX_ROWS and len(read.slots) <= MAX_SLOTS
    if read.dtype is not Dtype.NONE:
        assert len(read.payload) == read.rows * read.width * read.dtype.size


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ((9, 0, 0, 0, 0), "frame of kind 9"),
        ((1, 9, 0, 0, 0), "values of kind 9"),
        ((1, 0, MAX_SLOTS + 1, 0, 0), "slots"),
        ((1, 0, 1, 0, 0), "slots"),
        ((1, 1, 0, 1, 1), "1 x 1 values with 0 bytes"),
        ((1, 1, 0, 0xFFFFFFFF, MAX_ROWS), "values with 0 bytes"),
        ((1, 0, 0, 0, MAX_ROWS + 1), "rows"),
    ],
)
def test_limits(fields: tuple[int, ...], why: str) -> None:
    kind, dtype, n_slots, width, rows = fields
    data = HEADER.pack(MAGIC, 0, kind, dtype, n_slots, 0, 0, 0, width, rows, bytes(8), 0, 0.0)
    with pytest.raises(Malformed, match=why):
        decode(resealed(data))


@pytest.mark.parametrize(("rows", "logits", "position"), [(0, 0, 0), (1, 2, 0), (1, 0, 1 << 31)])
def test_slots_that_make_no_sense(rows: int, logits: int, position: int) -> None:
    head = HEADER.pack(MAGIC, 0, 1, 0, 1, 0, 0, 0, 0, 0, bytes(8), 0, 0.0)
    slot = SLOT.pack(bytes(8), 0, position, rows, logits)
    with pytest.raises(Malformed, match="frame slot"):
        decode(resealed(head + slot))


def test_the_longest_frame() -> None:
    frame = Frame(FrameKind.PING, 0, "aa" * 8, payload=bytes(MAX_FRAME_BYTES - HEADER.size))
    assert len(decode(data_of(frame)).payload) == MAX_FRAME_BYTES - HEADER.size
    with pytest.raises(Malformed, match="bytes"):
        decode(data_of(frame) + b"x")
