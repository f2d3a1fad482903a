"""Who stands in for whom, from the plan's spares and what members say they have in memory."""

from dataclasses import replace

import tui_scenes as scenes
from test_tui_view import folded, texts
from tui_scenes import LAPTOP, NETBOOK, PHONE, PI

from swisd.core.types import Spare
from swisd.tui.cover import cover_line, cover_rows, gap_line
from swisd.tui.words import units_spoken

PLAN = scenes.plan()


def states(plan, digest) -> dict[str, tuple[str, str]]:
    return {row.device: (row.by, row.state) for row in cover_rows(plan, digest)}


def test_a_spare_counts_when_its_device_has_all_of_it():
    plan = replace(PLAN, spares=(Spare(PI, 0, 13), Spare(PI, 31, 32), Spare(NETBOOK, 22, 31)))
    half = scenes.pi(warm=((13, 22), (0, 13)))
    members = (scenes.laptop(), half, scenes.phone(), scenes.netbook(warm=((22, 31),)))
    digest = scenes.digest(1, *members, uncovered=(PI,))
    assert states(plan, digest) == {
        LAPTOP: (PI, "loading"),
        PI: ("", "nobody"),
        PHONE: (NETBOOK, "loaded"),
    }
    whole = replace(half, warm=(*half.warm, (31, 32)))
    later = replace(digest, members=(scenes.laptop(), whole, *members[2:]))
    assert states(plan, later)[LAPTOP] == (PI, "loaded")


def test_a_spare_for_half_of_what_a_device_runs_does_not_cover_it():
    plan = replace(PLAN, spares=(Spare(PI, 0, 13),))
    members = (scenes.laptop(), scenes.pi(), scenes.phone())
    assert states(plan, scenes.digest(1, *members)) == {}  # the host has not chosen yet
    assert states(plan, scenes.digest(1, *members, uncovered=(LAPTOP,))) == {LAPTOP: ("", "nobody")}


def test_a_spare_that_is_lost_or_silent_itself_is_no_comfort():
    plan = replace(PLAN, spares=(Spare(NETBOOK, 13, 22),))
    for changes in ({"liveness": "dead"}, {"liveness": "suspect"}):
        gone = scenes.netbook(warm=((13, 22),), **changes)
        digest = scenes.digest(1, scenes.laptop(), scenes.pi(), scenes.phone(), gone)
        assert states(plan, digest) == {PI: (NETBOOK, "silent")}
    assert states(plan, scenes.digest(1, scenes.laptop(), scenes.pi())) == {PI: (NETBOOK, "silent")}


def test_nothing_is_said_before_there_is_something_to_say():
    one = scenes.digest(1, scenes.laptop(), uncovered=(LAPTOP,))
    assert cover_rows(PLAN, one) == ()  # alone: that another device would help is said already
    two = scenes.digest(1, scenes.laptop(), scenes.pi(), uncovered=(LAPTOP,))
    assert cover_rows(None, two) == cover_rows(PLAN, None) == ()
    assert cover_rows(replace(PLAN, active=False), two) == ()
    assert cover_rows(replace(PLAN, epoch=8), two) == ()  # said of the plan before


def test_a_gap_says_what_it_means_and_what_to_do():
    digest = scenes.digest(1, scenes.laptop(), scenes.pi(), scenes.phone(), uncovered=(PI,))
    rows = cover_rows(PLAN, digest)
    assert gap_line(rows) == (
        "Nobody has room for layers 13-21 of garage-pi4: if garage-pi4 is lost, its part is loaded anew. "
        "Offer more memory on another device."
    )
    both = cover_rows(PLAN, replace(digest, uncovered=(PI, PHONE)))
    assert "13-21 of garage-pi4; layers 22-30 of anas-old-phone: if one of them is lost" in gap_line(both)
    assert gap_line(()) == ""
    assert cover_line(rows, {PI: 1}) == "nobody for B"


def test_units_in_a_sentence():
    assert units_spoken("embed+1-12+head") == "the embedding, layers 1-12 and the head"
    assert units_spoken("7") == "layer 7" and units_spoken("7+head") == "layer 7 and the head"


def test_the_dashboard_knows_it_and_tells_of_a_gap_once():
    view = folded(*scenes.covered())
    assert [(row.name, row.by_name, row.state) for row in view.cover] == [
        ("kitchen-laptop", "", "nobody"),
        ("garage-pi4", "attic-netbook", "loaded"),
        ("anas-old-phone", "garage-pi4", "loading"),
    ]
    assert cover_line(view.cover, view.letters) == "nobody for A, D for B, B for C (loading)"
    assert {row.name: row.role for row in view.devices}["attic-netbook"] == "spare"
    again = folded(replace(view.digest, seq=61), view=view)  # type: ignore[type-var]
    told = [text for text in texts(again) if text.startswith("nobody has room")]
    assert told == ["nobody has room to stand in for kitchen-laptop: if it is lost, its part is loaded anew"]
