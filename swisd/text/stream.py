"""Text as it is generated: whole characters only, and nothing of a stop string."""

from codecs import getincrementaldecoder
from collections.abc import Iterable
from typing import Protocol

_Utf8Decoder = getincrementaldecoder("utf-8")


class SpellsTokens(Protocol):
    """The one thing a decoder needs of a tokenizer."""

    def token_bytes(self, token_id: int) -> bytes: ...


class IncrementalDecoder:
    """Turns ids into text one at a time; all that it returns, joined, is the tokenizer's `decode` of all ids.

    A token may end inside a character; its first bytes wait for the next token. Bytes that can begin no
    character come out as U+FFFD at once. Control tokens add nothing.
    """

    def __init__(self, tokenizer: SpellsTokens) -> None:
        self._tokenizer = tokenizer
        self._decoder = _Utf8Decoder("replace")

    def push(self, token_id: int) -> str:
        """The text that this token completes, perhaps none. `ModelError` for an unknown id."""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """At the end of the stream: U+FFFD for a character that was never completed, else nothing."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


class StopMatcher:
    """Finds the first stop string in a stream of text, whatever pieces it comes in.

    Text that may be the beginning of a stop string is held back until that is decided. What is returned,
    joined, is the text up to the stop string that begins first, without it; of those that begin at the same
    place any will do. Empty stop strings are ignored.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found; everything pushed since is swallowed."""
        return self._stopped

    def push(self, text: str) -> str:
        """The part of the text so far that is now known not to belong to a stop string."""
        if self._stopped:
            return ""
        text = self._held + text
        found, hold = self._first_stop(text), self._first_possible(text)
        if found is not None and found <= hold:
            self._stopped, self._held = True, ""
            return text[:found]
        self._held = text[hold:]
        return text[:hold]

    def flush(self) -> str:
        """At the end of the stream: what was held back in vain."""
        text, self._held = self._held, ""
        found = self._first_stop(text)
        if found is not None:
            self._stopped = True
            text = text[:found]
        return text

    def _first_stop(self, text: str) -> int | None:
        return min((at for at in map(text.find, self._stops) if at >= 0), default=None)

    def _first_possible(self, text: str) -> int:
        """Where the earliest unfinished stop string may begin; the end of the text if none may."""
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            tail = text[at:]
            if any(stop.startswith(tail) and len(stop) > len(tail) for stop in self._stops):
                return at
        return len(text)
