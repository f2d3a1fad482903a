"""What a device keeps of the rows that it sent on: within its budget, in order, and whole passes only."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.journal import Journal

quick = settings(deadline=None, derandomize=True)
ROOMY = 1 << 20


def filled(budget: int, *rows: int, session: str = "s", boundary: int = 4, row_bytes: int = 10) -> Journal:
    """A journal with passes of so many rows, one behind the other; each payload says where it begins."""
    journal, position = Journal(budget), 0
    for count in rows:
        journal.add(session, boundary, position, count, f"at {position}", count * row_bytes)
        position += count
    return journal


def kept(journal: Journal, start: int, end: int, session: str = "s", boundary: int = 4) -> list[object]:
    return [entry.payload for entry in journal.passes(session, boundary, start, end)]


def test_passes_come_back_as_they_were_added():
    journal = filled(ROOMY, 3, 1, 1)
    assert journal.kept("s", 4) == (0, 5) and journal.size == 50
    assert kept(journal, 0, 5) == ["at 0", "at 3", "at 4"]
    assert kept(journal, 3, 4) == ["at 3"]
    assert [(entry.position, entry.rows, entry.end) for entry in journal.passes("s", 4, 0, 4)] == [
        (0, 3, 3), (3, 1, 4),
    ]  # fmt: skip


def test_a_pass_is_given_whole_or_not_at_all():
    """Two rows of a pass of three, computed alone, have other last bits."""
    journal = filled(ROOMY, 3, 2)
    assert kept(journal, 1, 3) == ["at 0"]
    assert kept(journal, 2, 4) == ["at 0", "at 3"]
    assert kept(journal, 0, 6) == [] and kept(journal, 5, 6) == []


def test_beyond_the_budget_the_oldest_of_the_longest_go_first():
    journal = filled(60, 2, 2, 2)
    journal.add("other", 4, 0, 1, "x", 10)
    assert journal.size <= 60 and journal.kept("s", 4) == (2, 6)
    assert kept(journal, 2, 6) == ["at 2", "at 4"] and kept(journal, 0, 6) == []
    assert kept(journal, 0, 1, session="other") == ["x"]


def test_a_pass_larger_than_the_budget_leaves_nothing_but_how_far_it_went():
    journal = filled(50, 3, 9)
    assert (journal.size, journal.kept("s", 4), kept(journal, 3, 12)) == (0, (12, 12), [])
    journal.add("s", 4, 12, 1, "next", 10)
    assert journal.kept("s", 4) == (12, 13) and kept(journal, 12, 13) == ["next"]


def test_without_a_budget_it_still_says_how_far_it_went():
    journal = filled(0, 3, 1)
    assert (journal.kept("s", 4), journal.size, kept(journal, 0, 4)) == ((4, 4), 0, [])


def test_rows_that_are_run_again_replace_what_was_kept_from_there_on():
    journal = filled(ROOMY, 3, 1, 1)
    journal.add("s", 4, 3, 1, "again", 10)
    assert journal.kept("s", 4) == (0, 4) and kept(journal, 0, 4) == ["at 0", "again"]
    journal.add("s", 4, 2, 1, "in the middle of a pass", 10)  # what it cuts is worth nothing
    assert journal.kept("s", 4) == (2, 3) and journal.size == 10


def test_behind_a_gap_it_begins_anew():
    journal = filled(ROOMY, 3)
    journal.add("s", 4, 7, 1, "later", 10)
    assert journal.kept("s", 4) == (7, 8) and journal.size == 10


def test_what_need_not_be_kept_counts_as_made():
    journal = filled(ROOMY, 3)
    journal.made("s", 4, 9)
    assert (journal.kept("s", 4), journal.size) == ((9, 9), 0)
    assert journal.kept("unknown", 4) == (0, 0)


def test_sessions_and_boundaries_end():
    journal = filled(ROOMY, 3)
    journal.add("s", 6, 0, 1, "x", 10), journal.add("t", 4, 0, 1, "y", 10)
    journal.keep_boundaries({4})
    assert (journal.size, len(journal)) == (40, 2)
    journal.forget("s")
    assert (journal.size, len(journal)) == (10, 1)
    journal.keep_boundaries(set())
    assert (journal.size, len(journal)) == (0, 0)


@dataclass
class Truth:
    """The passes of one line, kept without end: list of (position, rows, payload)."""

    passes: list[tuple[int, int, int]] = field(default_factory=list)


steps = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from((2, 4)), st.integers(0, 12), st.integers(1, 4)),
    max_size=40,
)


@quick
@given(steps, st.integers(0, 200), st.data())
def test_whatever_is_added_it_never_gives_a_wrong_row(adds: list, budget: int, data: st.DataObject):
    journal, truth = Journal(budget), dict[tuple[str, int], Truth]()
    for number, (session, boundary, position, rows) in enumerate(adds):
        line = truth.setdefault((session, boundary), Truth())
        line.passes = [item for item in line.passes if item[0] + item[1] <= position]
        line.passes.append((position, rows, number))
        journal.add(session, boundary, position, rows, number, rows * 10)
        assert journal.size <= budget
        assert journal.kept(session, boundary)[1] == position + rows
    lines = [journal._lines[key] for key in journal._lines]
    assert journal.size == sum(entry.size for line in lines for entry in line.entries)
    for (session, boundary), line in truth.items():
        first, made = journal.kept(session, boundary)
        start = data.draw(st.integers(0, 16))
        end = data.draw(st.integers(start + 1, 17))
        found = [
            (entry.position, entry.rows, entry.payload)
            for entry in journal.passes(session, boundary, start, end)
        ]
        assert set(found) <= set(line.passes)
        covered = [at for position, rows, _ in found for at in range(position, position + rows)]
        assert covered == list(range(covered[0], covered[-1] + 1)) if found else True
        assert bool(found) == (first <= start and end <= made and first < made), (first, made)
        assert not found or (covered[0] <= start and covered[-1] + 1 >= end)
