"""Every bus payload carries a proof that its sender holds the swarm key.

With the embedded broker each connection has proved the key already; an external broker may have other
clients, and a message without a valid tag is a stranger's. Layout: version (1 byte), tag (16 bytes), sender
(8 bytes), body. The tag is HMAC-SHA256 over topic, sender and body, cut to 128 bits (RFC 2104, section 5).
"""

import hmac
from dataclasses import dataclass
from hashlib import sha256

from swisd.core.checked import Malformed

VERSION = 1
TAG_BYTES = 16
SENDER_BYTES = 8
HEADER_BYTES = 1 + TAG_BYTES + SENDER_BYTES


class Foreign(ValueError):
    """A message whose tag does not match: not from this swarm, or changed on the way."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A payload whose tag was right: who sent it (16 hex digits) and what it says."""

    sender: str
    body: memoryview


def seal(key: bytes, topic: str, sender: str, body: bytes) -> bytes:
    """The payload to publish on `topic`; `sender` is 16 hex digits."""
    who = bytes.fromhex(sender)
    if len(who) != SENDER_BYTES:
        raise ValueError("sender must be 16 hex digits")
    return b"".join((bytes([VERSION]), _tag(key, topic, who, body), who, body))


def open_sealed(key: bytes, topic: str, payload: bytes, limit: int) -> Opened:
    """Check and unwrap a payload of at most `limit` bytes. Raises `Malformed` or `Foreign`."""
    if not HEADER_BYTES <= len(payload) <= limit:
        raise Malformed(f"payload of {len(payload)} bytes on {topic[:80]}")
    if payload[0] != VERSION:
        raise Malformed(f"payload version {payload[0]}, this device reads {VERSION}")
    view = memoryview(payload)
    who, body = bytes(view[1 + TAG_BYTES : HEADER_BYTES]), view[HEADER_BYTES:]
    if not hmac.compare_digest(_tag(key, topic, who, body), view[1 : 1 + TAG_BYTES]):
        raise Foreign(f"payload on {topic[:80]} does not carry this swarm's proof")
    return Opened(who.hex(), body)


def _tag(key: bytes, topic: str, who: bytes, body: bytes | memoryview) -> bytes:
    name = topic.encode()
    mac = hmac.new(key, b"swisd bus" + len(name).to_bytes(2, "big") + name + who, sha256)
    mac.update(body)
    return mac.digest()[:TAG_BYTES]
