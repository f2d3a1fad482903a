"""The default model's own vocabulary: ids as llama.cpp gives them (source in the data file)."""

import json
from pathlib import Path

import pytest

from swisd.text.chat import encode_chat
from swisd.text.tokenizer import BlobTokenizer, load_tokenizer

from .blobs import blob, fields_of_gguf

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "smollm2_tokens.json").read_text())
pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def fields(smollm2_gguf: Path) -> dict:
    return fields_of_gguf(smollm2_gguf)


@pytest.fixture(scope="module")
def smollm2(fields: dict) -> BlobTokenizer:
    return load_tokenizer(blob(fields))


def test_reference_texts(smollm2):
    for text, ids in VECTORS["reference"]:
        assert smollm2.encode(text, special=True) == ids


def test_tricky_texts(smollm2):
    for special in (False, True):
        for text, ids in VECTORS["special" if special else "plain"]:
            assert smollm2.encode(text, special=special) == ids, text


@pytest.mark.parametrize("pre", ["qwen2", "gpt-2", "default", "llama-bpe"])
def test_other_pre_tokenizers_over_the_same_vocabulary(fields, pre):
    tokenizer = load_tokenizer(blob(fields | {"pre": pre}))
    for text, ids in VECTORS[pre]:
        assert tokenizer.encode(text, special=False) == ids, text


def test_the_reference_chat(smollm2):
    text, ids = VECTORS["reference"][0]
    assert "What is the capital of France?" in text
    assert encode_chat(smollm2, [{"role": "user", "content": "What is the capital of France?"}]) == ids


def test_what_the_file_says(smollm2):
    assert (smollm2.vocab_size, smollm2.bos_id, smollm2.add_bos) == (49152, 1, False)
    assert {smollm2.token_text(i) for i in smollm2.eos_ids} == {"<|im_end|>", "<|endoftext|>", "<reponame>"}
