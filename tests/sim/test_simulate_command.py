"""`swisd simulate`: what it prints, and its exit code."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swisd.cli.app import app
from swisd.core.errors import BadInput
from swisd.core.worker import Worker
from swisd.sim.mishaps import ALL

SHORT = ["simulate", "--devices", "3", "--minutes", "1"]


def test_a_storm_is_told_to_a_person():
    result = CliRunner().invoke(app, [*SHORT, "--seed", "4", "--faults", "crash,freeze"])
    assert result.exit_code == 0
    assert result.stdout.startswith("seed 4: 3 devices")
    assert "every invariant held" in result.stdout and "crash" in result.stdout


def test_several_storms_as_json_lines():
    result = CliRunner().invoke(app, [*SHORT, "--storms", "2", "--json"])
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [report["seed"] for report in reports] == [0, 1]
    assert all(set(report["faults"]) <= ALL and report["violations"] == [] for report in reports)
    assert all(len(report["digest"]) == 64 and "transcript" not in report for report in reports)


def test_a_violation_gives_its_transcript_and_another_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Worker, "_in_order", lambda self, activation, now, out: True)
    path = tmp_path / "storm.txt"
    options = ["--faults", "duplicate", "--storms", "3", "--transcript", str(path)]
    result = CliRunner().invoke(app, ["simulate", "--minutes", "2", *options])
    assert result.exit_code == 1
    assert "VIOLATION at" in result.stdout
    assert "VIOLATION at" in path.read_text(encoding="utf-8")


def test_an_unknown_fault_is_named_with_those_that_exist():
    result = CliRunner().invoke(app, [*SHORT, "--faults", "rain"])
    assert isinstance(result.exception, BadInput)
    assert "no fault rain: choose of all, none, boast-memory" in str(result.exception)
