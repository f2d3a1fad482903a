"""Which rows are run again: enough for every stage, each with its inputs at hand, and no stage besides."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.messages import Held
from swisd.core.replay import STATELESS, Span, reachable, spans

quick = settings(deadline=None, derandomize=True, max_examples=300)


def held(*stages: tuple[int, int, int]) -> list[Held]:
    """Each stage: positions in its caches, outputs kept from, outputs made."""
    return [Held(number, *stage) for number, stage in enumerate(stages)]


@dataclass
class Stage:
    """A stage of a small model: what it holds, and of which positions it has the outputs."""

    length: int
    outputs: set[int]


def execute(span: Span, stages: list[Stage]) -> None:
    """Run the positions of a span through its stages; raises if an input is missing."""
    rows = set(range(span.start, span.end))
    if span.first > 0:
        before = stages[span.first - 1]
        assert rows <= before.outputs, f"{span}: inputs that nobody has"
        assert before.length >= span.end, f"{span}: inputs from a stage that has not run them"
    for stage in stages[span.first : span.until + 1]:
        if stage.length != STATELESS:
            assert span.start <= stage.length, f"{span}: a gap in the caches"
            stage.length = span.end
        stage.outputs = {at for at in stage.outputs if at < span.start} | rows


@st.composite
def states(draw: st.DrawFn) -> tuple[list[Held], int]:
    """What devices may hold: kept outputs end where they were made; the ends may be stateless."""
    end = draw(st.integers(0, 12))
    stages = []
    count = draw(st.integers(1, 6))
    for number in range(count):
        alone = number in (0, count - 1) and count > 1 and draw(st.booleans())
        length = STATELESS if alone else draw(st.integers(0, 12))
        made = draw(st.integers(0, 12))
        stages.append(Held(number, length, draw(st.integers(0, made)), made))
    return stages, end


@quick
@given(states())
def test_after_the_spans_every_stage_holds_all_and_the_others_are_untouched(state: tuple[list[Held], int]):
    found, end = spans(*state), state[1]
    stages = [Stage(item.length, set(range(item.kept_from, item.made))) for item in state[0]]
    touched = {number for span in found for number in range(span.first, span.until + 1)}
    for span in found:
        assert 0 <= span.first <= span.until < len(stages) and span.start < span.end == end
        execute(span, stages)
    assert all(stage.length >= end for stage in stages)
    for number, (item, stage) in enumerate(zip(state[0], stages, strict=True)):
        assert number in touched or (stage.length, len(stage.outputs)) == (
            item.length,
            item.made - item.kept_from,
        )
    assert sum(span.until - span.first + 1 for span in found) == len(touched)  # none twice


@quick
@given(states())
def test_no_stage_is_run_again_without_need(state: tuple[list[Held], int]):
    """The last stage of each span lacks rows, and it begins no earlier than some stage in it needs."""
    stages, end = state
    for span in spans(stages, end):
        assert stages[span.until].length < end
        assert span.start == min(min(item.length, end) for item in stages[span.first : span.until + 1])


def test_only_what_is_lost_is_run_again_from_the_journal_before_it():
    assert spans(held((9, 0, 9), (0, 0, 0), (9, 0, 9)), 9) == [Span(1, 1, 0, 9)]


def test_two_losses_apart_are_two_spans_that_run_side_by_side():
    lost = held((9, 0, 9), (0, 0, 0), (9, 0, 9), (4, 0, 4), (STATELESS, 9, 9))
    assert spans(lost, 9) == [Span(1, 1, 0, 9), Span(3, 3, 4, 9)]


def test_where_the_journal_does_not_reach_back_the_stage_before_runs_again_too():
    assert spans(held((9, 0, 9), (9, 5, 9), (0, 0, 0)), 9) == [Span(1, 2, 0, 9)]
    assert spans(held((9, 5, 9), (9, 5, 9), (0, 0, 0)), 9) == [Span(0, 2, 0, 9)]
    assert spans(held((9, 5, 9), (9, 5, 9), (5, 0, 5)), 9) == [Span(2, 2, 5, 9)]


def test_a_lost_first_stage_runs_the_tokens_again():
    assert spans(held((0, 0, 0), (9, 0, 9), (STATELESS, 0, 0)), 9) == [Span(0, 0, 0, 9)]


def test_nothing_is_run_again_where_all_is_there():
    assert spans(held((9, 0, 9), (STATELESS, 9, 9)), 9) == []
    assert spans(held((STATELESS, 0, 0), (9, 0, 9)), 0) == []


def test_a_session_comes_back_as_far_as_some_stage_ever_was():
    assert reachable(held((9, 0, 9), (7, 0, 7), (STATELESS, 0, 0)), 20) == 9
    assert reachable(held((9, 0, 9), (7, 0, 7)), 8) == 8
    assert reachable(held((STATELESS, 0, 0)), 8) == 0 == reachable([], 8)
