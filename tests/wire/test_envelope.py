"""Bus payloads: only a holder of the key makes one that opens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.checked import Malformed
from swisd.wire.envelope import HEADER_BYTES, Foreign, open_sealed, seal

KEY = b"k" * 16
SENDER = "00112233445566ff"


@given(st.text(max_size=100), st.binary(max_size=500))
def test_what_is_sealed_opens(topic: str, body: bytes):
    sealed = seal(KEY, topic, SENDER, body)
    opened = open_sealed(KEY, topic, sealed, 1000)
    assert (opened.sender, bytes(opened.body)) == (SENDER, body)


@given(st.binary(min_size=1, max_size=40), st.data())
def test_any_changed_bit_is_noticed(body: bytes, data: st.DataObject):
    sealed = bytearray(seal(KEY, "t", SENDER, body))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Malformed, Foreign)):
        open_sealed(KEY, "t", bytes(sealed), 1000)


@given(st.binary(max_size=200))
def test_garbage_does_not_open(data: bytes):
    with pytest.raises((Malformed, Foreign)):
        open_sealed(KEY, "t", data, 1000)


def test_a_payload_belongs_to_its_topic_and_key():
    sealed = seal(KEY, "a/b", SENDER, b"x")
    for key, topic in ((KEY, "a/c"), (b"o" * 16, "a/b")):
        with pytest.raises(Foreign):
            open_sealed(key, topic, sealed, 1000)


def test_topic_and_sender_cannot_be_shifted_into_each_other():
    sealed = seal(KEY, "topic", "41" * 8, b"body")
    moved = sealed[:17] + b"A" * 8 + sealed[25:]
    assert moved == sealed  # the sender is those bytes
    with pytest.raises(Foreign):
        open_sealed(KEY, "topicA", sealed, 1000)


def test_size_and_version_are_checked_first():
    sealed = seal(KEY, "t", SENDER, bytes(100))
    with pytest.raises(Malformed, match="125 bytes"):
        open_sealed(KEY, "t", sealed, 124)
    with pytest.raises(Malformed):
        open_sealed(KEY, "t", sealed[: HEADER_BYTES - 1], 1000)
    with pytest.raises(Malformed, match="version 9"):
        open_sealed(KEY, "t", b"\x09" + sealed[1:], 1000)


def test_a_sender_is_sixteen_hex_digits():
    for sender in ("00", "zz" * 8, "00" * 9):
        with pytest.raises(ValueError):
            seal(KEY, "t", sender, b"")
