"""Word splitting by the models' published patterns; `test_smollm2` has llama.cpp's ids for more of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.text.words import word_splitter

repeatable = settings(deadline=None, derandomize=True)

PRES = ["gpt-2", "smollm", "qwen2", "default", "llama-bpe"]


@pytest.mark.parametrize("pre", PRES)
@repeatable
@given(text=st.text(max_size=60))
def test_no_character_is_lost(pre, text):
    words = word_splitter(pre).split(text)
    assert "".join(words) == text
    assert all(words)


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("gpt-2", "it's we'll IT'S", ["it", "'s", " we", "'ll", " IT", "'", "S"]),
        ("qwen2", "it's we'll IT'S", ["it", "'s", " we", "'ll", " IT", "'S"]),
        ("gpt-2", "in 2024", ["in", " 2024"]),
        ("smollm", "in 2024", ["in", " ", "2", "0", "2", "4"]),
        ("qwen2", "in 2024", ["in", " ", "2", "0", "2", "4"]),
        ("llama-bpe", "in 20245", ["in", " ", "202", "45"]),
        ("default", "in 20245!x", ["in", " ", "202", "45", "!", "x"]),
        ("smollm", "٣Ⅷ²", ["٣", "Ⅷ", "²"]),
        ("gpt-2", "a   b", ["a", "  ", " b"]),
        ("gpt-2", "a   ", ["a", "   "]),
        ("smollm", "a   1", ["a", "   ", "1"]),
        ("gpt-2", "a\u00a0b\u3000\u3000c", ["a", "\u00a0", "b", "\u3000", "\u3000", "c"]),
        ("gpt-2", "x\x1c\x1fy\x85z", ["x", "\x1c\x1f", "y", "\x85", "z"]),
        ("qwen2", "x.\n\n y", ["x", ".\n\n", " y"]),
        ("qwen2", " \n \n  y", [" \n \n", " ", " y"]),
        ("qwen2", "(word) \u00a0word", ["(word", ")", " ", "\u00a0word"]),
        ("gpt-2", "e\u0301 nа", ["e", "\u0301", " nа"]),
        ("gpt-2", "日本語、です", ["日本語", "、", "です"]),
        ("default", "a`b–c€d", ["a", "`", "b", "–", "c", "€", "d"]),
    ],
)
def test_words(pre, text, words):
    assert word_splitter(pre).split(text) == words
