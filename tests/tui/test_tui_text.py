"""Plain text of the commands, compared whole: a change of a column is a change that people see."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tui_scenes as scenes

from swisd.core.types import Plan
from swisd.tui.text_view import render_join, render_plan, render_status
from swisd.wire.messages import Digest

GOLDEN = Path(__file__).parent / "golden"


def last(events: list, kind: type):
    return [event for event in events if isinstance(event, kind)][-1]


def plan_of(events: list) -> str:
    return render_plan(last(events, Plan), last(events, Digest), scenes.LAPTOP)


def status_of(events: list) -> str:
    return render_status(last(events, Digest), last(events, Plan), scenes.LAPTOP)


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8")


def test_plan_of_a_running_swarm():
    events = scenes.running()
    text = render_plan(last(events, Plan), last(events, Digest), scenes.LAPTOP)
    assert text == golden("plan_running.txt")


def test_plan_without_a_digest_shows_what_is_predicted():
    text = render_plan(last(scenes.running(), Plan))
    assert text == golden("plan_alone.txt")


def test_plan_that_found_no_way():
    plan = replace(
        scenes.plan(verdicts=scenes.VERDICTS[3:]),
        pipelines=(),
        active=False,
        problem="the model needs 180 MB, all devices together offer 90 MB",
    )
    assert render_plan(plan, scenes.digest(1, scenes.netbook())) == golden("plan_none.txt")


def test_status_of_a_running_swarm():
    events = scenes.running()
    text = render_status(last(events, Digest), last(events, Plan), scenes.LAPTOP)
    assert text == golden("status_running.txt")


@pytest.mark.parametrize(("render", "name"), [(plan_of, "plan_covered"), (status_of, "status_covered")])
def test_who_stands_in_for_whom_is_shown(render, name):
    text = render(scenes.covered())
    assert text == golden(f"{name}.txt")
    start = next(
        i for i, line in enumerate(text.splitlines()) if line.startswith(("if it is lost", "Spares"))
    )
    assert all(len(line) <= 80 for line in text.splitlines()[start : start + 7])


@pytest.mark.parametrize(("render", "name"), [(plan_of, "plan_replicas"), (status_of, "status_replicas")])
def test_several_pipelines_are_told_apart(render, name):
    assert render(scenes.replicas()) == golden(f"{name}.txt")


def test_status_of_a_swarm_in_trouble():
    events = scenes.broken()
    text = render_status(last(events, Digest), last(events, Plan))
    assert text == golden("status_broken.txt")


def test_status_of_one_device_says_what_to_do_next():
    text = render_status(last(scenes.alone(), Digest), None, scenes.LAPTOP)
    assert text == golden("status_alone.txt")


def test_nothing_known_yet():
    assert render_plan(None) == "No plan yet. Start a device with: swisd up\n"
    assert render_status(None, None).startswith("No report from the swarm's host yet.")


def test_join_code_is_a_picture_and_text():
    text = render_join(scenes.CODE)
    assert text == golden("join.txt")
    *picture, _, code, end = text.split("\n")
    assert (code, end) == (scenes.CODE, "")
    assert {len(line) for line in picture} == {33}


def test_plain_text_needs_no_textual():
    """`swisd plan` must not wait for the import of a whole user interface."""
    check = "import sys, swisd.tui.text_view; sys.exit('textual' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
