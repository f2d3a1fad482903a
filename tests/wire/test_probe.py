"""The two datagrams of the search over UDP."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.checked import Malformed
from swisd.wire.handshake import Refused
from swisd.wire.probe import (
    MAX_ADDRESS_BYTES,
    PROBE_BYTES,
    HostAddress,
    encode_probe,
    encode_reply,
    read_probe,
    read_reply,
)

KEY, OTHER = b"k" * 16, b"o" * 16
nonces = st.binary(min_size=16, max_size=16)
addresses = st.one_of(st.just(""), st.ip_addresses().map(str))
hosts = st.builds(
    HostAddress, st.binary(min_size=8, max_size=8).map(bytes.hex), addresses, st.integers(1, 65535),
    st.integers(0, 1 << 53), st.integers(0, 1 << 62), st.booleans(),
)  # fmt: skip


@given(nonces, hosts)
def test_question_and_answer(nonce: bytes, host: HostAddress):
    probe = encode_probe(KEY, nonce)
    assert read_probe(KEY, probe) == nonce
    reply = encode_reply(KEY, nonce, host)
    assert read_reply(KEY, [b"x" * 16, nonce], reply) == host
    assert len(reply) <= len(probe) == PROBE_BYTES  # no gain for whoever forges a sender


@given(nonces, st.integers(0, 52 * 8 - 1))
def test_a_changed_probe_is_nobodys(nonce: bytes, bit: int):
    probe = bytearray(encode_probe(KEY, nonce))
    probe[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Malformed, Refused)):
        read_probe(KEY, bytes(probe))


@given(nonces, hosts, st.data())
def test_a_changed_answer_is_nobodys(nonce: bytes, host: HostAddress, data: st.DataObject):
    reply = bytearray(encode_reply(KEY, nonce, host))
    bit = data.draw(st.integers(0, len(reply) * 8 - 1))
    reply[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Malformed, Refused)):
        read_reply(KEY, [nonce], bytes(reply))


@given(st.binary(max_size=300))
def test_garbage_is_neither(data: bytes):
    with pytest.raises((Malformed, Refused)):
        read_probe(KEY, data)
    with pytest.raises((Malformed, Refused)):
        read_reply(KEY, [bytes(16)], data)


def test_another_key_or_another_question():
    host = HostAddress("0" * 16, "10.0.0.1", 7947)
    with pytest.raises(Refused):
        read_probe(KEY, encode_probe(OTHER, bytes(16)))
    with pytest.raises(Refused):
        read_reply(KEY, [bytes(16)], encode_reply(OTHER, bytes(16), host))
    with pytest.raises(Refused):
        read_reply(KEY, [], encode_reply(KEY, bytes(16), host))
    with pytest.raises(Refused):
        read_reply(KEY, [b"n" * 16], encode_reply(KEY, bytes(16), host))


@pytest.mark.parametrize("address", ["not an address", "10.0.0.256", "host.example"])
def test_an_address_is_an_address(address: str):
    reply = encode_reply(KEY, bytes(16), HostAddress("0" * 16, address, 1))
    with pytest.raises(Malformed, match="without an address"):
        read_reply(KEY, [bytes(16)], reply)


def test_our_own_mistakes_are_told():
    with pytest.raises(ValueError):
        encode_probe(KEY, b"short")
    for bad in (HostAddress("00", "", 1), HostAddress("0" * 16, "1" * (MAX_ADDRESS_BYTES + 1), 1)):
        with pytest.raises(ValueError):
            encode_reply(KEY, bytes(16), bad)
    with pytest.raises(Malformed, match="port 0"):
        read_reply(KEY, [bytes(16)], encode_reply(KEY, bytes(16), HostAddress("0" * 16, "", 0)))
