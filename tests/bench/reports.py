"""Reports as a run would give them, for tests that measure nothing."""

from dataclasses import replace
from typing import Any

from swisd.bench.figures import Several, Single, Stream
from swisd.bench.report import DevicePart, Report, Told, Way, sides

WAY = Way(10.0, 6.0, 4.0, 0.5, 2, (DevicePart("ann", 4.0, 100 << 20), DevicePart("bob", 2.0, 50 << 20)))


def a_stream(*gaps_ms: float, first_ms: float = 100.0, began: float = 1.0) -> Stream:
    """A prompt of 128 tokens in 50 ms, and an answer with these gaps."""
    ended = began + (first_ms + sum(gaps_ms)) / 1000
    return Stream(128, 50.0, first_ms, gaps_ms, len(gaps_ms) + 1, began, ended)


def a_turn(speed: float = 50.0, prefill: float = 300.0) -> Single:
    return Single(prefill, 80.0, 1000 / speed, 1500 / speed, speed)


def a_crowd(total: float) -> Several:
    return Several(total, total / 2, 90.0, 20.0, 40.0)


def told(name: str, kind: Any, *speeds: float, **changes: Any) -> Told:
    """A contender with one turn a round, and twice the speed for four questions."""
    crowds = {1: [a_crowd(speed) for speed in speeds], 4: [a_crowd(2 * speed) for speed in speeds]}
    made = Told(
        name, kind, "tcp" if kind == "swarm" else "", "2 devices, 3 stages", [a_turn(s) for s in speeds],
        {} if kind == "llama.cpp" else crowds, WAY if kind == "swarm" else None,
    )  # fmt: skip
    return replace(made, **changes)


def a_report(*all_told: Told, **changes: Any) -> Report:
    chosen = all_told or (told("one device", "solo", 50.0), told("two devices, tcp", "swarm", 40.0))
    made = Report(1_795_532_444_302, "0.1.0", "local", "tiny", False, 1, 96, sides(chosen))
    return replace(made, **changes)
