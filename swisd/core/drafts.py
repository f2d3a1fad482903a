"""Guesses of the tokens that come next, from what was there before (prompt lookup decoding).

After the same last few tokens mostly comes what came after them before: in a text that is edited, quoted or
listed again. Every guess is compared with the token that did come, whether it was used or not, so it is known
for nothing how far guesses of this session can be trusted.
"""

from collections.abc import Iterable

LENGTHS = (4, 2)  # tokens that must be the same, the longer first
REACH = 8192  # tokens of a prompt that are looked at: more would take memory and hold up the first token
WEIGHT = 0.15  # of the last guess in the share of right ones


class Lookup:
    """What was said in one session, by its last tokens."""

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ids: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}  # tokens -> position behind their last occurrence
        self._next: int | None = None  # position of the token that is guessed next
        self.trust = 0.0  # the share of guesses that were right lately
        for token in ids:
            self._append(token)
        self._find()

    def add(self, token: int) -> None:
        """The next token came."""
        right = self._next is not None and self._ids[self._next] == token
        if self._next is not None:
            self.trust += WEIGHT * (right - self.trust)
        self._append(token)
        if right and self._next is not None:
            self._next += 1  # what is copied goes on
        else:
            self._find()

    def guess(self, most: int) -> tuple[int, ...]:
        """Up to `most` tokens that may come next; none where nothing like the last ones was there before."""
        if self._next is None:
            return ()
        # What is copied may reach the end of what is there, and then repeats itself.
        period = len(self._ids) - self._next
        return tuple(self._ids[self._next + at % period] for at in range(most))

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


def worth(trust: float, times: dict[int, float]) -> int:
    """How many rows to run at once, so that most tokens come in a time.

    `trust` is the share of guesses that are right, `times` what a pass of so many rows takes, for 1 and
    others. A guess counts only if all before it were right: `rows` give `(1 - trust ** rows) / (1 - trust)`
    tokens on average (Leviathan et al. 2023, equation 1).
    """

    def speed(rows: int) -> float:
        tokens = sum(trust**number for number in range(rows))
        return tokens / times[rows]

    return max(sorted(times), key=speed)
