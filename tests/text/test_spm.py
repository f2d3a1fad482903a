"""Scored pairs (SentencePiece style) against their definition."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .blobs import BYTE, CONTROL, scored_fields, tokenizer

repeatable = settings(deadline=None, derandomize=True)

FIELDS = scored_fields()
TOKENIZER = tokenizer(scored_fields)
texts = st.text("the andgillo abc<>eos/éx\n", max_size=40) | st.text(max_size=20)


def plain_pieces(text: str) -> list[str]:
    """The definition: join the leftmost pair of highest score, from the start, each time."""
    usable = {
        token: score
        for token, kind, score in zip(FIELDS["tokens"], FIELDS["token_type"], FIELDS["scores"], strict=True)
        if kind not in (CONTROL, BYTE) and token != "<unk>"
    }
    pieces = list(text.replace(" ", "▁"))
    while True:
        pairs = [
            (-usable[left + right], at)
            for at, (left, right) in enumerate(pairwise(pieces))
            if left + right in usable
        ]
        if not pairs:
            return pieces
        _, at = min(pairs)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


def plain_encode(text: str) -> list[int]:
    ids = []
    for part in TOKENIZER.partition(text, special=False):
        if isinstance(part, int):
            ids.append(part)
            continue
        for piece in plain_pieces(part):
            if piece in FIELDS["tokens"]:
                ids.append(FIELDS["tokens"].index(piece))
            else:
                ids += [FIELDS["tokens"].index(f"<0x{byte:02X}>") for byte in piece.encode()]
    return ids


@repeatable
@given(texts)
def test_merges_follow_their_definition(text):
    assert TOKENIZER.encode(text, special=False) == plain_encode(text)


@repeatable
@given(texts)
def test_a_token_across_words_changes_nothing_else(text):
    # With such a token in the vocabulary words can no longer be merged one by one.
    fields = scored_fields()
    fields["tokens"].append("q▁q")
    fields["token_type"].append(1)
    fields["scores"].append(-1.0)
    whole = tokenizer(lambda: fields)
    if "q q" not in text:
        assert whole.encode(text, special=False) == TOKENIZER.encode(text, special=False)
    assert whole.encode("q q", special=False)[-1] != len(fields["tokens"]) - 1, "q alone is no token"


@repeatable
@given(st.text(max_size=40))
def test_any_text_comes_back(text):
    ids = TOKENIZER.encode(text, special=False)
    assert TOKENIZER.decode(ids) == text.replace("▁", " ")


def test_the_prefix_space_follows_special_tokens_only():
    prefixed = tokenizer(scored_fields, add_space_prefix=True)
    ids = prefixed.encode("the<eos>the\nthe", special=True)
    the, plain = FIELDS["tokens"].index("▁the"), TOKENIZER.encode("the", special=False)
    assert ids == [the, 1, the, 6, the]
    assert TOKENIZER.encode("the<eos>the", special=True) == [*plain, 1, *plain]


def test_runs_of_newlines_take_the_longest_token_first():
    names = [FIELDS["tokens"][i] for i in TOKENIZER.encode("\n" * 7, special=False)]
    assert names == ["\n\n\n", "\n\n\n", "\n"]


@pytest.mark.parametrize("text", ["<bos>", "<0x41>", "<end_of_turn>"])
def test_typed_control_and_byte_tokens_stay_text(text):
    ids = TOKENIZER.encode(text, special=False)
    assert FIELDS["tokens"].index(text) not in ids
    assert TOKENIZER.decode(ids) == text


def test_a_long_text_without_spaces():
    ids = TOKENIZER.encode("a" * 99_999, special=False)
    assert ids == [FIELDS["tokens"].index("aaa")] * 33_333


def test_without_byte_tokens_the_unknown_token_stands_in():
    fields = scored_fields()
    fields["token_type"] = [1 if kind == BYTE else kind for kind in fields["token_type"]]
    assert tokenizer(lambda: fields).encode("aж", special=False)[-2:] == [3, 3]


def test_defaults_of_the_format():
    assert TOKENIZER.add_bos
    assert TOKENIZER.eos_ids == {1, 5}, "</s> is markup in this vocabulary"
