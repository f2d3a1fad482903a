"""Binary frames that carry activations from one stage to the next, on a TCP lane or a shard topic.

A frame is a fixed header, one entry per session slot, and the rows as little-endian float32 (or int64 token
ids for the first stage of a remote driver), row-major. A CRC-32 over everything after it finds corruption
that TCP's 16-bit sum lets through. A frame of kind KV carries keys and values of one session instead: "stage"
is the first of their units and "last stage" the end, "rows" counts positions times units.

    offset  size  field
    0       4     magic "SWF2"
    4       4     CRC-32 of bytes 8 to the end
    8       1     kind
    9       1     dtype: 0 none, 1 float32, 2 float16, 3 int64
    10      2     number of slots
    12      2     pipeline
    14      2     destination stage
    16      8     epoch
    24      4     width: values per row
    28      4     rows
    32      8     sender (device id)
    40      2     last stage that runs the rows (65535: to the end)
    42      2     milliseconds that the stages before computed, float16
    44      24 n  slots: session 8, step 4, position 4, rows 4, logits 4 (its highest bit: a guess)
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from swisd.core.checked import Malformed
from swisd.core.rows import TO_THE_END
from swisd.core.types import Slot

MAGIC = b"SWF2"
HEADER = struct.Struct("<4sIBBHHHQII8sHe")
SLOT = struct.Struct("<8sIIII")
GUESS = 1 << 31
MAX_SLOTS = 256
MAX_ROWS = 1 << 16
MAX_FRAME_BYTES = 64 << 20
MAX_SPENT_MS = 65504.0  # the largest float16


class FrameKind(IntEnum):
    ACTIVATION = 1  # rows for the destination stage
    PING = 2  # sent back as PONG at once: round trip and bandwidth
    PONG = 3
    KV = 4  # keys and values of one session: `rows` times units rows of a key and a value each


class Dtype(IntEnum):
    NONE = 0
    FLOAT32 = 1
    FLOAT16 = 2
    INT64 = 3

    @property
    def size(self) -> int:
        """Bytes of a value."""
        return (0, 4, 2, 8)[self]


# Looked up, as each hop is decoded: an enum's own way takes several times as long.
KINDS: dict[int, FrameKind] = {kind.value: kind for kind in FrameKind}
DTYPES: dict[int, Dtype] = {dtype.value: dtype for dtype in Dtype}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `payload` holds `rows * width` values of `dtype`; for pings any bytes (dtype NONE)."""

    kind: FrameKind
    epoch: int
    sender: str
    pipeline: int = 0
    stage: int = 0
    slots: tuple[Slot, ...] = ()
    dtype: Dtype = Dtype.NONE
    width: int = 0
    rows: int = 0
    payload: bytes | memoryview = b""
    until: int = TO_THE_END
    spent_ms: float = 0.0  # what the stages before computed; longer than `MAX_SPENT_MS` is told as that


def encode(frame: Frame) -> list[bytes | memoryview]:
    """The frame as buffers to write one after the other; the payload is not copied."""
    head = bytearray(HEADER.size + SLOT.size * len(frame.slots))
    HEADER.pack_into(
        head, 0, MAGIC, 0, frame.kind, frame.dtype, len(frame.slots), frame.pipeline, frame.stage,
        frame.epoch, frame.width, frame.rows, bytes.fromhex(frame.sender), frame.until,
        min(frame.spent_ms, MAX_SPENT_MS),
    )  # fmt: skip
    for number, slot in enumerate(frame.slots):
        SLOT.pack_into(
            head, HEADER.size + SLOT.size * number,
            bytes.fromhex(slot.session), slot.step, slot.position, slot.rows,
            slot.logits | GUESS * slot.guess,
        )  # fmt: skip
    crc = zlib.crc32(frame.payload, zlib.crc32(memoryview(head)[8:]))
    struct.pack_into("<I", head, 4, crc)
    return [bytes(head), frame.payload]


def decode(data: bytes | memoryview) -> Frame:
    """Check and read one frame; the payload is a view of `data`. Raises `Malformed`."""
    view = memoryview(data)
    if not HEADER.size <= len(view) <= MAX_FRAME_BYTES:
        raise Malformed(f"frame of {len(view)} bytes")
    (
        magic, crc, kind, dtype, n_slots, pipeline, stage, epoch, width, rows, sender, until,
        spent_ms,
    ) = HEADER.unpack_from(view)  # fmt: skip
    if magic != MAGIC:
        raise Malformed("frame without the magic of this version")
    if zlib.crc32(view[8:]) != crc:
        raise Malformed("frame with a wrong checksum")
    body = HEADER.size + SLOT.size * n_slots
    if n_slots > MAX_SLOTS or rows > MAX_ROWS or len(view) < body:
        raise Malformed(f"frame with {n_slots} slots and {rows} rows")
    frame_kind, frame_dtype = KINDS.get(kind), DTYPES.get(dtype)
    if frame_kind is None or frame_dtype is None:
        raise Malformed(f"frame of kind {kind} with values of kind {dtype}")
    if not 0.0 <= spent_ms <= MAX_SPENT_MS:
        raise Malformed(f"frame after {spent_ms} ms of computing")
    payload = view[body:]
    if frame_dtype is not Dtype.NONE and len(payload) != rows * width * frame_dtype.size:
        raise Malformed(f"frame of {rows} x {width} values with {len(payload)} bytes")
    slots = tuple(_slot(view, HEADER.size + SLOT.size * number) for number in range(n_slots))
    return Frame(
        frame_kind, epoch, sender.hex(), pipeline, stage, slots, frame_dtype, width, rows, payload,
        until, spent_ms,
    )  # fmt: skip


def _slot(view: memoryview, offset: int) -> Slot:
    session, step, position, rows, wanted = SLOT.unpack_from(view, offset)
    logits, guess = wanted & ~GUESS, bool(wanted & GUESS)
    if not 1 <= rows <= MAX_ROWS or logits > rows or position > 1 << 30 or step > 1 << 30:
        raise Malformed(f"frame slot with {rows} rows at {position}")
    return Slot(session.hex(), step, position, rows, logits, guess)
