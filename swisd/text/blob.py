"""The tokenizer blob: what a model file says about its vocabulary, as checked JSON.

The keys are those of the GGUF specification (`tokenizer.ggml.*`,
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) without their prefix. The bytes come from another
device or from a model file, so nothing in them is believed before it is checked here.
"""

import json
from array import array
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from typing import Any

from swisd.core.errors import ModelError

MAX_BLOB_BYTES = 64 << 20
MAX_TOKENS = 1 << 20
MAX_TOKEN_CHARS = 4096
MAX_TEMPLATE_CHARS = 64 << 10


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type` of the GGUF specification."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A checked tokenizer blob; ids are positions in `tokens`.

    `scores` is empty where the model has none, `merges` likewise. `add_bos`, `add_eos` and
    `add_space_prefix` are None where the file is silent: the tokenizer then takes its own default.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    token_type: bytes
    scores: "array[float]"
    merges: tuple[str, ...]
    bos_id: int | None
    eos_id: int | None
    eot_id: int | None
    unk_id: int | None
    pad_id: int | None
    add_bos: bool | None
    add_eos: bool | None
    add_space_prefix: bool | None
    chat_template: str | None

    @classmethod
    def from_bytes(cls, data: bytes) -> "Vocabulary":
        """Parse and check a blob from an untrusted source.

        Raises `ModelError` naming the field that is wrong.
        """
        if len(data) > MAX_BLOB_BYTES:
            raise ModelError(f"tokenizer is {len(data)} bytes, more than {MAX_BLOB_BYTES}")
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"tokenizer is not JSON: {error}") from None
        if not isinstance(raw, dict):
            raise ModelError("tokenizer is not a JSON table")
        tokens = _texts(raw, "tokens", MAX_TOKENS)
        if not tokens:
            raise ModelError("tokenizer: tokens is empty")
        return cls(
            model=_text(raw, "model", 40) or "",
            pre=_text(raw, "pre", 40) or "default",
            tokens=tokens,
            token_type=_types(raw, len(tokens)),
            scores=_scores(raw, len(tokens)),
            merges=_merges(raw),
            bos_id=_id(raw, "bos_id", len(tokens)),
            eos_id=_id(raw, "eos_id", len(tokens)),
            eot_id=_id(raw, "eot_id", len(tokens)),
            unk_id=_id(raw, "unk_id", len(tokens)),
            pad_id=_id(raw, "pad_id", len(tokens)),
            add_bos=_flag(raw, "add_bos"),
            add_eos=_flag(raw, "add_eos"),
            add_space_prefix=_flag(raw, "add_space_prefix"),
            chat_template=_text(raw, "chat_template", MAX_TEMPLATE_CHARS),
        )


def _text(raw: dict[str, Any], name: str, limit: int) -> str | None:
    value = raw.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > limit or not _encodable(value):
        raise ModelError(f"tokenizer: {name} is not a text of at most {limit} characters")
    return value


def _texts(raw: dict[str, Any], name: str, limit: int) -> tuple[str, ...]:
    value = raw.get(name)
    if not isinstance(value, list) or len(value) > limit or not set(map(type, value)) <= {str}:
        raise ModelError(f"tokenizer: {name} is not a list of at most {limit} texts")
    if value and max(map(len, value)) > MAX_TOKEN_CHARS:
        raise ModelError(f"tokenizer: {name} holds a text of more than {MAX_TOKEN_CHARS} characters")
    if not _encodable("".join(value)):
        raise ModelError(f"tokenizer: {name} holds a text that is not valid Unicode")
    return tuple(value)


def _encodable(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no UTF-8 text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _types(raw: dict[str, Any], n_tokens: int) -> bytes:
    value = raw.get("token_type")
    if value is None:
        return bytes([TokenType.NORMAL]) * n_tokens
    if (
        not isinstance(value, list)
        or len(value) != n_tokens
        or set(map(type, value)) != {int}
        or min(value) < 0
        or max(value) > max(TokenType)
    ):
        raise ModelError(
            f"tokenizer: token_type is not a list of {n_tokens} numbers from 0 to {max(TokenType)}"
        )
    return bytes(value)


def _scores(raw: dict[str, Any], n_tokens: int) -> "array[float]":
    value = raw.get("scores")
    if value is None:
        return array("f")
    problem = ModelError(f"tokenizer: scores is not a list of {n_tokens} finite numbers")
    if not isinstance(value, list) or len(value) != n_tokens or not set(map(type, value)) <= {int, float}:
        raise problem
    try:
        # Single precision, as the file stores them: equal scores must stay equal.
        scores = array("f", value)
    except OverflowError:
        raise problem from None
    if not all(map(isfinite, scores)):
        raise problem
    return scores


def _merges(raw: dict[str, Any]) -> tuple[str, ...]:
    if raw.get("merges") is None:
        return ()
    merges = _texts(raw, "merges", 2 * MAX_TOKENS)
    # Neither half is empty and neither holds a space: byte-level vocabularies spell the space as U+0120.
    if not all(0 < merge.find(" ") == merge.rfind(" ") < len(merge) - 1 for merge in merges):
        raise ModelError("tokenizer: merges is not a list of 'left right' pairs")
    return merges


def _id(raw: dict[str, Any], name: str, n_tokens: int) -> int | None:
    value = raw.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < n_tokens:
        raise ModelError(f"tokenizer: {name} is not a token id from 0 to {n_tokens - 1}")
    return value


def _flag(raw: dict[str, Any], name: str) -> bool | None:
    value = raw.get(name)
    if value is not None and not isinstance(value, bool):
        raise ModelError(f"tokenizer: {name} is neither true nor false")
    return value
