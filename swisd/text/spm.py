"""SentencePiece-style byte-pair encoding with scores (Llama 1 and 2, Gemma), as llama.cpp reads it from GGUF.

Spaces are written "▁" (U+2581). From single characters, the neighbouring pair whose joined text is the token
of highest score is joined, leftmost first, until none is left; a character that is no token becomes one
`<0xNN>` token per UTF-8 byte. Source: https://github.com/google/sentencepiece, `bpe_model.cc`.
"""

import re
from heapq import heapify, heappop, heappush

from swisd.core.errors import ModelError
from swisd.text.blob import TokenType, Vocabulary
from swisd.text.special import SpecialTokens
from swisd.text.wordcache import WordCache

SPACE = "▁"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_INSIDE = re.compile(f"[^{SPACE}\0]{SPACE}")
_WORD = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")


class ScoredPairCodec:
    """Encodes text without special tokens, and spells tokens as bytes."""

    add_bos_default = True

    def __init__(self, vocabulary: Vocabulary, special: SpecialTokens) -> None:
        tokens, types = vocabulary.tokens, vocabulary.token_type
        if not vocabulary.scores:
            raise ModelError("tokenizer: a 'llama' vocabulary without scores cannot encode text")
        self._tokens = tokens
        self._types = types
        self._scores = vocabulary.scores
        # SentencePiece never merges into control and byte tokens, so typing "<bos>" or "<0x0A>" yields text.
        hidden = special.control | {i for i, kind in enumerate(types) if kind == TokenType.BYTE}
        self._ids = {
            text: i
            for i, text in zip(range(len(tokens) - 1, -1, -1), reversed(tokens), strict=True)
            if i not in hidden
        }
        self._unknown = vocabulary.unk_id
        self._byte_ids = _byte_ids(tokens, types)
        self._prefix = vocabulary.add_space_prefix is not False
        # If no token has a "▁" after another character, no merge crosses the start of a word: words can be
        # merged one by one, and remembered. Else the whole text is one word.
        joined = "\0".join(tokens)
        self._by_word = joined.count("\0") == len(tokens) - 1 and not _SPACE_INSIDE.search(joined)
        self._cache = WordCache(self._encode_word)

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """The ids of `text`; where the vocabulary asks for it, a space is put before what follows a special
        token or begins the text (`after_special`)."""
        if self._prefix and after_special:
            text = " " + text
        text = text.replace(" ", SPACE)
        return self._cache.encode(_WORD.findall(text) if self._by_word else (text,))

    def token_bytes(self, token_id: int) -> bytes:
        text = self._tokens[token_id]
        if self._types[token_id] == TokenType.BYTE and (match := _BYTE_TOKEN.fullmatch(text)):
            return bytes([int(match[1], 16)])
        if self._types[token_id] == TokenType.USER_DEFINED:
            return text.encode()
        return text.replace(SPACE, " ").encode()

    def _encode_word(self, word: str) -> list[int]:
        result: list[int] = []
        for piece in self._merge(word):
            token_id = self._ids.get(piece)
            if token_id is not None:
                result.append(token_id)
                continue
            for byte in piece.encode():
                byte_id = self._byte_ids.get(byte, self._unknown)
                if byte_id is not None:
                    result.append(byte_id)
        return result

    def _merge(self, word: str) -> list[str]:
        """Join pairs by descending score. A queued pair is out of date if the pieces' length has changed."""
        ids, scores = self._ids, self._scores
        size = len(word)
        pieces = list(word)
        following = list(range(1, size + 1))
        preceding = list(range(-1, size - 1))
        queue: list[tuple[float, int, int]] = []
        for left in range(size - 1):
            token_id = ids.get(word[left : left + 2])
            if token_id is not None:
                queue.append((-scores[token_id], left, 2))
        heapify(queue)
        while queue:
            _, left, length = heappop(queue)
            right = following[left]
            if not pieces[left] or right >= size or len(pieces[left]) + len(pieces[right]) != length:
                continue
            joined = pieces[left] = pieces[left] + pieces[right]
            pieces[right] = ""
            after = following[left] = following[right]
            if after < size:
                preceding[after] = left
                token_id = ids.get(joined + pieces[after])
                if token_id is not None:
                    heappush(queue, (-scores[token_id], left, length + len(pieces[after])))
            before = preceding[left]
            if before >= 0:
                token_id = ids.get(pieces[before] + joined)
                if token_id is not None:
                    heappush(queue, (-scores[token_id], before, length + len(pieces[before])))
        return [piece for piece in pieces if piece]


def _byte_ids(tokens: tuple[str, ...], types: bytes) -> dict[int, int]:
    found: dict[int, int] = {}
    for token_id, kind in enumerate(types):
        if kind == TokenType.BYTE and (match := _BYTE_TOKEN.fullmatch(tokens[token_id])):
            found.setdefault(int(match[1], 16), token_id)
    return found
