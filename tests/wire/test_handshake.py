"""The proof of the key as bytes: what passes, and that nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.checked import Malformed
from swisd.wire import handshake
from swisd.wire.handshake import Hello, Purpose, Refused

KEY, OTHER = b"k" * 16, b"o" * 16
DEVICE = "0123456789abcdef"
NONCE_C, NONCE_S = b"c" * 16, b"s" * 16
purposes = st.sampled_from(Purpose)
keys = st.binary(min_size=16, max_size=16)


@given(keys, purposes, st.binary(min_size=8, max_size=8), keys, keys)
def test_both_sides_prove_the_key(key: bytes, purpose: Purpose, who: bytes, nonce_c: bytes, nonce_s: bytes):
    device = who.hex()
    words = handshake.hello(key, purpose, device, nonce_c)
    assert len(words) == handshake.HELLO_BYTES
    greeting = handshake.read_hello(key, words)
    assert greeting == Hello(purpose, device, nonce_c)
    answer = handshake.accept(key, greeting, nonce_s)
    assert len(answer) == handshake.ACCEPT_BYTES
    confirm = handshake.read_accept(key, greeting, answer)
    assert len(confirm) == handshake.CONFIRM_BYTES
    handshake.read_confirm(key, greeting, nonce_s, confirm)


@given(st.integers(0, handshake.HELLO_BYTES * 8 - 1))
def test_a_hello_with_any_bit_changed_is_no_hello(bit: int):
    words = bytearray(handshake.hello(KEY, Purpose.LANE, DEVICE, NONCE_C))
    words[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Malformed, Refused)):
        handshake.read_hello(KEY, bytes(words))


@given(st.binary(max_size=200))
def test_garbage_is_no_hello(data: bytes):
    with pytest.raises((Malformed, Refused)):
        handshake.read_hello(KEY, data)


def test_another_key_is_refused_at_every_step():
    words = handshake.hello(OTHER, Purpose.BUS, DEVICE, NONCE_C)
    with pytest.raises(Refused):
        handshake.read_hello(KEY, words)
    greeting = handshake.read_hello(OTHER, words)
    with pytest.raises(Refused):
        handshake.read_accept(KEY, greeting, handshake.accept(OTHER, greeting, NONCE_S))
    with pytest.raises(Refused):
        handshake.read_confirm(KEY, greeting, NONCE_S, bytes(handshake.CONFIRM_BYTES))


def test_a_proof_is_good_for_one_connection_purpose_and_device_only():
    greeting = Hello(Purpose.BUS, DEVICE, NONCE_C)
    answer = handshake.accept(KEY, greeting, NONCE_S)
    confirm = handshake.read_accept(KEY, greeting, answer)
    for other in (
        Hello(Purpose.LANE, DEVICE, NONCE_C),
        Hello(Purpose.BUS, "f" * 16, NONCE_C),
        Hello(Purpose.BUS, DEVICE, b"x" * 16),
    ):
        with pytest.raises(Refused):
            handshake.read_accept(KEY, other, answer)
        with pytest.raises(Refused):
            handshake.read_confirm(KEY, other, NONCE_S, confirm)
    with pytest.raises(Refused):
        handshake.read_confirm(KEY, greeting, b"x" * 16, confirm)
    with pytest.raises(Refused):  # one side's proof is not the other's
        handshake.read_confirm(KEY, greeting, NONCE_S, answer[handshake.NONCE_BYTES :])


@given(st.binary(max_size=100))
def test_garbage_is_no_answer_and_no_confirmation(data: bytes):
    greeting = Hello(Purpose.STORE, DEVICE, NONCE_C)
    with pytest.raises(Refused):
        handshake.read_accept(KEY, greeting, data)
    with pytest.raises(Refused):
        handshake.read_confirm(KEY, greeting, NONCE_S, data)


def test_an_unknown_purpose_is_malformed():
    words = handshake.hello(KEY, Purpose.BUS, DEVICE, NONCE_C)
    with pytest.raises(Malformed, match="unknown purpose"):
        handshake.read_hello(KEY, words[:4] + b"X" + words[5:])


@pytest.mark.parametrize(("device", "nonce"), [("00", NONCE_C), (DEVICE, b"short"), ("zz" * 8, NONCE_C)])
def test_our_own_mistakes_are_told(device: str, nonce: bytes):
    with pytest.raises(ValueError):
        handshake.hello(KEY, Purpose.BUS, device, nonce)
