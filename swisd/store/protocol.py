"""What two devices say on a store connection, as pure functions on bytes.

The one who connected asks, one request at a time, as often as it likes:

    request  magic 4 "SWQ2", sha256 32, offset 8, length 8 (0: to the end), how 1, count 1, devices 8 x 8
    reply    magic 4 "SWR2", status 1, total 8, follows 8, then `follows` bytes: of the blob, or devices of 8

The devices of a request are those that were named for this blob before and did not deliver; those of a reply
get the blob, or have it, and are to be asked instead. `total` is the size of the whole blob, so that an asker
sees at once when it expects another one. A device that is still getting the blob itself gives fewer bytes
than it was asked for. Numbers are little-endian.
"""

import re
import struct
from dataclasses import dataclass
from enum import Enum, IntEnum

from swisd.core.checked import Malformed
from swisd.core.model import SHA256

REQUEST = struct.Struct("<4s32sQQBB64s")
REPLY = struct.Struct("<4sBQQ")
REQUEST_MAGIC = b"SWQ2"
REPLY_MAGIC = b"SWR2"
MAX_BLOB_BYTES = 1 << 48
MAX_WITHOUT = 8  # devices in a request
MAX_NAMED = 4  # devices in a reply
_DEVICE = re.compile(r"[0-9a-f]{16}")
_DEVICE_BYTES = 8


class Status(IntEnum):
    OK = 0
    MISSING = 1  # this device does not have the blob
    BUSY = 2  # too many clients: ask again later
    BAD = 3  # the request cannot be answered; the connection closes
    COMING = 4  # this device is getting the blob and has no more of it yet
    ELSEWHERE = 5  # others were given the blob: ask them


class How(Enum):
    """What an asker takes."""

    ANY = 0  # bytes, or the names of others to ask
    SENT = 1  # bytes: another device named this one
    WHOLE = 2  # bytes of a blob that was checked as a whole


@dataclass(frozen=True, slots=True)
class Request:
    """Bytes `[offset, offset + length)` of a blob; `length` 0 means to the end."""

    sha: str
    offset: int = 0
    length: int = 0
    how: How = How.ANY
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not SHA256.fullmatch(self.sha):
            raise ValueError("a blob's name is not a sha256 in lower-case hex")
        if not 0 <= self.offset <= MAX_BLOB_BYTES or not 0 <= self.length <= MAX_BLOB_BYTES:
            raise ValueError(f"a blob has no bytes at {self.offset} + {self.length}")
        if len(self.without) > MAX_WITHOUT or not all(map(_DEVICE.fullmatch, self.without)):
            raise ValueError("the devices to be left out are not up to 8 names of 16 hex digits")


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer; `follows` bytes come after it."""

    status: Status
    total: int = 0
    follows: int = 0


def write_request(request: Request) -> bytes:
    return REQUEST.pack(
        REQUEST_MAGIC,
        bytes.fromhex(request.sha),
        request.offset,
        request.length,
        request.how.value,
        len(request.without),
        write_devices(request.without),
    )


def read_request(data: bytes) -> Request:
    """Raises `Malformed`."""
    if len(data) != REQUEST.size:
        raise Malformed(f"store request of {len(data)} bytes")
    magic, sha, offset, length, how, count, devices = REQUEST.unpack(data)
    if magic != REQUEST_MAGIC:
        raise Malformed("store request without the magic of this version")
    if count > MAX_WITHOUT:
        raise Malformed(f"store request without {count} devices")
    try:
        return Request(sha.hex(), offset, length, How(how), read_devices(devices[: count * _DEVICE_BYTES]))
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
    match known:
        case Status.OK:
            sane = follows <= total <= MAX_BLOB_BYTES
        case Status.ELSEWHERE:
            sane = follows in range(_DEVICE_BYTES, (MAX_NAMED + 1) * _DEVICE_BYTES, _DEVICE_BYTES)
        case _:
            sane = follows == 0
    if not sane or total > MAX_BLOB_BYTES:
        raise Malformed(f"store reply {known.name} with {follows} of {total} bytes")
    return Reply(known, total, follows)


def write_devices(devices: tuple[str, ...]) -> bytes:
    """Names of 16 hex digits as 8 bytes each."""
    return b"".join(map(bytes.fromhex, devices))


def read_devices(data: bytes) -> tuple[str, ...]:
    """The reverse of `write_devices`; `data` is a multiple of 8 bytes long."""
    return tuple(data[at : at + _DEVICE_BYTES].hex() for at in range(0, len(data), _DEVICE_BYTES))


def span(request: Request, total: int) -> tuple[int, int] | None:
    """Which bytes `[start, end)` of a blob of `total` bytes are asked for; None if it has no such."""
    end = total if request.length == 0 else request.offset + request.length
    return (request.offset, end) if request.offset <= end <= total else None
