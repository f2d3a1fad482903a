import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.checked import Malformed
from swisd.store.protocol import (
    MAX_BLOB_BYTES,
    REPLY,
    REQUEST,
    Reply,
    Request,
    Status,
    read_reply,
    read_request,
    span,
    write_reply,
    write_request,
)

counts = st.integers(0, MAX_BLOB_BYTES)
shas = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(shas, counts, counts)
def test_request_round_trip(sha: str, offset: int, length: int) -> None:
    request = Request(sha, offset, length)
    assert read_request(write_request(request)) == request


@given(counts, counts)
def test_reply_round_trip(total: int, follows: int) -> None:
    reply = Reply(Status.OK, total, min(total, follows))
    assert read_reply(write_reply(reply)) == reply


@given(st.binary(max_size=100) | st.binary(min_size=REQUEST.size, max_size=REQUEST.size))
def test_any_bytes_are_a_request_or_malformed(data: bytes) -> None:
    for words in (data, b"SWQ1" + data[4:]):
        try:
            request = read_request(words)
        except Malformed:
            continue
        assert len(request.sha) == 64 and 0 <= request.offset <= MAX_BLOB_BYTES


@given(st.binary(max_size=40) | st.binary(min_size=REPLY.size, max_size=REPLY.size))
def test_any_bytes_are_a_reply_or_malformed(data: bytes) -> None:
    for words in (data, b"SWR1" + data[4:]):
        try:
            reply = read_reply(words)
        except Malformed:
            continue
        assert reply.follows <= reply.total <= MAX_BLOB_BYTES


@pytest.mark.parametrize("bad", [("x", 0, 0), ("A" * 64, 0, 0), ("a" * 64, -1, 0), ("a" * 64, 0, 1 << 49)])
def test_bad_requests_are_not_made(bad: tuple[str, int, int]) -> None:
    with pytest.raises(ValueError):
        Request(*bad)


@given(counts, counts, counts)
def test_span_lies_in_the_blob(offset: int, length: int, total: int) -> None:
    ends = span(Request("a" * 64, offset, length), total)
    if ends is None:
        assert offset + length > total
    else:
        assert 0 <= ends[0] <= ends[1] <= total and (length == 0 or ends[1] - ends[0] == length)
