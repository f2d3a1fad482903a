"""A driver with a small model: what it asks it for, when its guesses run, and when it is left alone."""

from typing import Any

from builders import a_plan, a_start, said
from desk import Desk

from swisd.core.drafts import HOPE, REST, Drafted
from swisd.core.effects import Draft, Effect, RunStep
from swisd.core.events import DraftMade, Received
from swisd.core.messages import Out
from swisd.core.sizes import ENOUGH

KEY = "a" * 16
WHOLE = a_plan((0, 6, 1))


class Drafting(Desk):
    """A driver alone with a small model, which is played by hand."""

    def __init__(self, **config: object) -> None:
        super().__init__(WHOLE, **{"drafter": "small", **config})

    def begin(self, session: str = KEY, tokens: int = 200) -> list[Effect]:
        ask = a_start(session, prompt=(5, 6, 7), max_tokens=tokens)
        (prompt,) = kinds(self.do(Received(ask.asker, ask)), RunStep)
        return self.answer(prompt, 1)

    def say(self, effects: list[Effect], tokens: int) -> list[Effect]:
        """So many tokens of which none was there before, and no guesses."""
        for _ in range(tokens):
            (row,) = kinds(effects, RunStep)
            self.last += 1
            effects = self.answer(row, self.last)
        return effects

    last = 100


def kinds(effects: list[Effect], kind: type) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def asked(effects: list[Effect]) -> list[Draft]:
    return kinds(effects, Draft)


def measured(desk: Drafting) -> list[Effect]:
    """A few rounds of one row, so that what more rows cost can be estimated."""
    return desk.say(desk.begin(), ENOUGH)


def test_it_is_asked_for_what_comes_behind_all_that_is_known():
    desk = Drafting()
    (draft,) = asked(measured(desk))
    assert draft.session == KEY and draft.count in (1, 3, 7)
    assert draft.ids == (5, 6, 7, 1, 101, 102, 103)


def test_what_it_says_runs_behind_the_last_tokens_row_and_comes_true_or_not():
    desk = Drafting()
    effects = measured(desk)
    (row,), (draft,) = kinds(effects, RunStep), asked(effects)
    guessed = kinds(desk.do(DraftMade(KEY, len(draft.ids), (7, 8, 9)[: draft.count])), RunStep)
    assert [step.activation.payload for step in guessed] == [(7,), (8,), (9,)][: draft.count]
    position = row.activation.slots[0].position
    assert [step.activation.slots[0].position for step in guessed] == [
        position + at for at in range(1, len(guessed) + 1)
    ]
    assert all(step.activation.slots[0].guess for step in guessed)
    right = desk.answer(row, 7)
    assert [out.tokens for out in said(right, Out)] == [(7,)]
    assert kinds(right, RunStep) == []  # its row runs already
    wrong = desk.answer(guessed[0], 50)
    assert [out.tokens for out in said(wrong, Out)] == [(50,)]
    (again,) = kinds(wrong, RunStep)
    assert again.activation.payload == (50,)
    for step in guessed[1:]:  # nothing is heard of what was guessed behind a wrong one
        assert desk.answer(step, 9) == []


def test_what_comes_too_late_is_not_used():
    desk = Drafting()
    effects = measured(desk)
    (draft,) = asked(effects)
    desk.say(effects, 1)
    assert desk.do(DraftMade(KEY, len(draft.ids), (7, 8, 9))) == []  # another token came than the first
    assert desk.do(DraftMade(KEY, len(draft.ids), (desk.last,))) == []  # nothing is left of it
    assert desk.do(DraftMade("b" * 16, len(draft.ids), (7,))) == []


def test_what_is_left_of_a_late_answer_is_used_if_it_came_true_so_far():
    desk = Drafting()
    effects = measured(desk)
    (draft,) = asked(effects)
    desk.say(effects, 1)
    (step, *_) = kinds(desk.do(DraftMade(KEY, len(draft.ids), (desk.last, 8, 9))), RunStep)
    assert step.activation.payload == (8,)


def test_who_is_too_slow_is_asked_for_less_and_then_seldom():
    drafted = Drafted()
    counts = []
    for _ in range(4):
        counts.append(drafted.wanted(8))
        if counts[-1]:
            drafted.expect((1,) * counts[-1], (1,) * counts[-1])
    assert counts == [7, 3, 1, 0]
    assert [drafted.wanted(8) for _ in range(REST)] == [0] * (REST - 1) + [1]


def test_where_its_guesses_are_wrong_it_is_asked_seldom():
    desk = Drafting()
    effects, questions = measured(desk), 0
    for _ in range(30):
        for draft in asked(effects):
            rows = kinds(effects, RunStep)
            effects = [*rows, *desk.do(DraftMade(KEY, len(draft.ids), (9,) * draft.count))]
        (row, *_) = kinds(effects, RunStep)
        desk.last += 1
        effects = desk.answer(row, desk.last)
    for _ in range(2 * REST):
        questions += len(asked(effects))
        effects = desk.say(effects, 1)
    assert questions == 2


def test_it_is_not_asked_while_several_run_or_where_nothing_is_to_be_guessed():
    desk = Drafting()
    effects = measured(desk)
    other = a_start("b" * 16, prompt=(8, 9), max_tokens=9)
    desk.do(Received(other.asker, other))
    assert asked(desk.say(effects, 1)) == []
    quiet = Drafting(drafter="")
    assert asked(measured(quiet)) == []


def test_what_was_said_is_compared_with_what_comes():
    drafted = Drafted()
    assert drafted.expect((1, 2, 3), ()) == [1, 2, 3]
    drafted.add(1)
    assert drafted.trust > HOPE
    before = drafted.trust
    drafted.add(9)  # so what it said behind is about another text
    drafted.add(3)
    assert 0.8 * before < drafted.trust < before
