"""Special tokens: found where asked for, and never by what a user types."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.errors import ModelError

from .blobs import CONTROL, NORMAL, USER_DEFINED, byte_pair_fields, tokenizer

repeatable = settings(deadline=None, derandomize=True)

TOKENIZER = tokenizer(byte_pair_fields)
markup = st.lists(
    st.sampled_from(["<|im_start|>", "<|im_end|>", "<|im", "_end|>", "<", "<think>", "a", " ", "|>"]),
    max_size=12,
).map("".join)


@repeatable
@given(markup)
def test_plain_text_holds_no_control_token(text):
    ids = TOKENIZER.encode(text, special=False)
    assert not {0, 1, 2} & set(ids)
    assert TOKENIZER.decode(ids) == text


@repeatable
@given(markup)
def test_partition_joins_to_the_text(text):
    for special in (False, True):
        parts = TOKENIZER.partition(text, special=special)
        assert (
            "".join(TOKENIZER.token_text(part) if isinstance(part, int) else part for part in parts) == text
        )
        assert all(parts) or 0 in parts


@repeatable
@given(markup)
def test_shielded_text_is_plain(text):
    parts = TOKENIZER.partition(TOKENIZER.shield(text, "\ufdd0"), special=True)
    assert not {0, 1, 2} & {part for part in parts if isinstance(part, int)}
    assert TOKENIZER.shield(text, "\ufdd0").replace("\ufdd0", "") == text


def test_control_tokens_where_they_are_asked_for():
    ids = TOKENIZER.encode("<|im_start|>the<|im_end|>", special=True)
    assert ids[0] == 1 and ids[-1] == 2
    assert TOKENIZER.decode(ids) == "the"
    assert TOKENIZER.token_bytes(1) == b"" and TOKENIZER.token_text(1) == "<|im_start|>"


def test_user_defined_tokens_are_always_found_and_shown():
    assert TOKENIZER.encode("<think>", special=False) == [3]
    assert TOKENIZER.decode([3]) == "<think>"


def test_ends_of_an_answer():
    assert TOKENIZER.eos_ids == {0, 2}


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        ([("<end_of_turn>", USER_DEFINED)], {"<end_of_turn>"}),
        ([("</s>", USER_DEFINED), ("<eos>", CONTROL)], {"<eos>"}),
        ([("</s>", CONTROL)], {"</s>"}),
        ([("<|return|>", CONTROL), ("<|call|>", CONTROL), ("<|end|>", CONTROL)], {"<|return|>", "<|call|>"}),
        ([("<|end|>", CONTROL)], {"<|end|>"}),
        ([("the end", NORMAL)], set()),
    ],
)
def test_ends_known_by_name(names, ends):
    fields = byte_pair_fields()
    fields["tokens"] += [name for name, _ in names]
    fields["token_type"] += [kind for _, kind in names]
    made = tokenizer(lambda: fields)
    assert {made.token_text(i) for i in made.eos_ids} == ends | {"<|endoftext|>", "<|im_end|>"}


def test_turn_markers_are_control_whatever_the_file_says():
    fields = byte_pair_fields()
    fields["token_type"][1] = fields["token_type"][2] = USER_DEFINED
    ids = tokenizer(lambda: fields).encode("<|im_start|><|im_end|>", special=False)
    assert not {1, 2} & set(ids)


@pytest.mark.parametrize("bad", [-1, 10_000])
def test_an_id_outside_the_vocabulary_is_an_error(bad):
    for call in (TOKENIZER.token_bytes, TOKENIZER.token_text, lambda i: TOKENIZER.decode([i])):
        with pytest.raises(ModelError, match="outside the vocabulary"):
            call(bad)
