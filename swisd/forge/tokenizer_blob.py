"""The tokenizer of a GGUF file as one JSON blob (read by `swisd.text`)."""

import json
from typing import Any

import numpy as np

from swisd.core.errors import ModelError
from swisd.forge.gguf_file import GgufFile

IDS = {
    "bos_id": "bos_token_id",
    "eos_id": "eos_token_id",
    "eot_id": "eot_token_id",
    "unk_id": "unknown_token_id",
    "pad_id": "padding_token_id",
}
FLAGS = {"add_bos": "add_bos_token", "add_eos": "add_eos_token", "add_space_prefix": "add_space_prefix"}


def tokenizer_table(file: GgufFile, vocab: int) -> dict[str, Any]:
    """The tokenizer's parts with their types checked; absent ones are None (ids) or left out."""

    def get(key: str) -> Any:
        return file.metadata.get(f"tokenizer.ggml.{key}")

    name = file.path.name
    tokens = get("tokens")
    if not isinstance(tokens, list) or len(tokens) != vocab or not all(isinstance(t, str) for t in tokens):
        raise ModelError(
            f"{name}: the vocabulary does not have the {vocab} texts that the embedding has rows"
        )
    table: dict[str, Any] = {"model": get("model"), "pre": get("pre"), "tokens": tokens}
    if not isinstance(table["model"], str) or not isinstance(table["pre"], str | None):
        raise ModelError(f"{name}: tokenizer.ggml.model is missing or no text")
    for key, kind in (("token_type", "iu"), ("scores", "f")):
        values = get(key)
        if values is None:
            continue
        if not isinstance(values, np.ndarray) or values.dtype.kind not in kind or len(values) != vocab:
            raise ModelError(f"{name}: tokenizer.ggml.{key} does not fit the vocabulary")
        table[key] = values.tolist()
    merges = get("merges")
    if merges is not None:
        if not isinstance(merges, list) or not all(isinstance(merge, str) for merge in merges):
            raise ModelError(f"{name}: tokenizer.ggml.merges is no list of texts")
        table["merges"] = merges
    for ours, theirs in IDS.items():
        value = get(theirs)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab
        ):
            raise ModelError(
                f"{name}: tokenizer.ggml.{theirs} is {str(value)[:40]!r}, outside the vocabulary"
            )
        if value is not None or ours != "eot_id":
            table[ours] = value
    for ours, theirs in FLAGS.items():
        value = get(theirs)
        if not isinstance(value, bool | None):
            raise ModelError(f"{name}: tokenizer.ggml.{theirs} is neither true nor false")
        table[ours] = value
    template = file.metadata.get("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise ModelError(f"{name}: tokenizer.chat_template is no text")
    table["chat_template"] = template
    return table


def to_bytes(table: dict[str, Any]) -> bytes:
    return json.dumps(table, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
