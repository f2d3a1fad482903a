"""How two devices prove the swarm key to each other when a connection opens.

The key never travels. The one who connects speaks first, and its first words already need the key, so a
stranger gets no byte in answer:

    connector -> acceptor   magic 4, purpose 1, device 8, nonce_c 16, HMAC("hello", purpose, device, nonce_c)
    acceptor  -> connector  nonce_s 16, HMAC("accept", purpose, device, nonce_c, nonce_s)
    connector -> acceptor   HMAC("confirm", purpose, device, nonce_c, nonce_s)

A hello can be replayed, but whoever replays it cannot confirm. All tags are full HMAC-SHA256. Encryption,
when it comes, derives its keys from the same two nonces.
"""

import hmac
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from swisd.core.checked import Malformed

MAGIC = b"SWD1"
NONCE_BYTES = 16
TAG_BYTES = 32
HELLO_BYTES = len(MAGIC) + 1 + 8 + NONCE_BYTES + TAG_BYTES
ACCEPT_BYTES = NONCE_BYTES + TAG_BYTES
CONFIRM_BYTES = TAG_BYTES


class Refused(ValueError):
    """The other side could not prove the key."""


class Purpose(Enum):
    """What a connection is for; all purposes share one port."""

    BUS = b"B"
    LANE = b"L"
    STORE = b"S"


@dataclass(frozen=True, slots=True)
class Hello:
    """The connector's first words, checked."""

    purpose: Purpose
    device: str
    nonce: bytes


def hello(key: bytes, purpose: Purpose, device: str, nonce: bytes) -> bytes:
    """Bytes that open a connection; `device` is 16 hex digits, `nonce` 16 random bytes."""
    who = bytes.fromhex(device)
    if len(who) != 8 or len(nonce) != NONCE_BYTES:
        raise ValueError("device must be 16 hex digits and the nonce 16 bytes")
    return MAGIC + purpose.value + who + nonce + _tag(key, b"hello", purpose, who, nonce)


def read_hello(key: bytes, data: bytes) -> Hello:
    """Check the first words of a connector. Raises `Malformed` or `Refused`."""
    if len(data) != HELLO_BYTES or data[:4] != MAGIC:
        raise Malformed("not a swisd hello")
    try:
        purpose = Purpose(data[4:5])
    except ValueError:
        raise Malformed("hello for an unknown purpose") from None
    who, nonce, tag = data[5:13], data[13:29], data[29:]
    if not hmac.compare_digest(tag, _tag(key, b"hello", purpose, who, nonce)):
        raise Refused("hello without this swarm's key")
    return Hello(purpose, who.hex(), nonce)


def accept(key: bytes, greeting: Hello, nonce: bytes) -> bytes:
    """The acceptor's answer: its own nonce and its proof."""
    return nonce + _pair_tag(key, b"accept", greeting, nonce)


def read_accept(key: bytes, greeting: Hello, data: bytes) -> bytes:
    """Check the acceptor's proof and return the confirmation to send. Raises `Refused`."""
    nonce, tag = data[:NONCE_BYTES], data[NONCE_BYTES:]
    if not hmac.compare_digest(tag, _pair_tag(key, b"accept", greeting, nonce)):
        raise Refused("the other side does not hold this swarm's key")
    return _pair_tag(key, b"confirm", greeting, nonce)


def read_confirm(key: bytes, greeting: Hello, nonce: bytes, data: bytes) -> None:
    """Check the connector's last words. Raises `Refused`."""
    if not hmac.compare_digest(data, _pair_tag(key, b"confirm", greeting, nonce)):
        raise Refused("confirmation without this swarm's key")


def _pair_tag(key: bytes, label: bytes, greeting: Hello, nonce: bytes) -> bytes:
    return _tag(key, label, greeting.purpose, bytes.fromhex(greeting.device), greeting.nonce + nonce)


def _tag(key: bytes, label: bytes, purpose: Purpose, who: bytes, nonces: bytes) -> bytes:
    return hmac.new(key, b"swisd " + label + purpose.value + who + nonces, sha256).digest()
