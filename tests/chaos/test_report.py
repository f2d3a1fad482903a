"""Rounds folded to a summary, and both as words and as JSON."""

from swisd.chaos.parts import PauseParts
from swisd.chaos.report import Round, StreamResult, Struck, TakenOver, summarise
from swisd.chaos.words import round_line, summary_text

GOOD = StreamResult(True, 60, 60, pause_s=1.25, median_ms=15.0)
BAD = StreamResult(False, 40, 60, pause_s=9.0, median_ms=15.0, problem="token 40: the last 20 never came")


def a_round(number: int, kind: str = "worker", *streams: StreamResult, **changes: object) -> Round:
    warm = bool(changes.pop("warm", False))
    struck = (Struck("bob", kind, ((4, 9),), warm),)
    values: dict[str, object] = {"how": "kill", "struck": struck, "streams": streams or (GOOD,)}
    return Round(number, kind, **(values | changes))  # type: ignore[arg-type]


def test_a_round_is_identical_only_if_all_of_it_is():
    assert a_round(1).identical
    assert not a_round(1, "worker", GOOD, BAD).identical
    assert not a_round(1, error="the swarm has no host").identical
    assert not Round(1, "none", "kill").identical


def test_the_summary_tells_roles_apart_and_names_failures():
    rounds = [
        a_round(1), a_round(2, "worker", StreamResult(True, 60, 60, 0.75, 15.0), warm=True),
        a_round(3, "host", GOOD, BAD), a_round(4, "host", error="no host"),
    ]  # fmt: skip
    found = summarise(rounds)
    assert (found.rounds, found.identical, found.failed, found.streams) == (4, 2, (3, 4), 5)
    assert found.longest_pause_s == 9.0
    worker, host = found.roles
    assert (worker.kind, worker.rounds, worker.identical, worker.median_pause_s) == ("worker", 2, 2, 1.0)
    assert (worker.warm_rounds, worker.longest_warm_pause_s) == (1, 0.75)
    assert (host.kind, host.identical, host.longest_pause_s) == ("host", 0, 9.0)
    text = summary_text(found)
    assert "NOT IDENTICAL: round(s) 3, 4" in text and "1 round(s), 0.75 s" in text


def test_an_empty_campaign_has_a_summary():
    assert "0 of 0" in summary_text(summarise([]))


def test_a_round_in_a_line():
    taken = (TakenOver("host", ("cyd",)), TakenOver("units", ("cyd", "dan"), (4, 9)))
    line = round_line(
        a_round(
            3, "host", at_token=42, taken_over=taken, epoch_before=3, epoch_after=5,
            parts=PauseParts(0.01, 0.7, 0.9, 0.2, 90, 1.2), note="no host-driver in this plan",
        )
    )  # fmt: skip
    assert line == (
        "round 3: host bob killed at token 42; 60 tokens identical; pause 1.25 s (noticed 0.01, planned "
        "0.70, loaded 0.90, next token 1.20, 90 positions replayed in 0.20), 15.0 ms a token; "
        "cyd is the host now, cyd and dan took units 4 to 8; plan 3 -> 5 (no host-driver in this plan)"
    )


def test_a_failed_round_in_a_line():
    line = round_line(a_round(3, "worker", BAD, error="the swarm has no host"))
    assert "NOT IDENTICAL: token 40: the last 20 never came" in line
    assert "FAILED: the swarm has no host" in line


def test_nobody_is_struck():
    assert round_line(Round(1, "none", "kill", streams=(GOOD,))) == (
        "round 1: nobody struck; 60 tokens identical"
    )
