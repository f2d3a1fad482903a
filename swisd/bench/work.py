"""What every contender is asked: how much, how often, and which token ids."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from swisd.bench.figures import PREFILL
from swisd.core.errors import BadInput

TEXT = "The old lighthouse keeper climbed the stairs every evening, and from the gallery he could see"
LEAST_CONTEXT = 32  # tokens; in less no figure would mean anything


@dataclass(frozen=True, slots=True)
class Work:
    """A fixed amount of work. Rounds are those that count: one more warms up.

    `crowds`: how many questions at once. After `budget_s` seconds no further round of a part begins.
    """

    rounds: int
    prompt: int  # tokens of the long prompt
    tokens: int  # of an answer to one question
    crowds: tuple[int, ...]
    crowd_rounds: int
    crowd_tokens: int  # of each answer to several questions at once
    budget_s: float


FULL = Work(5, PREFILL, 96, (1, 2, 4, 8, 16), 3, 32, 300.0)
QUICK = Work(2, PREFILL, 24, (1, 4), 1, 8, 4.0)
WARMING = 4  # a round that warms up has answers of so many times fewer tokens


def length(tokens: int, number: int) -> int:
    """Tokens of an answer in a round; round 0 warms up."""
    return tokens if number else max(tokens // WARMING, 2)


def fitted(work: Work, context: int, short: int) -> Work:
    """The work with no question longer than a context of so many tokens; `short`: tokens of a short prompt.

    Raises `BadInput` where the context is too small to measure anything.
    """
    if context < LEAST_CONTEXT + short:
        raise BadInput(
            f"the plan has a context of {context} tokens, too short to measure: offer more memory, or "
            "ask for more with `swisd up --context`"
        )
    room = context - short
    return replace(
        work,
        prompt=min(work.prompt, context - 1),
        tokens=min(work.tokens, room),
        crowd_tokens=min(work.crowd_tokens, room),
    )


class Prompts:
    """Token ids that no cache of an earlier round or run knows, the same for all contenders of a round."""

    def __init__(self, salt: str, vocab: int, text: Sequence[int]) -> None:
        self._salt, self._text = salt, tuple(text)
        # The first ids are often control tokens.
        self._low, self._high = (100, min(vocab, 30000)) if vocab > 200 else (0, vocab)

    @property
    def short_tokens(self) -> int:
        """Length of a short prompt."""
        return len(self._text) + 1

    def long(self, number: int, tokens: int) -> tuple[int, ...]:
        """A prompt of random tokens for a round."""
        draw = self._draw("long", number, 0)
        return tuple(draw.randrange(self._low, self._high) for _ in range(tokens))

    def short(self, part: str, number: int, at_once: int = 1) -> list[tuple[int, ...]]:
        """Prompts of prose for a round of a part, each with another first token."""
        return [
            (self._draw(f"{part} {at_once}", number, place).randrange(self._low, self._high), *self._text)
            for place in range(at_once)
        ]

    def _draw(self, kind: str, number: int, place: int) -> random.Random:
        return random.Random(f"{self._salt}/{kind}/{number}/{place}")
