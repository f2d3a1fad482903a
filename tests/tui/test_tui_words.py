"""How facts are spelled, and columns that fit."""

import pytest

from swisd.tui import words
from swisd.tui.columns import Column, table, widths
from swisd.tui.widgets.plan_bar import spread


@pytest.mark.parametrize(
    ("spans", "text"),
    [
        ([(0, 32)], "embed+1-30+head"),
        ([(0, 13), (31, 32)], "embed+1-12+head"),
        ([(31, 32), (0, 1)], "embed+head"),
        ([(5, 6)], "5"),
        ([(13, 22)], "13-21"),
        ([(0, 2), (10, 32)], "embed+1+10-30+head"),
        ([], ""),
    ],
)
def test_units(spans: list[tuple[int, int]], text: str):
    assert words.units(spans, 32) == text


def test_letters_go_on_after_z():
    assert [words.letter(slot) for slot in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]


def test_memory_in_one_unit():
    assert words.memory(31 << 20, 800 << 20) == "31/800MiB"
    assert words.memory(100 << 20, 2 << 30) == "0.1/2.0GiB"
    assert words.memory(0, 16 << 30) == "0.0/16GiB"
    assert words.memory(0, 0) == "-"


def test_figures_that_are_not_there_are_not_zero():
    assert words.millis(0.0) == "-"
    assert words.rate(0.0) == "-"
    assert words.per_second(0.0) == 0.0


def test_wide_letters_keep_columns_aligned():
    assert words.cells("日本") == 4
    assert words.fit("日本語", 5) == "日本…"
    assert words.fit("日本", 6) == "日本  "
    assert words.fit("7", 3, right=True) == "  7"


def test_wrap_breaks_between_words_and_inside_long_ones():
    assert words.wrap("one two three", 7) == ["one two", "three"]
    assert words.wrap("/a/very/long/path x", 8) == ["/a/very/", "long/pat", "h x"]
    assert words.wrap("", 8) == []
    assert words.wrap("abc", 0) == ["abc"]


def test_sparkline_shows_the_latest_from_zero():
    assert words.sparkline([1, 2, 0, 4, 8], 3) == "▁▅█"
    assert words.sparkline([0, 0], 5) == ""


def test_columns_give_way_from_the_left_and_no_further_than_their_least():
    columns = [Column("name", least=4), Column("units", least=6), Column("ms", right=True)]
    rows = [("a-long-name", "embed+1-12", "1.0")]
    assert widths(columns, rows, 80) == (11, 10, 3)
    assert widths(columns, rows, 20) == (5, 10, 3)
    assert widths(columns, rows, 10) == (4, 6, 3)


def test_table_aligns():
    assert table([Column("n"), Column("ms", right=True)], [("a", "1.5"), ("bcd", "10")]) == [
        "n     ms",
        "a    1.5",
        "bcd   10",
    ]


@pytest.mark.parametrize("room", [4, 7, 40, 79, 120])
def test_the_bar_fills_its_room_and_hides_no_segment(room: int):
    sizes = spread([13 / 32, 9 / 32, 9 / 32, 1 / 32], room)
    assert sum(sizes) == room
    assert min(sizes) >= (2 if room >= 8 else 1)
