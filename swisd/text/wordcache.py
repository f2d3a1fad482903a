"""Words that were cut into tokens before: text repeats its words, and cutting one is most of the work."""

from collections.abc import Callable, Iterable

WORDS = 1 << 14
WORD_CHARS = 64  # longer ones seldom come twice


class WordCache:
    """Remembers what `encode_word` made of short words; it starts anew when it is full."""

    def __init__(self, encode_word: Callable[[str], list[int]]) -> None:
        self._encode_word = encode_word
        self._known: dict[str, tuple[int, ...]] = {}

    def encode(self, words: Iterable[str]) -> list[int]:
        """The ids of all words, one after the other."""
        cache = self._known
        ids: list[int] = []
        for word in words:
            known = cache.get(word)
            if known is None:
                known = tuple(self._encode_word(word))
                if len(word) <= WORD_CHARS:
                    if len(cache) >= WORDS:
                        cache.clear()
                    cache[word] = known
            ids.extend(known)
        return ids
