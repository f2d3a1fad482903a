import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.checked import Malformed
from swisd.store.protocol import (
    MAX_BLOB_BYTES,
    REPLY,
    REQUEST,
    How,
    Reply,
    Request,
    Status,
    read_devices,
    read_reply,
    read_request,
    span,
    write_devices,
    write_reply,
    write_request,
)

counts = st.integers(0, MAX_BLOB_BYTES)
shas = st.binary(min_size=32, max_size=32).map(bytes.hex)
devices = st.binary(min_size=8, max_size=8).map(bytes.hex)


@given(shas, counts, counts, st.sampled_from(How), st.lists(devices, max_size=8))
def test_request_round_trip(sha: str, offset: int, length: int, how: How, without: list[str]) -> None:
    request = Request(sha, offset, length, how, tuple(without))
    assert read_request(write_request(request)) == request


@given(counts, counts)
def test_reply_round_trip(total: int, follows: int) -> None:
    reply = Reply(Status.OK, total, min(total, follows))
    assert read_reply(write_reply(reply)) == reply


@given(st.lists(devices, max_size=4))
def test_names_of_devices_round_trip(names: list[str]) -> None:
    assert read_devices(write_devices(tuple(names))) == tuple(names)


@given(st.binary(max_size=100) | st.binary(min_size=REQUEST.size, max_size=REQUEST.size))
def test_any_bytes_are_a_request_or_malformed(data: bytes) -> None:
    for words in (data, b"SWQ2" + data[4:]):
        try:
            request = read_request(words)
        except Malformed:
            continue
        assert len(request.sha) == 64 and 0 <= request.offset <= MAX_BLOB_BYTES


@given(st.binary(max_size=40) | st.binary(min_size=REPLY.size, max_size=REPLY.size))
def test_any_bytes_are_a_reply_or_malformed(data: bytes) -> None:
    for words in (data, b"SWR2" + data[4:]):
        try:
            reply = read_reply(words)
        except Malformed:
            continue
        assert reply.total <= MAX_BLOB_BYTES
        assert reply.follows <= (32 if reply.status is Status.ELSEWHERE else reply.total)
        assert reply.follows == 0 or reply.status in (Status.OK, Status.ELSEWHERE)


@pytest.mark.parametrize("bad", [("x", 0, 0), ("A" * 64, 0, 0), ("a" * 64, -1, 0), ("a" * 64, 0, 1 << 49)])
def test_bad_requests_are_not_made(bad: tuple[str, int, int]) -> None:
    with pytest.raises(ValueError):
        Request(*bad)
    for without in (("ab" * 8,) * 9, ("AB" * 8,), ("ab",)):
        with pytest.raises(ValueError):
            Request("a" * 64, without=without)


@given(counts, counts, counts)
def test_span_lies_in_the_blob(offset: int, length: int, total: int) -> None:
    ends = span(Request("a" * 64, offset, length), total)
    if ends is None:
        assert offset + length > total
    else:
        assert 0 <= ends[0] <= ends[1] <= total and (length == 0 or ends[1] - ends[0] == length)
