"""Guesses of the tokens that come next by a small model, and how many guesses are worth their time."""

from collections.abc import Sequence

WEIGHT = 0.15  # of the last guess in the share of right ones
HOPE = 0.6  # the share of right ones of a small model, before any is known
MOST = 7  # tokens to ask it for at once
CLEARLY = 0.1  # of a token for each that a round of one row gives: what guesses must bring while others wait
REST = 16  # tokens until a small model that guesses badly, or too late, is asked for one again


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


def worth(odds: Sequence[float], times: dict[int, float], others: int = 0, busy: float = 1.0) -> int:
    """How many rows to run at once, so that most tokens come in a time.

    `odds` says of each guess that there can be how likely it is right if those before it are, `times` what a
    pass of so many rows takes, for 1 and others. A guess counts only if all before it were right, so a pass
    gives one token and the products of the odds on average (for equal odds Leviathan et al. 2023, eq. 1).

    `others` sessions have passes of their own, each of a token, and devices are `busy` for this share of the
    time: as often they wait behind these rows. What they lose counts as well; it is an estimate, so a gain of
    less than `CLEARLY` is none.
    """
    tokens, likely = [1.0], 1.0
    for right in odds:
        likely *= right
        tokens.append(tokens[-1] + likely)
    one = times[1]

    def rate(rows: int) -> float:
        return tokens[rows - 1] / times[rows] + others / (one + busy * (times[rows] - one))

    best = max((rows for rows in sorted(times) if rows <= len(tokens)), key=rate)
    return best if not others or rate(best) - rate(1) >= CLEARLY / one else 1
