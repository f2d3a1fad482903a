"""A tokenizer blob comes from the network: whatever is wrong in it is one clear line, and nothing worse."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.errors import ModelError
from swisd.text.tokenizer import load_tokenizer

from .blobs import blob, byte_pair_fields, scored_fields

repeatable = settings(deadline=None, derandomize=True)

BAD = [
    ("model", "wordpiece", "model 'wordpiece' is not known"),
    ("model", None, "model '' is not known"),
    ("model", 3, "model is not a text"),
    ("pre", "klingon", "pre-tokenizer 'klingon' is not known"),
    ("tokens", None, "tokens is not a list"),
    ("tokens", [], "tokens is empty"),
    ("tokens", ["a", 1], "tokens is not a list"),
    ("tokens", ["a" * 5000], "more than 4096 characters"),
    ("tokens", ["\ud800"], "not valid Unicode"),
    ("token_type", [1], "token_type is not a list"),
    ("token_type", "1", "token_type is not a list"),
    ("merges", None, "without merges"),
    ("merges", ["ab"], "merges is not a list of"),
    ("merges", ["a b c"], "merges is not a list of"),
    ("merges", [" b"], "merges is not a list of"),
    ("merges", [["a", "b"]], "merges is not a list of"),
    ("scores", [0.0], "scores is not a list"),
    ("bos_id", 100_000, "bos_id is not a token id"),
    ("bos_id", -1, "bos_id is not a token id"),
    ("eos_id", True, "eos_id is not a token id"),
    ("unk_id", 1.0, "unk_id is not a token id"),
    ("add_bos", 1, "add_bos is neither"),
    ("chat_template", "x" * 70_000, "chat_template is not a text"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD)
def test_a_wrong_field_is_named(field, value, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_tokenizer(blob(byte_pair_fields(**{field: value})))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scores", [None, [0.0], "x", [1e999], [10**400], [True]])
def test_scores_are_checked(scores):
    fields = scored_fields()
    if isinstance(scores, list) and len(scores) == 1 and scores != [0.0]:
        scores = scores * len(fields["tokens"])
    with pytest.raises(ModelError, match="scores"):
        load_tokenizer(blob(fields | {"scores": scores}))


@pytest.mark.parametrize("kind", [-1, 7, 1.0, True, None])
def test_token_types_are_checked(kind):
    fields = byte_pair_fields()
    fields["token_type"][5] = kind
    with pytest.raises(ModelError, match="token_type"):
        load_tokenizer(blob(fields))


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"null", b"{", b"[" * 100_000])
def test_what_is_no_table_is_refused(data):
    with pytest.raises(ModelError, match="not"):
        load_tokenizer(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@repeatable
@given(st.sampled_from(sorted(byte_pair_fields())), json_values, st.booleans())
def test_any_value_in_any_field_loads_or_is_a_model_error(field, value, scored):
    fields = (scored_fields if scored else byte_pair_fields)(**{field: value})
    try:
        tokenizer = load_tokenizer(json.dumps(fields).encode())
    except ModelError:
        return
    tokenizer.decode(tokenizer.encode("the <|im_end|> <0x0A>", special=True))
