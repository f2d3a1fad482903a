"""The two datagrams with which a device finds its swarm's host, where multicast does not work.

    probe    magic "SWP1", nonce 16, HMAC("probe", nonce), zeros up to 128 bytes
    reply    magic "SWR2", host device 8, port 2, epoch 8, rank 8, followed 1, length of address 1, address,
             HMAC("reply", nonce, all before)

Only a probe made with the swarm's key is answered, and no reply is longer than a probe, so nobody can turn
the responder against a third party with gain. There is no time in a probe, because devices without a clock
chip start in 1970; a recorded probe is useless for its nonce is answered once, and tells no secret.
"""

import hmac
import ipaddress
import struct
from dataclasses import dataclass
from hashlib import sha256

from swisd.core.checked import Malformed
from swisd.wire.handshake import Refused

PROBE_MAGIC, REPLY_MAGIC = b"SWP1", b"SWR2"
NONCE_BYTES, TAG_BYTES = 16, 32
PROBE_BYTES = 128
_HEAD = struct.Struct("!4s8sHQQ?B")
_FIXED = _HEAD.size
MAX_ADDRESS_BYTES = PROBE_BYTES - _FIXED - TAG_BYTES


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where the swarm's bus is: the host's device id, its address (empty: the sender's own) and TCP port.

    A host says of itself which epoch it is at, its rank, and whether other devices are with it.
    """

    device: str
    address: str
    port: int
    epoch: int = 0
    rank: int = 0
    followed: bool = False


def encode_probe(key: bytes, nonce: bytes) -> bytes:
    """The question; `nonce` is 16 random bytes."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError("the nonce must be 16 bytes")
    return (PROBE_MAGIC + nonce + _tag(key, b"probe", nonce)).ljust(PROBE_BYTES, b"\0")


def read_probe(key: bytes, data: bytes) -> bytes:
    """The nonce of a probe of this swarm. Raises `Malformed` or `Refused`."""
    if len(data) != PROBE_BYTES or data[:4] != PROBE_MAGIC:
        raise Malformed("not a swisd probe")
    nonce, tag = data[4:20], data[20:52]
    if not hmac.compare_digest(tag, _tag(key, b"probe", nonce)):
        raise Refused("probe without this swarm's key")
    return nonce


def encode_reply(key: bytes, nonce: bytes, host: HostAddress) -> bytes:
    """The answer to the probe with that nonce."""
    address = host.address.encode("ascii")
    who = bytes.fromhex(host.device)
    if len(who) != 8 or len(address) > MAX_ADDRESS_BYTES:
        raise ValueError("the device must be 16 hex digits and the address at most 64 characters")
    head = _HEAD.pack(REPLY_MAGIC, who, host.port, host.epoch, host.rank, host.followed, len(address))
    body = head + address
    return body + _tag(key, b"reply", nonce + body)


def read_reply(key: bytes, nonces: list[bytes], data: bytes) -> HostAddress:
    """The host named in an answer to one of our probes. Raises `Malformed` or `Refused`."""
    if not _FIXED + TAG_BYTES <= len(data) <= PROBE_BYTES or data[:4] != REPLY_MAGIC:
        raise Malformed("not an answer to a swisd probe")
    body, tag = data[:-TAG_BYTES], data[-TAG_BYTES:]
    if not any(hmac.compare_digest(tag, _tag(key, b"reply", nonce + body)) for nonce in nonces):
        raise Refused("answer without this swarm's key, or to no probe of ours")
    _, who, port, epoch, rank, followed, length = _HEAD.unpack_from(body)
    if length != len(body) - _FIXED or port == 0:
        raise Malformed("answer to a probe with a wrong length or port 0")
    try:
        text = body[_FIXED:].decode("ascii")
        address = str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        raise Malformed("answer to a probe without an address") from None
    return HostAddress(who.hex(), address, port, epoch, rank, followed)


def _tag(key: bytes, label: bytes, rest: bytes) -> bytes:
    return hmac.new(key, b"swisd " + label + rest, sha256).digest()
