"""What is kept of an answer that broke off: private, bounded, and checked when it is read again."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from swisd.client.kept import MOST, BrokeOff, KeptSession, forget, keep, load
from swisd.core.errors import BadInput
from swisd.core.types import SamplingParams
from swisd.node.home import Home

KEPT = KeptSession("ab" * 8, "cd" * 32, "tiny", (1, 2, 3), (7, 8), (0,), 5, 9, SamplingParams(0.7), "hi", 12)


def test_it_comes_back_as_it_was_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    keep(home, KEPT)
    assert load(home, KEPT.session) == KEPT
    file = home.sessions / f"{KEPT.session}.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.sessions.stat().st_mode) == 0o700
    keep(home, replace(KEPT, emitted=(7, 8, 9)))
    assert load(home, KEPT.session).emitted == (7, 8, 9)
    forget(home, KEPT.session)
    forget(home, KEPT.session)
    assert list(home.sessions.iterdir()) == []


def test_a_long_prompt_is_no_trouble(tmp_path: Path) -> None:
    long = replace(KEPT, prompt=tuple(range(100_000)))
    keep(Home(tmp_path), long)
    assert load(Home(tmp_path), KEPT.session) == long


def test_the_oldest_go(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for number in range(MOST + 3):
        keep(home, replace(KEPT, session=f"{number:016x}"))
        os.utime(home.sessions / f"{number:016x}.json", ns=(number, number))
    left = sorted(path.stem for path in home.sessions.iterdir())
    assert left == [f"{number:016x}" for number in range(3, MOST + 3)]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "AB" * 8, "ab" * 9, "cd" * 8])
def test_what_is_not_there_is_named_with_what_is(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path)
    with pytest.raises(BadInput, match="none at all"):
        load(home, name)
    keep(home, KEPT)
    with pytest.raises(BadInput, match=KEPT.session) as caught:
        load(home, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": []}, {"emitted": [1] * 6}, {"emitted": [-1]}, {"prompt": [1 << 30]}, {"max_tokens": 0},
        {"model": 7}, {"seed": -1}, {"sampling": {"temperature": -1}}, {"session": "cd" * 8},
        {"stop_ids": [1] * 100}, {"text": "x" * 3000},
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    home = Home(tmp_path)
    keep(home, KEPT)
    file = home.sessions / f"{KEPT.session}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(BadInput, match="damaged"):
        load(home, KEPT.session)
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(BadInput, match="damaged"):
        load(home, KEPT.session)


def test_the_error_says_how_to_go_on() -> None:
    error = BrokeOff("the swarm offers 3 MiB", "ab" * 8)
    assert str(error) == f"the swarm offers 3 MiB; go on with: swisd ask --continue {'ab' * 8}"
    assert (error.session, error.exit_code) == ("ab" * 8, 7)
