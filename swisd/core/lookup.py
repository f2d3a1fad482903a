"""Guesses of the tokens that come next from what was there before (prompt lookup).

After the same last few tokens mostly comes what came after them before: in a text that is edited, quoted or
listed again. The more of them are the same, the surer it is. Every guess is compared with the token that did
come, whether it was used or not, so it is known for nothing how far guesses of this session can be trusted.
"""

from bisect import bisect
from collections.abc import Iterable

LENGTHS = (4, 2, 1)  # tokens that must be the same, the longer first
REACH = 8192  # tokens of a prompt that are looked at: more would take memory and hold up the first token
WEIGHT = 0.12  # of the last guess in the share of right ones
# Equal tokens before a guess, and the share of right guesses behind so many before any is known of a session:
# between what greedy answers that repeat something have and what prose has.
EQUAL = (2, 3, 5, 9, 17)
HOPES = (0.1, 0.22, 0.42, 0.68, 0.87, 0.96)


class Lookup:
    """What was said in one session, by its last tokens."""

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ids: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}  # tokens -> position behind their last occurrence
        self._next: int | None = None  # position of the token that is guessed next
        self._equal = 0  # how many tokens before it are the last ones, as far as it matters
        self._trust = list(HOPES)  # the share of right guesses lately, by how many tokens were equal
        for token in ids:
            self._append(token)
        self._find()

    def add(self, token: int) -> None:
        """The next token came."""
        right = self._next is not None and self._ids[self._next] == token
        if self._next is not None:
            kind = bisect(EQUAL, self._equal)
            self._trust[kind] += WEIGHT * (right - self._trust[kind])
        self._append(token)
        if right and self._next is not None:
            self._next += 1  # what is copied goes on
            self._equal += 1
        else:
            self._find()

    def guess(self, most: int) -> tuple[int, ...]:
        """Up to `most` tokens that may come next; none where nothing like the last one was there before."""
        if self._next is None:
            return ()
        # What is copied may reach the end of what is there, and then repeats itself.
        period = len(self._ids) - self._next
        return tuple(self._ids[self._next + at % period] for at in range(most))

    def odds(self, most: int) -> list[float]:
        """Of so many guesses, how likely each is right if those before it are."""
        if self._next is None:
            return []
        return [self._trust[bisect(EQUAL, self._equal + at)] for at in range(most)]

    def _append(self, token: int) -> None:
        # What stands behind the last tokens is not known before this one, so they are entered now.
        at = len(self._ids)
        for length in LENGTHS:
            if at >= length:
                self._behind[tuple(self._ids[-length:])] = at
        self._ids.append(token)

    def _find(self) -> None:
        found = (self._behind.get(tuple(self._ids[-length:])) for length in LENGTHS)
        self._next = next((at for at in found if at is not None), None)
        self._equal = 0
        if self._next is None:
            return
        end = len(self._ids)
        most = min(self._next, EQUAL[-1])
        while (
            self._equal < most and self._ids[self._next - 1 - self._equal] == self._ids[end - 1 - self._equal]
        ):
            self._equal += 1
