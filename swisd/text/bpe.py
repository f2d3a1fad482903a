"""Byte-level byte-pair encoding, as GPT-2 introduced it (https://github.com/openai/gpt-2, `encoder.py`).

A word's UTF-8 bytes are spelled with one printable character each; then the pair that stands earliest in
the list of merges is joined, again and again.
"""

from heapq import heapify, heappop, heappush

from swisd.core.errors import ModelError
from swisd.text.blob import TokenType, Vocabulary
from swisd.text.special import SpecialTokens
from swisd.text.wordcache import WordCache
from swisd.text.words import word_splitter

# Words repeat, so most of them are merged once. Long ones rarely do; they must not fill the memory.


def _byte_characters() -> str:
    """The character that spells each byte: itself if printable Latin-1, else one from U+0100 upwards."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(spare)) for byte in range(256))


BYTE_CHARACTERS = _byte_characters()
_BYTE_OF = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


class BytePairCodec:
    """Encodes text without special tokens, and spells tokens as bytes."""

    def __init__(self, vocabulary: Vocabulary, special: SpecialTokens) -> None:
        if not vocabulary.merges:
            raise ModelError("tokenizer: a 'gpt2' vocabulary without merges cannot encode text")
        self._tokens = vocabulary.tokens
        self._types = vocabulary.token_type
        splitter = word_splitter(vocabulary.pre)
        self._split = splitter.split
        self._whole_words = splitter.whole_words
        # Files of the Llama 3 family are silent on it, and the models were trained with it.
        self.add_bos_default = vocabulary.pre == "llama-bpe"
        # Read backwards: of two equal entries the first one counts. Control tokens are left out, so that no
        # sequence of merges can spell one.
        self._ids = {
            text: i
            for i, text in zip(range(len(self._tokens) - 1, -1, -1), reversed(self._tokens), strict=True)
            if i not in special.control
        }
        merges = vocabulary.merges
        self._ranks = {
            merge: i for i, merge in zip(range(len(merges) - 1, -1, -1), reversed(merges), strict=True)
        }
        self._cache = WordCache(self._encode_word)

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """The ids of `text`. Characters are valid Unicode (no lone surrogates)."""
        return self._cache.encode(self._split(text))

    def token_bytes(self, token_id: int) -> bytes:
        text = self._tokens[token_id]
        if self._types[token_id] != TokenType.USER_DEFINED:
            try:
                return bytes([_BYTE_OF[character] for character in text])
            except KeyError:
                pass  # An added token that the file does not mark as one: its text is meant as it stands.
        return text.encode()

    def _encode_word(self, word: str) -> list[int]:
        ids = self._ids
        # latin-1 gives every byte a character, which `translate` can map in one pass.
        spelled = word.encode().decode("latin-1").translate(BYTE_CHARACTERS)
        whole = len(spelled) == 1 or (self._whole_words and spelled in ids)
        pieces = [spelled] if whole else self._merge(spelled)
        result: list[int] = []
        for piece in pieces:
            token_id = ids.get(piece)
            if token_id is not None:
                result.append(token_id)
            else:
                # A merge whose result is no token falls apart into bytes; a byte that no token spells (some
                # vocabularies lack those that hardly occur in UTF-8) is dropped, as llama.cpp and HF do.
                result.extend(ids[character] for character in piece if character in ids)
        return result

    def _merge(self, spelled: str) -> list[str]:
        """Join the pair of lowest rank, leftmost first, until none is left: O(n log n) for any word.

        A piece begins at a fixed place and only grows, so a queued pair is out of date exactly if the length
        of the two pieces now found there differs.
        """
        ranks = self._ranks
        size = len(spelled)
        pieces = list(spelled)
        following = list(range(1, size + 1))
        preceding = list(range(-1, size - 1))
        queue: list[tuple[int, int, int]] = []
        for left in range(size - 1):
            rank = ranks.get(f"{pieces[left]} {pieces[left + 1]}")
            if rank is not None:
                queue.append((rank, left, 2))
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
                rank = ranks.get(f"{joined} {pieces[after]}")
                if rank is not None:
                    heappush(queue, (rank, left, length + len(pieces[after])))
            before = preceding[left]
            if before >= 0:
                rank = ranks.get(f"{pieces[before]} {joined}")
                if rank is not None:
                    heappush(queue, (rank, before, length + len(pieces[before])))
        return [piece for piece in pieces if piece]
