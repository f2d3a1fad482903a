"""Guesses of the tokens that come next: from what was there before (prompt lookup), or by a small model.

After the same last few tokens mostly comes what came after them before: in a text that is edited, quoted or
listed again. Every guess is compared with the token that did come, whether it was used or not, so it is known
for nothing how far guesses of this session can be trusted.
"""

from collections.abc import Iterable, Sequence

LENGTHS = (4, 2)  # tokens that must be the same, the longer first
REACH = 8192  # tokens of a prompt that are looked at: more would take memory and hold up the first token
WEIGHT = 0.15  # of the last guess in the share of right ones
HOPE = 0.6  # the share of right ones of a small model, before any is known
MOST = 7  # tokens to ask it for at once
REST = 16  # tokens until a small model that guesses badly, or too late, is asked for one again


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


class Drafted:
    """What a small model says of one session, compared with what comes."""

    def __init__(self) -> None:
        self.trust = HOPE  # the share of its guesses that were right lately
        self._awaited: list[int] = []  # its guesses that are still to come true
        self._most = MOST  # tokens that it says in time
        self._rest = 0  # tokens for which it is left alone

    def wanted(self, rows: int) -> int:
        """How many tokens to ask it for, where so many rows at once are worth their time; 0: unknown yet."""
        if self._rest or not rows:
            self._rest = max(self._rest - 1, 0)
            return 0
        if rows == 1:
            self._rest = REST
        return max(1, min(rows - 1, self._most))

    def expect(self, ids: Sequence[int], since: Sequence[int]) -> Sequence[int]:
        """It says that these come next; `since` came meanwhile. Returns those that may still come."""
        here = len(since)
        if here >= len(ids):  # it is too slow for so many, or for any
            self._rest = 0 if self._most > 1 else REST
            self._most = max(1, self._most // 2)
        else:
            self._most = min(MOST, self._most + 1)
        right = next(
            (at for at, (one, other) in enumerate(zip(ids, since, strict=False)) if one != other), here
        )
        self._awaited = list(ids[here:]) if right == here else []
        return self._awaited[:]

    def add(self, token: int) -> None:
        """The next token came."""
        if not self._awaited:
            return
        right = self._awaited.pop(0) == token
        self.trust += WEIGHT * (right - self.trust)
        if not right:
            self._awaited.clear()  # what it said comes behind another token


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
