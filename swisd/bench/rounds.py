"""The rounds: every contender answers in turn, the first round warms up, the others count."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from swisd.bench.contender import Contender
from swisd.bench.figures import Several, Single, several, single
from swisd.bench.report import Told
from swisd.bench.work import Prompts, Work, length

T = TypeVar("T")
Tell = Callable[[str], None]


async def measure(contenders: Sequence[Contender], prompts: Prompts, work: Work, tell: Tell) -> list[Told]:
    """All turns of all contenders: questions one at a time, then several at once. Raises `SwisdError`.

    What the devices say of a token's way is asked between the two parts.
    """

    async def alone(contender: Contender, number: int) -> Single:
        (long,) = await contender.ask([prompts.long(number, work.prompt)], 1)
        (short,) = await contender.ask(prompts.short("one", number), length(work.tokens, number))
        return single(long, short)

    turns = await _rounds(
        contenders, work.rounds, work.budget_s, alone, lambda text: tell(f"one question, {text}")
    )
    ways = {}
    for contender in contenders:
        ways[contender.name] = await contender.way(prompts.short("way", 0)[0], work.tokens)

    async def at_once(contender: Contender, number: int) -> dict[int, Several]:
        return {
            count: several(
                await contender.ask(prompts.short("many", number, count), length(work.crowd_tokens, number))
            )
            for count in work.crowds
            if count <= contender.most
        }

    many = [contender for contender in contenders if contender.most > 1]
    crowds = await _rounds(
        many, work.crowd_rounds, work.budget_s, at_once, lambda text: tell(f"several at once, {text}")
    )
    return [
        Told(
            contender.name,
            contender.kind,
            contender.lane,
            contender.shape(),
            turns[contender.name],
            _by_count(crowds.get(contender.name, [])),
            ways[contender.name],
        )
        for contender in contenders
    ]


async def _rounds(
    contenders: Sequence[Contender],
    rounds: int,
    budget_s: float,
    turn: Callable[[Contender, int], Awaitable[T]],
    tell: Tell,
) -> dict[str, list[T]]:
    """Turns by contender; at least one round counts, and none begins after the budget."""
    found: dict[str, list[T]] = {contender.name: [] for contender in contenders}
    began = time.monotonic()
    for number in range(rounds + 1):
        if number > 1 and time.monotonic() - began > budget_s:
            tell(f"stopped after {number - 1} of {rounds} rounds: they take long here")
            break
        for contender in contenders:
            figure = await turn(contender, number)
            if number:
                found[contender.name].append(figure)
        tell(f"round {number} of {rounds}" if number else "warmed up")
    return found


def _by_count(rounds: Sequence[dict[int, Several]]) -> dict[int, list[Several]]:
    counts = rounds[0] if rounds else {}
    return {count: [each[count] for each in rounds] for count in counts}
