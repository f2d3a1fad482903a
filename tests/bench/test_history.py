"""The history is bounded, private and checked, and compares only what can be compared."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from swisd.bench.history import FILE, MOST_LINES, append, as_plain, changes, percent, read_history
from swisd.core.checked import to_json
from swisd.core.errors import BadInput
from tests.bench.reports import a_report, told


def test_runs_are_kept_in_order_and_read_by_their_owner_alone(tmp_path: Path) -> None:
    for at in (1, 2):
        append(tmp_path, a_report(at=at))
    assert [report.at for report in read_history(tmp_path).reports] == [1, 2]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_oldest_run_makes_room(tmp_path: Path) -> None:
    lines = (to_json(a_report(at=at)) for at in range(MOST_LINES + 5))
    (tmp_path / FILE).write_bytes(b"\n".join(lines) + b"\n")
    append(tmp_path, a_report(at=999))
    kept = [report.at for report in read_history(tmp_path).reports]
    assert len(kept) == MOST_LINES and (kept[0], kept[-1]) == (6, 999)


def test_damaged_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    good = to_json(a_report(at=5))
    negative = json.dumps({**json.loads(good), "rounds": -1}).encode()
    (tmp_path / FILE).write_bytes(b"\n".join([b"nonsense", b"\xff\x00", negative, good, good[:-9]]))
    history = read_history(tmp_path)
    assert [report.at for report in history.reports] == [5] and history.damaged == 4
    append(tmp_path, a_report(at=6))
    assert [report.at for report in read_history(tmp_path).reports] == [5, 6]


def test_what_a_newer_version_wrote_stays(tmp_path: Path) -> None:
    line = json.dumps({**json.loads(to_json(a_report())), "later": 1}).encode()
    (tmp_path / FILE).write_bytes(line + b"\n")
    append(tmp_path, a_report())
    assert (tmp_path / FILE).read_bytes().startswith(line + b"\n")


def test_runs_from_before_hops_were_split_are_still_read(tmp_path: Path) -> None:
    line = json.loads(to_json(a_report(told("two", "swarm", 40.0))))
    del line["sides"][0]["way"]["hop"]
    (tmp_path / FILE).write_bytes(json.dumps(line).encode() + b"\n")
    history = read_history(tmp_path)
    assert history.damaged == 0 and history.reports[0].sides[0].way is not None


def test_a_history_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(BadInput, match="cannot read"):
        read_history(tmp_path)
    with pytest.raises(BadInput, match="cannot write"):
        append(tmp_path / "missing", a_report())


def test_a_change_is_told_in_percent_and_faster_is_more() -> None:
    before = a_report(told("one device", "solo", 50.0), version="0.0.9", at=7)
    slower = replace(before.sides[0], tokens_per_s=40.0, first_ms=160.0, prefill_ms=150.0)
    (change,) = changes(a_report(sides=(slower,)), [before])
    assert (change.since, change.version, change.side) == (7, "0.0.9", "one device")
    assert (change.tokens_per_s, change.first, change.prefill) == (-20.0, -50.0, 100.0)
    assert change.most_at_once == 0.0
    assert as_plain([change])[0]["tokens_per_s"] == -20.0


def test_the_last_comparable_run_counts() -> None:
    runs = [a_report(at=1), a_report(at=2), a_report(at=3, quick=True), a_report(at=4, model="other")]
    runs += [a_report(at=5, where="0011"), a_report(told("one device", "solo", 9.0, shape="4 stages"), at=6)]
    assert {change.since for change in changes(a_report(), runs)} == {2}
    assert changes(a_report(), []) == ()


def test_lanes_are_not_compared_with_each_other() -> None:
    over_bus = told("two devices, mqtt", "swarm", 30.0, lane="mqtt")
    assert changes(a_report(over_bus), [a_report(told("two devices, tcp", "swarm", 30.0))]) == ()


def test_nothing_is_a_percentage_of_nothing() -> None:
    assert percent(1.0, 0.0) is None and percent(0.0, 1.0) is None and percent(3.0, 2.0) == 50.0
