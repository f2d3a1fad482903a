"""Tokenizers from a tokenizer blob: text to token ids and back."""

from collections.abc import Iterable
from typing import Protocol

from swisd.core.errors import ModelError
from swisd.text.blob import Vocabulary
from swisd.text.bpe import BytePairCodec
from swisd.text.special import SpecialTokens
from swisd.text.spm import ScoredPairCodec


class Tokenizer(Protocol):
    """What the rest of swisd needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_ids(self) -> frozenset[int]: ...
    @property
    def add_bos(self) -> bool: ...
    @property
    def add_eos(self) -> bool: ...
    @property
    def chat_template(self) -> str | None: ...
    def encode(self, text: str, *, special: bool) -> list[int]: ...
    def partition(self, text: str, *, special: bool) -> list[str | int]: ...
    def shield(self, text: str, mark: str) -> str: ...
    def encode_parts(self, parts: Iterable[str | int]) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def token_bytes(self, token_id: int) -> bytes: ...
    def token_text(self, token_id: int) -> str: ...


class Codec(Protocol):
    """One way of cutting text that holds no special tokens."""

    add_bos_default: bool

    def encode(self, text: str, *, after_special: bool) -> list[int]: ...
    def token_bytes(self, token_id: int) -> bytes: ...


class BlobTokenizer:
    """A tokenizer over a checked vocabulary. It keeps a cache of words, so share one among callers of a
    thread rather than making several."""

    def __init__(self, vocabulary: Vocabulary, special: SpecialTokens, codec: Codec) -> None:
        self._tokens = vocabulary.tokens
        self._special = special
        self._codec = codec
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id = vocabulary.bos_id
        self.eos_ids = special.eos_ids
        self.add_bos = codec.add_bos_default if vocabulary.add_bos is None else vocabulary.add_bos
        self.add_eos = bool(vocabulary.add_eos)
        self.chat_template = vocabulary.chat_template

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`, without BOS or EOS: the caller adds these where `add_bos`, `add_eos` say so.

        With `special`, the texts of control tokens (`<|im_start|>`) become these tokens; without, they are
        read as plain text, so that no user's text can steer the model. Lone surrogates, which a terminal can
        hand in, are read as U+FFFD.
        """
        return self.encode_parts(self.partition(text, special=special))

    def partition(self, text: str, *, special: bool) -> list[str | int]:
        """Cut `text` at its special tokens; see `SpecialTokens.partition`."""
        return self._special.partition(_valid(text), special=special)

    def shield(self, text: str, mark: str) -> str:
        """Break up the control tokens that a text spells; see `SpecialTokens.shield`."""
        return self._special.shield(_valid(text), mark)

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """Ids of parts that are already cut: ids stay, a text is encoded as plain text throughout."""
        ids: list[int] = []
        after_special = True
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            elif part:
                ids.extend(self._codec.encode(_valid(part), after_special=after_special))
            after_special = isinstance(part, int)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, control tokens left out, bytes that are not UTF-8 as U+FFFD.

        Raises `ModelError` for an id outside the vocabulary.
        """
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token adds to the text: none for a control token. `ModelError` for an unknown id."""
        if not 0 <= token_id < self.vocab_size:
            raise ModelError(f"token {token_id} is outside the vocabulary of {self.vocab_size} tokens")
        if token_id in self._special.control:
            return b""
        return self._codec.token_bytes(token_id)

    def token_text(self, token_id: int) -> str:
        """The token as the vocabulary spells it, control tokens too: for templates and for people."""
        if not 0 <= token_id < self.vocab_size:
            raise ModelError(f"token {token_id} is outside the vocabulary of {self.vocab_size} tokens")
        return self._tokens[token_id]


def _valid(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 joins a surrogate pair into the character it means and replaces what stands alone.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def load_tokenizer(data: bytes) -> BlobTokenizer:
    """Make a tokenizer from a tokenizer blob (JSON, untrusted; see `swisd.text.blob`).

    Raises `ModelError` with one line that names what is wrong.
    """
    vocabulary = Vocabulary.from_bytes(data)
    codecs: dict[str, type[BytePairCodec] | type[ScoredPairCodec]] = {
        "gpt2": BytePairCodec,
        "llama": ScoredPairCodec,
    }
    if vocabulary.model not in codecs:
        known = ", ".join(codecs)
        raise ModelError(f"tokenizer: model {vocabulary.model!r} is not known; this swisd reads {known}")
    special = SpecialTokens(vocabulary)
    return BlobTokenizer(vocabulary, special, codecs[vocabulary.model](vocabulary, special))
