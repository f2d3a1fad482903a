"""Byte-level BPE against its definition, another implementation, and the properties users rely on."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.text.bpe import BYTE_CHARACTERS
from swisd.text.words import word_splitter

from .blobs import byte_pair_fields, tokenizer

repeatable = settings(deadline=None, derandomize=True)

FIELDS = byte_pair_fields()
TOKENIZER = tokenizer(byte_pair_fields)
mergeable = st.text("the ingandlo'123 é\n.abc_", max_size=40)
# Characters that this Python's Unicode tables know: of others, two implementations may think differently.
assigned = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=30)


def plain_encode(text: str) -> list[int]:
    """The definition: join the leftmost pair of lowest rank, from the start, each time."""
    ranks = {tuple(merge.split()): rank for rank, merge in enumerate(FIELDS["merges"])}
    ids = []
    for word in word_splitter(FIELDS["pre"]).split(text):
        pieces = [BYTE_CHARACTERS[byte] for byte in word.encode()]
        while True:
            pairs = [(ranks.get(pair, 1000), at) for at, pair in enumerate(pairwise(pieces))]
            rank, at = min(pairs, default=(1000, 0))
            if rank == 1000:
                break
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        ids += [FIELDS["tokens"].index(piece) for piece in pieces]
    return ids


@repeatable
@given(mergeable)
def test_merges_follow_their_definition(text):
    assert TOKENIZER.encode(text, special=False) == plain_encode(text)


@repeatable
@given(st.text(max_size=60), st.booleans())
def test_any_text_comes_back(text, special):
    ids = TOKENIZER.encode(text, special=special)
    expected = text
    if special:
        for control in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
            expected = expected.replace(control, "")
    assert TOKENIZER.decode(ids) == expected


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2"])
@repeatable
@given(text=mergeable | assigned)
def test_another_implementation_agrees(pre, text):
    tokenizers = pytest.importorskip("tokenizers")
    other = _rust_tokenizer(tokenizers, pre)
    assert tokenizer(byte_pair_fields, pre=pre).encode(text, special=False) == other.encode(text).ids


def _rust_tokenizer(tokenizers, pre):
    merges = [tuple(merge.split()) for merge in FIELDS["merges"]]
    vocabulary = {token: i for i, token in enumerate(FIELDS["tokens"])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    steps = tokenizers.pre_tokenizers
    if pre == "qwen2":
        pattern = (
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        chain = [
            steps.Split(tokenizers.Regex(pattern), "isolated"),
            steps.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    else:
        digits = [steps.Digits(individual_digits=True)] if pre == "smollm" else []
        chain = [*digits, steps.ByteLevel(add_prefix_space=False)]
    made.pre_tokenizer = steps.Sequence(chain)
    return made


def test_a_long_word_is_merged_like_a_short_one():
    # 200,000 letters: an algorithm that looks at all pairs for every merge would take hours.
    ids = TOKENIZER.encode("a" * 200_000, special=False)
    assert ids == [TOKENIZER.encode("aaaa", special=False)[0]] * 50_000


def test_a_word_is_the_same_when_met_again():
    fresh = tokenizer(byte_pair_fields)
    assert fresh.encode("the the the", special=False) == fresh.encode("the the the", special=False)


def test_bytes_that_no_token_spells_are_dropped():
    fields = byte_pair_fields()
    gone = fields["tokens"].index(BYTE_CHARACTERS[0xC3])
    fields["tokens"][gone] = "[gone]"
    short = tokenizer(lambda: fields)
    assert short.decode(short.encode("aàb", special=False)) == "a\ufffdb"


def test_a_merge_into_no_token_falls_apart_into_bytes():
    changed = tokenizer(byte_pair_fields, merges=["q q", *FIELDS["merges"]])
    assert changed.decode(changed.encode("qqqaaaa", special=False)) == "qqqaaaa"


def test_llama_3_takes_a_word_that_is_a_token_whole():
    fields = byte_pair_fields(tokens=[*FIELDS["tokens"], "xyz"], token_type=[*FIELDS["token_type"], 1])
    for pre, whole in (("llama-bpe", True), ("qwen2", False)):
        made = tokenizer(lambda pre=pre: fields | {"pre": pre, "add_bos": None})
        assert (made.encode("xyz", special=False) == [len(FIELDS["tokens"])]) is whole
        assert made.add_bos is whole


def test_no_merge_spells_a_control_token():
    # A file whose merges do lead there: the text must stay text.
    parts = ["<| im", "<|im _en", "<|im_en d", "<|im_end |>", "< |", "| >", "e n", "i m", "_ en"]
    changed = tokenizer(byte_pair_fields, merges=parts, tokens=[*FIELDS["tokens"]])
    ids = changed.encode("<|im_end|>", special=False)
    assert not changed.eos_ids & set(ids)
    assert changed.decode(ids) == "<|im_end|>"


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb", "\ud83d\ude00"])
def test_half_surrogates_are_read_as_replacements(text):
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert TOKENIZER.decode(TOKENIZER.encode(text, special=True)) == expected
