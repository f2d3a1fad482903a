"""JSON from outside: what was written is read back, and anything else is Malformed, never another error."""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from builders import a_manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import MESSAGES, anything, records

from swisd.core.checked import (
    Ident,
    Items,
    Malformed,
    Range,
    Text,
    from_json,
    from_plain,
    plain,
    to_json,
)
from swisd.core.messages import Gone
from swisd.core.model import Manifest

FEW = settings(deadline=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck))
MANY = settings(deadline=None, derandomize=True, max_examples=150, suppress_health_check=list(HealthCheck))


def places(raw: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value inside plain data."""
    found = [here]
    entries = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for key, item in entries:
        found += places(item, (*here, key))
    return found


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@FEW
@given(data=st.data())
def test_a_message_is_read_back_as_it_was(kind: type, data: st.DataObject):
    message = data.draw(records(kind))
    body = to_json(message)
    assert from_json(kind, body) == message
    assert to_json(from_json(kind, body)) == body


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@FEW
@given(data=st.data())
def test_a_changed_message_is_read_or_malformed(kind: type, data: st.DataObject):
    raw = json.loads(to_json(data.draw(records(kind))))
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(st.sampled_from(places(raw)[1:]))
        target = raw
        for key in way[:-1]:
            target = target[key]
        if data.draw(st.booleans()):
            target[way[-1]] = data.draw(anything)
        else:
            del target[way[-1]]
    try:
        message = from_json(kind, json.dumps(raw).encode())
    except Malformed as error:
        assert str(error)
    else:
        assert from_json(kind, to_json(message)) == message  # what was read can be said on


@MANY
@given(st.sampled_from(MESSAGES), st.binary(max_size=60) | anything.map(lambda raw: json.dumps(raw).encode()))
def test_garbage_is_malformed(kind: type, data: bytes):
    with pytest.raises(Malformed):
        from_json(kind, data)


@MANY
@given(st.binary(max_size=8), st.integers(0, 1000), st.integers(0, 40))
def test_cut_and_overwritten_bytes_are_read_or_malformed(junk: bytes, at: int, cut: int):
    body = a_manifest().to_bytes()
    at %= len(body)
    with suppress(Malformed):
        from_json(Manifest, body[:at] + junk + body[at + cut :])


@dataclass(frozen=True)
class Sample:
    whole: Annotated[int, Range(0, 10)] = 0
    real: Annotated[float, Range(-1.0, 1.0)] = 0.0
    flag: bool = False
    text: Annotated[str, Text(3)] = ""
    word: Literal["a", "b"] = "a"
    items: Annotated[tuple[Annotated[int, Range(0, 5)], ...], Items(2)] = ()
    some: Annotated[tuple[int, ...], Items(2, least=1)] = (1,)
    pair: tuple[int, int] = (0, 0)
    table: Annotated[dict[str, int], Items(2), Text(2)] | None = None
    device: Annotated[str, Ident()] = "0" * 16


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ('{"whole": 11}', "whole"),
        ('{"whole": -1}', "whole"),
        ('{"whole": true}', "whole"),
        ('{"whole": 1.0}', "whole"),
        ('{"whole": "1"}', "whole"),
        ('{"whole": null}', "whole"),
        ('{"real": 1.1}', "real"),
        ('{"real": false}', "real"),
        ('{"real": NaN}', "NaN"),
        ('{"real": Infinity}', "Infinity"),
        ('{"real": -Infinity}', "Infinity"),
        ('{"real": 1e999}', "real"),
        ('{"flag": 1}', "flag"),
        ('{"text": "long"}', "text"),
        ('{"text": "\\ud800"}', "text"),
        ('{"word": "c"}', "word"),
        ('{"word": 1}', "word"),
        ('{"items": [1, 2, 3]}', "items"),
        ('{"items": [6]}', "items"),
        ('{"items": {"0": 1}}', "items"),
        ('{"items": "12"}', "items"),
        ('{"some": []}', "some"),
        ('{"some": [1, 2, 3]}', "some"),
        ('{"pair": [1]}', "pair"),
        ('{"pair": [1, 2, 3]}', "pair"),
        ('{"table": {"a": 1, "b": 2, "c": 3}}', "table"),
        ('{"table": {"abc": 1}}', "table"),
        ('{"table": {"\\ud800": 1}}', "table"),
        ('{"table": {"a": "1"}}', "table"),
        ('{"device": "0"}', "device"),
        ('{"device": "0123456789ABCDEF"}', "device"),
        ('{"device": "0123456789abcde/"}', "device"),
        ('{"device": "0123456789abcdef\\n"}', "device"),
        ("[]", "not a table"),
        ("{", "not JSON"),
        ("\xff", "not JSON"),
    ],
)
def test_type_and_bounds_of_every_field_are_checked(body: str, names: str):
    with pytest.raises(Malformed, match=names):
        from_json(Sample, body.encode("latin-1"))


def test_what_lies_on_the_bounds_is_taken():
    body = b'{"whole":10,"real":-1,"text":"abc","items":[0,5],"some":[7],"pair":[1,2],"table":{"ab":1,"c":2}}'
    assert from_json(Sample, body) == Sample(
        10, -1.0, False, "abc", "a", (0, 5), (7,), (1, 2), {"ab": 1, "c": 2}
    )
    assert isinstance(from_json(Sample, b'{"real":1}').real, float)


def test_unknown_fields_are_ignored_and_missing_ones_have_their_default():
    assert from_json(Sample, b'{"new": {"of": [1]}, "whole": 3}') == Sample(3)
    with pytest.raises(Malformed, match="Gone: lacks"):
        from_json(Gone, b"{}")


@pytest.mark.parametrize("field", ["text", "word", "items", "table", "other"])
def test_deep_nesting_is_malformed_or_ignored_at_any_depth(field: str):
    for depth in (*range(1, 40), *range(800, 1100), 100_000):
        body = b'{"%s": %s%s}' % (field.encode(), b"[" * depth, b"]" * depth)
        with suppress(Malformed):
            from_json(Sample, body)


def test_more_bytes_than_the_limit_are_not_parsed():
    with pytest.raises(Malformed, match="more than 10"):
        from_json(Sample, b'{"whole": 3}', 10)


def test_equal_values_have_equal_bytes():
    assert to_json(Sample(table={"b": 1, "a": 2})) == to_json(Sample(table={"a": 2, "b": 1}))
    assert b" " not in to_json(Sample())


def test_a_check_of_the_class_itself_is_malformed_too():
    raw = plain(a_manifest())
    raw["graph"] = 999
    with pytest.raises(Malformed, match="names a blob that is not listed"):
        from_plain(Manifest, raw)
    raw["graph"] = 0
    raw["blobs"][0]["sha256"] = "Z" * 64
    with pytest.raises(Malformed, match="sha256"):
        from_plain(Manifest, raw)
