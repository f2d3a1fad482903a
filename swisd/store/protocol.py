"""What two devices say on a store connection, as pure functions on bytes.

The one who connected asks, one request at a time, as often as it likes:

    request  magic 4 "SWQ1", sha256 32, offset 8, length 8 (0: to the end)
    reply    magic 4 "SWR1", status 1, total 8, follows 8, then `follows` bytes of the blob

`total` is the size of the whole blob, so that an asker sees at once when it expects another one. Numbers are
little-endian.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from swisd.core.checked import Malformed
from swisd.core.model import SHA256

REQUEST = struct.Struct("<4s32sQQ")
REPLY = struct.Struct("<4sBQQ")
REQUEST_MAGIC = b"SWQ1"
REPLY_MAGIC = b"SWR1"
MAX_BLOB_BYTES = 1 << 48


class Status(IntEnum):
    OK = 0
    MISSING = 1  # this device does not have the blob
    BUSY = 2  # too many clients: ask another, or later
    BAD = 3  # the request cannot be answered; the connection closes


@dataclass(frozen=True, slots=True)
class Request:
    """Bytes `[offset, offset + length)` of a blob; `length` 0 means to the end."""

    sha: str
    offset: int = 0
    length: int = 0

    def __post_init__(self) -> None:
        if not SHA256.fullmatch(self.sha):
            raise ValueError("a blob's name is not a sha256 in lower-case hex")
        if not 0 <= self.offset <= MAX_BLOB_BYTES or not 0 <= self.length <= MAX_BLOB_BYTES:
            raise ValueError(f"a blob has no bytes at {self.offset} + {self.length}")


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer; `follows` bytes come after it."""

    status: Status
    total: int = 0
    follows: int = 0


def write_request(request: Request) -> bytes:
    return REQUEST.pack(REQUEST_MAGIC, bytes.fromhex(request.sha), request.offset, request.length)


def read_request(data: bytes) -> Request:
    """Raises `Malformed`."""
    if len(data) != REQUEST.size:
        raise Malformed(f"store request of {len(data)} bytes")
    magic, sha, offset, length = REQUEST.unpack(data)
    if magic != REQUEST_MAGIC:
        raise Malformed("store request without the magic of this version")
    try:
        return Request(sha.hex(), offset, length)
    except ValueError as error:
        raise Malformed(f"store request: {error}") from None


def write_reply(reply: Reply) -> bytes:
    return REPLY.pack(REPLY_MAGIC, reply.status, reply.total, reply.follows)


def read_reply(data: bytes) -> Reply:
    """Raises `Malformed`."""
    if len(data) != REPLY.size:
        raise Malformed(f"store reply of {len(data)} bytes")
    magic, status, total, follows = REPLY.unpack(data)
    if magic != REPLY_MAGIC:
        raise Malformed("store reply without the magic of this version")
    try:
        known = Status(status)
    except ValueError:
        raise Malformed(f"store reply with status {status}") from None
    if total > MAX_BLOB_BYTES or follows > total or (follows and known is not Status.OK):
        raise Malformed(f"store reply {known.name} with {follows} of {total} bytes")
    return Reply(known, total, follows)


def span(request: Request, total: int) -> tuple[int, int] | None:
    """Which bytes `[start, end)` of a blob of `total` bytes are asked for; None if it has no such."""
    end = total if request.length == 0 else request.offset + request.length
    return (request.offset, end) if request.offset <= end <= total else None
