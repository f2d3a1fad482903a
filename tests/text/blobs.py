"""Tokenizer blobs for tests: from a GGUF file, and two small vocabularies made up here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swisd.text.bpe import BYTE_CHARACTERS
from swisd.text.tokenizer import BlobTokenizer, load_tokenizer

GGUF_KEYS = {
    "model": "tokenizer.ggml.model",
    "pre": "tokenizer.ggml.pre",
    "tokens": "tokenizer.ggml.tokens",
    "token_type": "tokenizer.ggml.token_type",
    "scores": "tokenizer.ggml.scores",
    "merges": "tokenizer.ggml.merges",
    "bos_id": "tokenizer.ggml.bos_token_id",
    "eos_id": "tokenizer.ggml.eos_token_id",
    "eot_id": "tokenizer.ggml.eot_token_id",
    "unk_id": "tokenizer.ggml.unknown_token_id",
    "pad_id": "tokenizer.ggml.padding_token_id",
    "add_bos": "tokenizer.ggml.add_bos_token",
    "add_eos": "tokenizer.ggml.add_eos_token",
    "add_space_prefix": "tokenizer.ggml.add_space_prefix",
    "chat_template": "tokenizer.chat_template",
}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
MERGES = (
    "t h|th e|Ġ t|Ġt he|h e|i n|in g|Ġ a|a n|an d|Ġa nd|l l|o o|oo o|e r|' s|Ġ Ġ|ĠĠ ĠĠ|Ċ Ċ|Ã ©|r e|re d|1 2"
    "|ĠĠ Ġ|e n|en d|n d|a a|aa aa|aa a|_ en|i m|b c|a b|ab c|. .|.. .|Ġ he|Ġhe ll|e ll|ell o|o w|Ġ w|o r"
)
WORDS = "▁t he th ▁the in ing ▁a an and ▁and ll ello hello ▁hello er ▁▁ ▁▁▁ ab abc bc aa aaa aaaa <b bo os éé"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def fields_of_gguf(path: Path) -> dict[str, Any]:
    import gguf

    fields = gguf.GGUFReader(path).fields
    return {name: fields[key].contents() if key in fields else None for name, key in GGUF_KEYS.items()}


def byte_pair_fields(**changes: Any) -> dict[str, Any]:
    """All 256 bytes, a few dozen merges and ChatML's control tokens."""
    merges = MERGES.split("|")
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", *BYTE_CHARACTERS]
    tokens += [merge.replace(" ", "") for merge in merges]
    kinds = [CONTROL, CONTROL, CONTROL, USER_DEFINED, *[NORMAL] * (len(tokens) - 4)]
    fields = {"model": "gpt2", "pre": "smollm", "tokens": tokens, "token_type": kinds, "merges": merges}
    return fields | {"bos_id": 1, "eos_id": 2, "add_bos": False, "chat_template": CHATML} | changes


def scored_fields(**changes: Any) -> dict[str, Any]:
    """Control, byte and user-defined tokens, some letters, and words with scores that compete."""
    entries: list[tuple[str, int, float]] = [
        ("<pad>", CONTROL, 0.0),
        ("<eos>", CONTROL, 0.0),
        ("<bos>", CONTROL, 0.0),
        ("<unk>", UNKNOWN, 0.0),
        ("<start_of_turn>", CONTROL, 0.0),
        ("<end_of_turn>", CONTROL, 0.0),
        ("\n", USER_DEFINED, 0.0),
        ("\n\n", USER_DEFINED, 0.0),
        ("\n\n\n", USER_DEFINED, 0.0),
        ("  ", USER_DEFINED, 0.0),
        ("</s>", USER_DEFINED, 0.0),
    ]
    entries += [(f"<0x{byte:02X}>", BYTE, 0.0) for byte in range(256)]
    entries += [(word, NORMAL, -float(rank // 2)) for rank, word in enumerate(WORDS.split())]
    letters = "▁abcdeghilnorst<>é"
    entries += [(letter, NORMAL, -100.0 - i) for i, letter in enumerate(letters)]
    tokens, kinds, scores = (list(column) for column in zip(*entries, strict=True))
    fields = {
        "model": "llama",
        "tokens": tokens,
        "token_type": kinds,
        "scores": scores,
        "add_space_prefix": False,
    }
    return fields | {"bos_id": 2, "eos_id": 1, "unk_id": 3, "pad_id": 0} | changes


def blob(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def tokenizer(make: Callable[..., dict[str, Any]], **changes: Any) -> BlobTokenizer:
    return load_tokenizer(blob(make(**changes)))
