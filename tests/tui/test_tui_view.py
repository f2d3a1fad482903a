"""The fold: what the widgets will be given after each event."""

from dataclasses import replace

import pytest
import tui_scenes as scenes
from tui_scenes import LAPTOP, NETBOOK, NOW, PHONE, PI

from swisd.core.types import Member, Pipeline, Plan, Prediction, Stage
from swisd.tui.view import (
    MAX_EVENTS,
    MAX_HISTORY,
    STARTED_OVER_S,
    BusState,
    NoticeSeen,
    SwarmEvent,
    SwarmView,
    devices_hint,
    fold,
    plan_hint,
)


def folded(*events: SwarmEvent, view: SwarmView | None = None) -> SwarmView:
    view = view or SwarmView()
    for event in events:
        view = fold(view, event, NOW)
    return view


def texts(view: SwarmView) -> list[str]:
    return [event.text for event in view.events]


def test_rows_of_a_running_swarm():
    view = folded(*scenes.running())
    rows = {row.device: row for row in view.devices}
    assert [row.letter for row in view.devices] == ["A", "B", "C", "D"]
    laptop = rows[LAPTOP]
    assert (laptop.role, laptop.units, laptop.marks) == ("driver", "embed+1-12+head", "driver, host, you")
    assert laptop.predicted_ms == pytest.approx(17.2 + 3.6)
    assert laptop.measured_ms == 21.3
    assert (rows[PI].role, rows[PI].units) == ("worker", "13-21")
    assert (rows[NETBOOK].role, rows[NETBOOK].units) == ("standby", "-")
    assert rows[NETBOOK].left_out.startswith("left out: using it would make each token 41.0 ms slower")
    assert rows[PHONE].rtt_ms == 4.2


def test_segments_cover_the_model_once():
    view = folded(*scenes.running())
    assert [(s.letter, s.start, s.end) for s in view.segments] == [
        ("A", 0, 13),
        ("B", 13, 22),
        ("C", 22, 31),
        ("A", 31, 32),
    ]
    assert sum(s.share for s in view.segments) == pytest.approx(1.0)
    assert view.segments[0].colour == view.segments[3].colour != view.segments[1].colour


def test_totals_put_predicted_beside_measured():
    totals = folded(*scenes.running()).totals
    assert (totals.predicted_ms, totals.measured_ms, totals.gap) == (57.9, 60.1, "+4 %")
    assert totals.links_ms == pytest.approx(8.0)
    assert totals.tokens_per_s == pytest.approx(16.7 * 1.8)


def test_totals_of_several_pipelines_are_those_of_the_slowest_and_of_all_together():
    totals = folded(*scenes.replicas()).totals
    assert (totals.predicted_ms, totals.measured_ms, totals.links_ms) == (62.4, 65.5, 0.0)
    # The busiest device of the first is the pi with both its stages, and the phone, 20 ms each.
    assert totals.together_per_s == pytest.approx(1000 / 20.0 + 1000 / 62.4)
    alone = replace(scenes.plan(), prediction=Prediction(57.9, 9.4, (), (1.3, 2.6, 2.1)))
    assert folded(alone).totals.links_ms == pytest.approx(6.0)


def test_a_figure_measured_under_another_epoch_is_not_shown():
    view = folded(scenes.plan(epoch=8), scenes.digest(9, scenes.laptop(), epoch=7, token_ms=60.1))
    assert view.totals.measured_ms == 0.0


def test_an_old_or_repeated_digest_changes_nothing():
    view = folded(*scenes.running())
    for seq in (1, view.digest.seq):  # type: ignore[union-attr]
        assert folded(scenes.digest(seq, scenes.laptop()), view=view) is view


def test_a_digest_of_a_fenced_host_changes_nothing():
    view = folded(*scenes.running())
    stale = replace(scenes.digest(999, scenes.pi(), epoch=6), host=PI)
    assert folded(stale, view=view) is view


def test_a_new_host_is_believed_and_told():
    view = folded(*scenes.running())
    view = folded(replace(scenes.digest(1, scenes.laptop(), scenes.pi(), epoch=8), host=PI), view=view)
    assert [row.device for row in view.devices if row.host] == [PI]
    assert "garage-pi4 is now the host" in texts(view)


def test_a_host_that_started_over_is_believed_after_a_silence():
    view = folded(*scenes.running())
    again = scenes.digest(1, scenes.laptop(), epoch=1)
    assert fold(view, again, NOW + STARTED_OVER_S - 1) is view
    view = fold(view, again, NOW + STARTED_OVER_S)
    assert view.digest == again
    assert view.plan is None
    assert folded(scenes.plan(epoch=1), view=view).plan is not None


def test_an_old_or_repeated_plan_changes_nothing():
    view = folded(scenes.digest(1, scenes.laptop()), scenes.plan(epoch=7))
    assert folded(scenes.plan(epoch=6), scenes.plan(epoch=7), view=view) is view


def test_a_plan_of_several_pipelines_says_how_many():
    plan = next(event for event in scenes.replicas() if isinstance(event, Plan) and event.epoch == 9)
    assert texts(folded(plan)) == ["plan 9 is active: 3 devices in 2 pipelines, 62.4 ms/token predicted"]


def test_a_plan_that_becomes_active_in_its_epoch_is_taken():
    view = folded(scenes.plan(active=False), scenes.plan(active=True))
    assert view.plan is not None and view.plan.active
    assert texts(view) == [
        "plan 7 is being loaded: 3 devices, 57.9 ms/token predicted",
        "plan 7 is active: 3 devices, 57.9 ms/token predicted",
    ]


def test_trouble_is_told_once_and_marked():
    view = folded(*scenes.broken())
    states = {row.name: (row.state, row.tone) for row in view.devices}
    assert states == {
        "kitchen-laptop": ("loading 60 %", "busy"),
        "garage-pi4": ("silent", "busy"),
        "anas-old-phone": ("lost", "bad"),
        "attic-netbook": ("failed", "bad"),
    }
    errors = [event.text for event in view.events if event.level == "error"]
    assert errors == [
        "anas-old-phone is lost: it no longer answers",
        "attic-netbook failed: disk full: 31 MB needed in /home/ana/.swisd, 12 MB free",
    ]
    assert [s.trouble for s in view.segments] == ["", "silent", "lost", ""]


def test_devices_that_come_back_and_leave():
    view = folded(
        scenes.digest(1, scenes.laptop(), scenes.pi(liveness="dead")),
        scenes.digest(2, scenes.laptop(), scenes.pi()),
        scenes.digest(3, scenes.laptop(), scenes.pi(liveness="left")),
        scenes.digest(4, scenes.laptop(), scenes.pi()),
    )
    assert texts(view) == [
        "1 device in the swarm",
        "garage-pi4 is back",
        "garage-pi4 left",
        "garage-pi4 joined",
    ]


def test_letters_stay_with_their_devices():
    first = folded(scenes.IDENTITY, scenes.digest(1, scenes.pi(), scenes.laptop(), scenes.phone()))
    assert first.letters == {LAPTOP: 0, PHONE: 1, PI: 2}
    gone = folded(scenes.digest(2, scenes.pi(), scenes.laptop()), view=first)
    assert gone.letters == {LAPTOP: 0, PI: 2}
    assert folded(scenes.digest(3, scenes.pi(), scenes.netbook(), scenes.laptop()), view=gone).letters == {
        LAPTOP: 0,
        NETBOOK: 1,
        PI: 2,
    }


def test_session_history_is_kept_per_session_and_bounded():
    view = SwarmView()
    for seq in range(MAX_HISTORY + 20):
        view = folded(scenes.digest(seq, scenes.laptop(), sessions=(scenes.session(2, seq, seq),)), view=view)
    (row,) = view.sessions
    assert len(row.history) == MAX_HISTORY
    assert row.history[-1] == MAX_HISTORY + 19
    assert (row.asker, row.state) == ("kitchen-laptop", "running")
    view = folded(scenes.digest(500, scenes.laptop()), view=view)
    assert not view.histories and not view.sessions
    assert texts(view)[-1] == "session 2f2ac8 ended after 79 tokens"


def test_sessions_here_counts_only_what_leaving_would_disturb():
    view = folded(*scenes.running())
    assert view.sessions_here == 2
    bystander = replace(scenes.IDENTITY, device=NETBOOK)
    assert folded(bystander, view=view).sessions_here == 0


def test_events_are_bounded_and_repeats_are_counted():
    view = SwarmView()
    for number in range(MAX_EVENTS + 50):
        view = folded(NoticeSeen(NOW, "info", f"line {number}"), view=view)
    assert len(view.events) == MAX_EVENTS
    view = folded(*[NoticeSeen(NOW + i, "warning", "again") for i in range(5)], view=view)
    assert (view.events[-1].times, view.events[-1].at) == (5, NOW + 4)
    assert len(view.events) == MAX_EVENTS


def test_text_of_others_cannot_change_the_terminal():
    hostile = scenes.member(PI, "\x1b[2Jevil\nname\u202e", note="\x07bell")
    view = folded(scenes.digest(1, hostile), NoticeSeen(NOW, "info", "a\x1b]0;b"))
    (row,) = view.devices
    shown = row.name + row.note + "".join(texts(view))
    assert all(ord(c) >= 32 for c in shown)
    assert "\u202e" not in shown


def test_hints_say_what_comes_next():
    assert devices_hint(SwarmView()) == "Waiting for the first report of the swarm's host."
    view = folded(*scenes.alone())
    assert devices_hint(view) == "No other device yet: press j for the join code."
    assert plan_hint(view) == "Model is being fetched: 43 %"
    assert devices_hint(folded(BusState(False, "refused"), view=view)) == (
        "Not connected to the swarm (refused). Trying again."
    )


def test_hints_about_the_plan():
    ready = folded(*scenes.running())
    assert plan_hint(ready) == ""
    lost = scenes.digest(99, scenes.laptop(), scenes.pi(), scenes.phone(liveness="dead"))
    assert plan_hint(folded(lost, view=ready)) == (
        "Plan 7 cannot go on without anas-old-phone (lost); the host makes another."
    )
    both = folded(*scenes.replicas())
    lost = scenes.digest(99, scenes.laptop(), scenes.pi(), scenes.phone(liveness="dead"), epoch=9)
    assert plan_hint(folded(lost, view=both)) == (
        "Pipeline 1 of plan 9 cannot go on without anas-old-phone (lost), the others go on."
    )
    lost = scenes.digest(99, scenes.laptop(liveness="dead"), scenes.phone(liveness="dead"), epoch=9)
    assert plan_hint(folded(lost, view=both)) == (
        "Plan 9 cannot go on without anas-old-phone (lost), kitchen-laptop (lost); the host makes another."
    )
    assert plan_hint(folded(*scenes.broken())) == "Plan 8 is being loaded: 0 of 3 devices ready."
    none = replace(
        scenes.plan(), pipelines=(), active=False, problem="the model needs 180 MB, 90 MB are offered"
    )
    view = folded(scenes.digest(1, scenes.laptop()), none)
    assert plan_hint(view) == "No plan: the model needs 180 MB, 90 MB are offered"
    assert view.totals.predicted_ms == 0.0
    measuring = folded(scenes.digest(1, scenes.laptop(state="measuring")))
    assert plan_hint(measuring) == "No plan yet: devices are being measured."


def test_replicas_and_slices_share_the_bar():
    sliced = Stage(0, 10, (Member(LAPTOP, 0.75), Member(PI, 0.25)))
    plan = Plan(
        epoch=1,
        host=LAPTOP,
        model="0" * 64,
        model_id="m",
        model_bytes=1,
        context=0,
        objective="throughput",
        pipelines=(Pipeline((sliced,)), Pipeline((Stage(0, 10, (Member(PHONE),)),))),
        prediction=Prediction(1.0, 1.0, (4.0, 9.0), ()),
    )
    view = folded(scenes.digest(1, scenes.laptop(), scenes.pi(), scenes.phone(), epoch=1), plan)
    assert [(s.pipeline, s.device, s.share, s.predicted_ms) for s in view.segments] == [
        (0, LAPTOP, 0.75, 4.0),
        (0, PI, 0.25, 4.0),
        (1, PHONE, 1.0, 9.0),
    ]


def test_a_plan_may_name_devices_that_the_digest_does_not_know():
    view = folded(scenes.digest(1, scenes.laptop()), scenes.plan())
    assert [(s.letter, s.name) for s in view.segments[:2]] == [("A", "kitchen-laptop"), ("?", PI[:8])]


def test_a_plan_before_any_digest():
    view = folded(scenes.plan())
    assert view.devices == ()
    assert len(view.segments) == 4


def test_the_host_does_not_repeat_its_own_notices():
    """Its node gives notice of plans and farewells; others learn of them only from digests and plans."""
    before = scenes.digest(1, scenes.laptop(), scenes.pi())
    after = scenes.digest(2, scenes.laptop(), scenes.pi(liveness="left"))
    on_host = folded(scenes.IDENTITY, before, after, scenes.plan())
    elsewhere = folded(replace(scenes.IDENTITY, device=PHONE), before, after, scenes.plan())
    assert texts(on_host) == ["2 devices in the swarm"]
    assert texts(elsewhere) == [
        "2 devices in the swarm",
        "garage-pi4 left",
        "plan 7 is active: 3 devices, 57.9 ms/token predicted",
    ]


def test_the_hosts_note_says_what_a_swarm_without_a_plan_waits_for():
    view = folded(scenes.digest(1, scenes.laptop(state="idle"), note="importing the model: 12 of 32 units"))
    assert plan_hint(view) == "importing the model: 12 of 32 units"
    assert texts(view) == ["1 device in the swarm"]
