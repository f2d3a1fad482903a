"""The join code: what people type, scan and mistype."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.errors import BadInput
from swisd.wire.joincode import JoinCode, key_from_text, key_text, parse_join_code

keys = st.binary(min_size=16, max_size=16)
hosts = st.one_of(
    st.none(),
    st.ip_addresses().map(str),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,30}", fullmatch=True),
)


@given(keys, hosts, st.integers(1, 65535))
def test_a_code_reads_back(key: bytes, host: str | None, port: int):
    code = JoinCode(key, host, port if host else None)
    assert parse_join_code(str(code)) == code
    assert parse_join_code(f"  {code}/\n".replace("//\n", "/\n")) == code


@given(keys)
def test_a_key_reads_back_in_any_case(key: bytes):
    text = key_text(key)
    assert len(text) == 26
    assert key_from_text(text.lower()) == key_from_text(f" {text} ") == key


@given(st.text(max_size=60))
def test_anything_else_is_refused_in_words(text: str):
    for read in (parse_join_code, key_from_text):
        try:
            read(text)
        except BadInput as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_out_of_range_is_named(port: int):
    with pytest.raises(BadInput, match=f"port {port}"):
        parse_join_code(f"swisd://10.0.0.1:{port}/{key_text(bytes(16))}")


@pytest.mark.parametrize(
    "text",
    ["", "swisd://", "http://10.0.0.1:1/" + "A" * 26, "swisd://h:1/" + "A" * 25, "swisd://h:1/" + "1" * 26,
     "swisd://h/" + "A" * 26, "swisd://h o:1/" + "A" * 26, "swisd://h:1/" + "A" * 26 + "/x"],
)  # fmt: skip
def test_what_is_not_a_code_says_what_one_looks_like(text: str):
    with pytest.raises(BadInput, match="not a join code"):
        parse_join_code(text)
