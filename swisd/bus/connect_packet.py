"""The MQTT CONNECT packet, as far as the embedded broker must know it before amqtt sees it.

amqtt throws an existing session of the same client id away before it asks whether the newcomer may have that
id, keeps sessions of absent clients for ever, and does not close a silent client's connection. So whoever
connects is checked here first.
"""

import struct
from dataclasses import dataclass

from swisd.core.checked import Malformed

CONNECT = 0x10
_START = b"\x00\x04MQTT\x04"
_FLAGS, _KEEPALIVE, _CLIENT_ID = 7, 8, 10
MAX_CONNECT_BYTES = 64 << 10

ACCEPTED = bytes((0x20, 2, 0, 0))
REFUSED_VERSION = bytes((0x20, 2, 0, 1))
REFUSED_IDENTIFIER = bytes((0x20, 2, 0, 2))


@dataclass(frozen=True, slots=True)
class Connect:
    """What a CONNECT says. `without_keepalive` is the same packet with keep-alive 0."""

    client_id: str
    clean: bool
    keepalive_s: int
    without_keepalive: bytes


def length(digits: bytes) -> int | None:
    """The remaining length of 1 to 4 bytes so far, None while more must follow. Raises `Malformed`."""
    value = sum((digit & 0x7F) << (7 * place) for place, digit in enumerate(digits))
    if value > MAX_CONNECT_BYTES or len(digits) > 3:
        raise Malformed("MQTT CONNECT longer than a device of this swarm sends")
    return None if not digits or digits[-1] & 0x80 else value


def parse_connect(digits: bytes, body: bytes) -> Connect:
    """Read a CONNECT of MQTT 3.1.1 from its length bytes and the rest. Raises `Malformed`."""
    if not body.startswith(_START) or len(body) < _CLIENT_ID + 2:
        raise Malformed("not an MQTT 3.1.1 CONNECT")
    keepalive, size = struct.unpack_from("!HH", body, _KEEPALIVE)
    name = body[_CLIENT_ID + 2 : _CLIENT_ID + 2 + size]
    if len(name) != size or not name.isascii():
        raise Malformed("MQTT CONNECT with a broken client id")
    quiet = body[:_KEEPALIVE] + b"\0\0" + body[_CLIENT_ID:]
    return Connect(
        name.decode(), bool(body[_FLAGS] & 2), keepalive, bytes((CONNECT,)) + digits + quiet
    )  # fmt: skip
