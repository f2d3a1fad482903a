"""A frame of which all but its values is known before they are: what is left to do then takes little.

Rows of a session come one behind the other, and only the position, the values and the time they took change
from one frame to the next. Made or checked from the beginning, a frame takes ten times as long.
"""

import struct
import zlib
from dataclasses import replace

from swisd.wire.frames import HEADER, MAGIC, MAX_SPENT_MS, Frame, encode

CRC = struct.Struct("<I")
SPENT = struct.Struct("<e")
FROM, SPENT_AT, REST_AT = 8, 42, 44  # where the sum begins to count, and what lies beside the time


class Template:
    """Writes and reads frames that differ from `frame` in payload and `spent_ms` alone."""

    def __init__(self, frame: Frame) -> None:
        size = frame.rows * frame.width * frame.dtype.size
        head, _ = encode(replace(frame, payload=b"", spent_ms=0.0))
        self._head = bytes(head)
        self._front, self._rest = self._head[FROM:SPENT_AT], self._head[REST_AT:]
        self._size = len(self._head) + size

    def fill(self, payload: memoryview, spent_ms: float) -> tuple[list[memoryview], int]:
        """The frame as flat buffers, and how many bytes that makes. Raises `ValueError` for another size."""
        size = len(self._head) + len(payload)
        if size != self._size:
            raise ValueError(f"a frame of {size} bytes instead of {self._size}")
        head = bytearray(self._head)
        SPENT.pack_into(head, SPENT_AT, min(spent_ms, MAX_SPENT_MS))
        view = memoryview(head)
        CRC.pack_into(head, len(MAGIC), zlib.crc32(payload, zlib.crc32(view[FROM:])))
        return [view, payload], size

    def read(self, data: bytes) -> tuple[memoryview, float] | None:
        """Payload and `spent_ms` of such a frame, checked; None if it is another one."""
        if len(data) != self._size or data[: len(MAGIC)] != MAGIC or data[FROM:SPENT_AT] != self._front:
            return None
        if data[REST_AT : len(self._head)] != self._rest:
            return None
        view = memoryview(data)
        if CRC.unpack_from(data, len(MAGIC)) != (zlib.crc32(view[FROM:]),):
            return None
        (spent_ms,) = SPENT.unpack_from(data, SPENT_AT)
        return (view[len(self._head) :], spent_ms) if 0.0 <= spent_ms <= MAX_SPENT_MS else None


assert HEADER.size == REST_AT
