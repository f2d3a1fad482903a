"""Contenders answer in turn, the first round does not count, and a budget ends the rounds."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from swisd.bench.contender import Prompt
from swisd.bench.figures import Stream
from swisd.bench.report import Kind, Way
from swisd.bench.rounds import measure
from swisd.bench.work import QUICK, Prompts, Work, fitted
from swisd.core.errors import BadInput
from tests.bench.reports import WAY, a_stream

WORK = Work(2, 8, 16, (1, 3), 1, 12, 1e9)


class Fake:
    """Notes what it is asked; every answer is as fast as the number of the answer."""

    lane = "tcp"
    context = 100

    def __init__(
        self, name: str, log: list[tuple[str, int, int]], kind: Kind = "swarm", most: int = 9
    ) -> None:
        self.name, self.kind, self.most = name, kind, most
        self.asked: list[tuple[int, ...]] = []
        self._log = log

    async def ask(self, prompts: Sequence[Prompt], tokens: int) -> list[Stream]:
        self._log.append((self.name, len(prompts), tokens))
        self.asked += [tuple(prompt) for prompt in prompts]
        return [a_stream(*[1000.0 / len(self._log)] * (tokens - 1)) for _ in prompts]

    async def way(self, prompt: Prompt, tokens: int) -> Way | None:
        self._log.append((self.name, 0, tokens))
        return WAY

    def shape(self) -> str:
        return "a shape"

    def epoch(self) -> int:
        return 1


async def test_everybody_answers_in_turn_and_the_first_round_warms_up() -> None:
    log: list[tuple[str, int, int]] = []
    said: list[str] = []
    one, other = Fake("one", log), Fake("other", log, "llama.cpp", most=1)
    told = await measure([one, other], Prompts("salt", 1000, (5, 6)), WORK, said.append)

    def turn(tokens: int) -> list[tuple[str, int, int]]:
        return [("one", 1, 1), ("one", 1, tokens), ("other", 1, 1), ("other", 1, tokens)]

    assert log == [
        *turn(4), *turn(16), *turn(16), ("one", 0, 16), ("other", 0, 16), ("one", 1, 3), ("one", 3, 3),
        ("one", 1, 12), ("one", 3, 12),
    ]  # fmt: skip
    assert [len(each.turns) for each in told] == [2, 2]
    assert {count: len(turns) for count, turns in told[0].crowds.items()} == {1: 1, 3: 1}
    assert told[1].crowds == {} and (told[0].shape, told[0].way) == ("a shape", WAY)
    assert told[0].turns[0].tokens_per_s == pytest.approx(6.0)
    assert said[0] == "one question, warmed up" and said[-1].endswith("round 1 of 1")


async def test_all_are_asked_the_same_and_never_twice() -> None:
    log: list[tuple[str, int, int]] = []
    one, other = Fake("one", log), Fake("other", log)
    await measure([one, other], Prompts("salt", 1000, (5, 6)), WORK, lambda text: None)
    assert one.asked == other.asked and len(set(one.asked)) == len(one.asked)


async def test_a_budget_that_is_spent_leaves_one_round_that_counts() -> None:
    log: list[tuple[str, int, int]] = []
    said: list[str] = []
    work = replace(WORK, rounds=50, budget_s=-1.0)
    (told,) = await measure([Fake("one", log)], Prompts("salt", 1000, (5,)), work, said.append)
    assert len(told.turns) == 1 and "stopped after 1 of 50 rounds" in " ".join(said)


def test_prompts_differ_from_run_to_run_and_stay_in_the_vocabulary() -> None:
    one, other = Prompts("a", 96, (1, 2)), Prompts("b", 96, (1, 2))
    assert one.long(0, 50) != other.long(0, 50) and one.long(0, 50) == Prompts("a", 96, (1, 2)).long(0, 50)
    assert max(one.long(1, 500)) < 96 and one.short_tokens == len(one.short("one", 0)[0]) == 3
    assert min(Prompts("a", 49152, ()).long(0, 500)) >= 100


def test_work_is_fitted_to_the_context() -> None:
    assert fitted(QUICK, 4096, 20) == QUICK
    small = fitted(QUICK, 60, 20)
    assert small.prompt == 59 and small.tokens + 20 <= 60 and small.crowd_tokens == QUICK.crowd_tokens
    with pytest.raises(BadInput, match="too short to measure"):
        fitted(QUICK, 40, 20)
