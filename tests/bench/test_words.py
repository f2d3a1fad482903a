"""The table: ratios first, 80 columns, and honest about what is not told."""

from dataclasses import replace

from swisd.bench.history import changes
from swisd.bench.report import Hop
from swisd.bench.words import table, wrapped
from tests.bench.reports import WAY, a_report, told

FULL = (
    told("one device", "solo", 50.0), told("3 devices, tcp", "swarm", 40.0),
    told("llama.cpp", "llama.cpp", 100.0),
)  # fmt: skip


def test_ratios_come_before_figures() -> None:
    text = table(a_report(*FULL), ())
    head = next(line for line in text.splitlines() if line.startswith("one question"))
    assert head.index("vs solo") < head.index("vs llama") < head.index("tokens/s") < head.index("p99 ms")
    row = next(line for line in text.splitlines() if line.startswith("3 devices, tcp"))
    assert row.split()[3:6] == ["0.80", "0.40", "40.0"]
    assert "change" not in text


def test_no_line_is_longer_than_a_terminal() -> None:
    long = told("x" * 60, "swarm", 12345.6, shape="16 devices, 31 stages, 2 pipelines", lane="mqtt")
    report = a_report(*FULL, long, notes=("a word " * 60, "y" * 300), model="m" * 200)
    text = table(report, changes(report, [report]))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "+0.0 %" in text and "UTC" in text


def test_what_nobody_stands_beside_has_no_columns_for_it() -> None:
    text = table(a_report(told("the swarm", "swarm", 40.0)), ())
    assert "vs solo" not in text and "vs llama" not in text


def test_what_the_figures_of_a_way_mean_is_said() -> None:
    text = table(a_report(*FULL), ())
    assert "between two tokens" in " ".join(text.split()) and "caches of sessions" in text
    assert "one hop" not in text
    (row,) = [line.split() for line in text.splitlines() if line.split()[3:4] == ["10.00"]]
    assert row[3:] == ["10.00", "6.00", "4.00", "2", "2.00", "0.50"]
    assert any(line.split() == ["bob", "2.00", "50.0"] for line in text.splitlines())


def test_a_hop_is_split_into_its_parts() -> None:
    way = replace(WAY, hop=Hop(0.5, 1.25, 0.125, 0.125, 0.15, 0.1))
    text = table(a_report(FULL[0], replace(FULL[1], way=way)), ())
    (row,) = [line.split() for line in text.splitlines() if "1.25" in line.split()]
    assert row[3:] == ["0.50", "1.25", "0.12", "0.12", "0.15", "0.10"]
    assert max(len(line) for line in text.splitlines()) <= 80


def test_long_words_are_cut_and_others_wrapped() -> None:
    assert wrapped("a bb ccc", 6) == ["a bb", "  ccc"]
    assert wrapped("abcdefgh", 4) == ["abcd"] and wrapped("") == []
