"""A device as a worker: which rows it runs, which it drops, and what it frees."""

from dataclasses import replace

import pytest
from builders import MODEL, a_config, a_manifest, a_plan, an_id, said

from swisd.core import deadlines
from swisd.core.effects import (
    DropSession,
    Effect,
    GiveUp,
    KeepShards,
    LoadShards,
    Notice,
    Publish,
    RunStep,
    SendFrame,
)
from swisd.core.events import (
    BusChanged,
    FrameArrived,
    FrameLost,
    LoadFailed,
    LoadProgress,
    ManifestReady,
    Received,
    ShardsLoaded,
    StepDone,
    StepFailed,
    Timer,
)
from swisd.core.machine import NodeMachine
from swisd.core.messages import Ask, Beat, Digest, Held, Repair, SessionView
from swisd.core.rows import TO_THE_END, Activation, Work
from swisd.core.types import Plan, Slot

RING = a_plan((0, 2, 1), (2, 4, 2), (4, 6, 1), epoch=5)
DRIVER = an_id(1)
MINE = (2, 4)


class Bench:
    """Device 2 of the ring, whose computations are done by hand."""

    def __init__(
        self, plan: Plan = RING, *, loaded: bool = True, units: tuple[tuple[int, int], ...] = (MINE,)
    ) -> None:
        self.machine = NodeMachine(a_config(2, claims="never"))
        self.now = 100.0
        self.do(ManifestReady(MODEL, a_manifest(4)))
        self.first = self.plan(plan)
        if loaded:
            self.do(ShardsLoaded(plan.epoch, units, 1))

    def do(self, event: object) -> list[Effect]:
        return self.machine.handle(event, self.now)  # type: ignore[arg-type]

    def plan(self, plan: Plan) -> list[Effect]:
        return self.do(Received(plan.host, plan))

    def frame(self, *, sender: str = DRIVER, **changes: object) -> list[Effect]:
        return self.do(FrameArrived(sender, rows(**changes)))

    @property
    def drops(self) -> dict[str, int]:
        return self.machine.local.drops


def rows(step: int = 0, *, session: str = "a" * 16, position: int = 0, **changes: object) -> Activation:
    slot = Slot(session, step, position, 3, 1)
    return replace(Activation(5, 0, 1, (slot,), 3, (1, 2, 3)), **changes)  # type: ignore[arg-type]


def kinds(effects: list[Effect], kind: type) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def state(effects: list[Effect]) -> list[tuple[str, int]]:
    return [(beat.state, beat.epoch) for beat in said(effects, Beat)]  # type: ignore[union-attr]


def test_it_loads_its_stages_and_says_how_far_it_is():
    bench = Bench(loaded=False)
    (load,) = kinds(bench.first, LoadShards)
    assert load == LoadShards(5, RING.model, (MINE,), (), RING.context)
    assert state(bench.first) == [("fetching", 5)]
    effects = bench.do(LoadProgress(5, True, 0.5, "layer 3"))
    (beat,) = said(effects, Beat)
    assert (beat.state, beat.progress, beat.note) == ("loading", 0.5, "layer 3")  # type: ignore[union-attr]
    (ready,) = said(bench.do(ShardsLoaded(5, (MINE,), 77)), Beat)
    assert (ready.state, ready.epoch, ready.warm) == ("ready", 5, (MINE,))  # type: ignore[union-attr]
    assert bench.machine.local.resident_bytes == 77
    assert state(bench.do(LoadProgress(4, True, 0.5))) == []


def test_a_failure_to_load_is_said_with_its_reason():
    bench = Bench(loaded=False)
    effects = bench.do(LoadFailed(5, "disk full"))
    (beat,) = said(effects, Beat)
    assert (beat.state, beat.epoch, beat.note) == ("failed", 5, "disk full")  # type: ignore[union-attr]
    assert bench.do(LoadFailed(4, "old")) == []
    # What an older load brought is in memory, but it is not what the plan wants.
    assert state(bench.do(ShardsLoaded(4, ((0, 2),), 1))) == [("failed", 5)]
    assert bench.frame() == []


def test_rows_are_run_and_sent_on():
    bench = Bench()
    (step,) = bench.frame()
    assert step == RunStep(Work(5, 1, "a" * 16, 0), MINE, rows(), onward=DRIVER)
    (sent,) = bench.do(StepDone(step.work, 3, (4, 5, 6), 1.0))
    assert sent == SendFrame(DRIVER, Activation(5, 0, 2, rows().slots, 3, (4, 5, 6)))
    assert bench.do(StepDone(step.work, 3, (4, 5, 6), 1.0)) == []  # it ends once


def test_rows_that_are_on_their_way_are_kept_and_not_sent_again():
    bench = Bench()
    (step,) = bench.frame()
    assert bench.do(StepDone(step.work, 3, (4, 5, 6), 1.0, sent=True)) == []
    stage = RING.pipelines[0].stages[1]
    held = bench.machine.worker.held.of("a" * 16, 1, stage)
    assert (held.length, held.kept_from, held.made) == (3, 0, 3)


def test_rows_go_on_by_themselves_only_to_another_device_that_runs_them():
    here_again = a_plan((0, 2, 1), (2, 4, 2), (4, 5, 2), (5, 6, 1), epoch=5)
    (step,) = Bench(here_again, units=((2, 4), (4, 5))).frame()
    assert step.onward == ""  # this device's own stage comes next
    (step,) = Bench().frame(until=1)
    assert step.onward == ""  # these are run again, here for the last time


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"epoch": 4}, "frame of another epoch"),
        ({"epoch": 6}, "frame of another epoch"),
        ({"stage": 0}, "frame for a stage of another device"),
        ({"stage": 2}, "frame for a stage of another device"),
        ({"stage": 99}, "frame for a stage of another device"),
        ({"pipeline": 1}, "frame for a stage of another device"),
        ({"sender": an_id(3)}, "frame from a device that is not the stage before"),
        ({"sender": an_id(2)}, "frame from a device that is not the stage before"),
        ({"position": RING.context - 2}, "frame beyond the context"),
        ({"slots": ()}, "rows of a session that ended"),
    ],
)
def test_wrong_rows_are_dropped_and_counted(wrong: dict[str, object], reason: str):
    bench = Bench()
    assert bench.frame(**wrong) == []  # type: ignore[arg-type]
    assert bench.drops == {reason: 1}
    assert len(bench.frame()) == 1  # and the right ones still run


def test_repeated_rows_and_rows_behind_a_gap_are_dropped():
    """A step that is lost without rows leaves no gap: the positions tell, and not the numbers."""
    bench = Bench()
    passes = [(0, 0), (0, 0), (1, 6), (1, 3), (1, 3), (3, 9), (2, 6), (4, 6)]
    ran = [len(kinds(bench.frame(step=step, position=at), RunStep)) for step, at in passes]
    assert ran == [1, 0, 0, 1, 0, 0, 1, 1]
    assert bench.drops == {"repeated frame": 2, "frame out of order": 2}


def test_a_gap_is_told_to_the_driver_which_would_wait_for_its_deadline():
    bench = Bench()
    (notice, said_it) = bench.frame(step=1, position=3)
    assert isinstance(notice, Notice) and "a frame was lost" in notice.text
    assert isinstance(said_it, Publish) and isinstance(said_it.message, Repair)
    fail = said_it.message
    assert (fail.op, fail.step, fail.device, said_it.to) == ("fail", 1, an_id(2), DRIVER)
    assert bench.drops == {"frame out of order": 1}


def test_rows_before_the_shard_is_loaded_are_dropped():
    bench = Bench(loaded=False)
    assert bench.frame() == []
    bench.do(ShardsLoaded(5, (MINE,), 1))
    assert len(bench.frame()) == 1


def test_rows_while_another_hosts_plan_of_that_epoch_loads_are_dropped():
    bench = Bench()
    bench.plan(replace(RING, host=an_id(3), pipelines=a_plan((0, 3, 1), (3, 4, 2), (4, 6, 1)).pipelines))
    assert bench.frame() == [] and bench.drops == {"frame of another epoch": 1}


def test_a_new_plan_keeps_what_is_held_and_forgets_old_work():
    bench = Bench()
    (first,) = bench.frame()
    bench.do(StepDone(first.work, 3, (1, 1, 1), 1.0))  # type: ignore[union-attr]
    (step,) = bench.frame(step=1, position=3)  # does not come to its end
    effects = bench.plan(replace(RING, epoch=6))
    assert not kinds(effects, DropSession)
    assert kinds(effects, GiveUp) == [GiveUp("a" * 16, 6, 0)]
    assert kinds(effects, LoadShards) == []  # the same shard: nothing to load
    assert state(effects) == [("ready", 6)]
    assert bench.do(StepDone(step.work, 3, (4, 5, 6), 1.0)) == []
    assert bench.do(StepFailed(step.work, "gone")) == []
    assert bench.do(FrameLost(DRIVER, step.activation, "gone")) == []
    (next_rows,) = bench.frame(epoch=6, position=3)  # numbered anew, behind the rows that it holds
    assert bench.do(StepDone(step.work, 3, (9, 9, 9), 1.0)) == []
    (sent,) = bench.do(StepDone(next_rows.work, 3, (4, 5, 6), 1.0))  # type: ignore[union-attr]
    assert isinstance(sent, SendFrame) and sent.activation.epoch == 6


def test_another_cut_keeps_the_rows_of_layers_that_stay_here():
    """Layers 2 and 3 had three positions; now there is layer 4, which has none."""
    bench = Bench()
    (step,) = bench.frame()
    bench.do(StepDone(step.work, 3, (1, 1, 1), 1.0))  # type: ignore[union-attr]
    wider = replace(RING, epoch=6, pipelines=a_plan((0, 2, 1), (2, 5, 2), (5, 6, 1)).pipelines)
    assert not kinds(bench.plan(wider), DropSession)
    bench.do(ShardsLoaded(6, ((2, 5),), 1))
    assert bench.frame(epoch=6, position=3) != []  # told to the driver
    assert bench.drops == {"frame out of order": 1}
    narrower = replace(RING, epoch=7, pipelines=a_plan((0, 3, 1), (3, 4, 2), (4, 6, 1)).pipelines)
    bench.plan(narrower), bench.do(ShardsLoaded(7, ((3, 4),), 1))
    assert len(kinds(bench.frame(epoch=7, position=3), RunStep)) == 1


@pytest.mark.parametrize(
    "plan",
    [
        replace(RING, epoch=6, model="cd" * 32),
        replace(RING, epoch=6, pipelines=a_plan((0, 3, 1), (3, 6, 2)).pipelines[:0], problem="no room"),
        replace(RING, epoch=6, pipelines=a_plan((0, 4, 2), (4, 5, 1), (5, 6, 2)).pipelines[:1]),
    ],
    ids=["another model", "no plan", "also other layers"],
)
def test_sessions_are_freed_where_none_of_their_layers_stay(plan: Plan):
    bench = Bench()
    bench.frame()
    stays = any(stage.device == an_id(2) for pipe in plan.pipelines for stage in pipe.stages)
    freed = kinds(bench.plan(plan), DropSession)
    assert freed == ([] if stays and plan.model == RING.model else [DropSession("a" * 16)])


def test_another_shard_or_model_is_loaded_anew():
    for plan in (
        replace(RING, epoch=6, pipelines=a_plan((0, 3, 1), (3, 4, 2), (4, 6, 1)).pipelines),
        replace(RING, epoch=6, model="cd" * 32),
    ):
        effects = Bench().plan(plan)
        assert len(kinds(effects, LoadShards)) == 1 and state(effects) == [("fetching", 6)]


@pytest.mark.parametrize("loaded", [True, False])
def test_a_plan_without_this_device_frees_the_shard_even_while_it_loads(loaded: bool):
    effects = Bench(loaded=loaded).plan(a_plan((0, 6, 1), epoch=6))
    assert kinds(effects, KeepShards) == [KeepShards(())] and state(effects) == [("idle", 6)]


def test_old_and_repeated_plans_do_nothing():
    bench = Bench()
    assert bench.plan(RING) == []
    assert bench.plan(replace(RING, epoch=4)) == []
    assert bench.plan(replace(RING, host=an_id(0))) == []
    assert bench.plan(replace(RING, active=False)) == []  # came late
    assert bench.machine.local.plan == RING
    assert bench.drops == {"plan of an old epoch": 2, "plan from before it was active": 1}


def test_the_drivers_cancel_frees_the_cache_and_what_still_comes_is_dropped():
    bench = Bench()
    (step,) = bench.frame()
    effects = bench.do(Received(DRIVER, Ask("cancel", "a" * 16, DRIVER, 5)))
    assert effects == [DropSession("a" * 16)]
    assert bench.do(StepDone(step.work, 3, (4, 5, 6), 1.0)) == []
    assert bench.frame(step=1) == [] and bench.frame(step=0) == []
    assert bench.drops == {"rows of a session that ended": 2}
    assert bench.do(Received(DRIVER, Ask("cancel", "a" * 16, DRIVER, 5))) == []


def test_a_session_whose_driver_fell_silent_is_freed():
    bench = Bench()
    bench.frame()
    bench.now += deadlines.IDLE_SESSION
    bench.frame(step=1, position=3)
    bench.now += deadlines.IDLE_SESSION
    assert not kinds(bench.do(Timer("beat")), DropSession)
    bench.now += 1
    assert kinds(bench.do(Timer("beat")), DropSession) == [DropSession("a" * 16)]


def test_a_session_that_waits_in_a_long_line_elsewhere_is_kept_while_the_host_says_that_it_runs():
    bench = Bench()
    bench.frame()
    digest = Digest(DRIVER, 5, 1, (), (SessionView("a" * 16, an_id(7), 3, 0, 0.0),))
    bench.do(BusChanged(True)), bench.do(Received(DRIVER, digest))
    for _ in range(4):
        bench.now += deadlines.IDLE_SESSION
        assert not kinds(bench.do(Timer("beat")), DropSession)
    bench.do(BusChanged(False, "cable"))  # what the host said last is no news
    bench.now += deadlines.IDLE_SESSION + 1
    assert kinds(bench.do(Timer("beat")), DropSession) == [DropSession("a" * 16)]


def test_what_a_lost_driver_left_makes_room_for_what_the_next_one_admits():
    """It began anew, and knows nothing of the sessions whose rows are here still."""
    bench = Bench(replace(RING, context=10))
    bench.frame(session="b" * 16), bench.frame(session="b" * 16, step=1, position=3)
    bench.now += 1.0
    assert not kinds(bench.frame(session="c" * 16), DropSession)
    bench.now += 1.0
    assert kinds(bench.frame(session="d" * 16), DropSession) == [DropSession("b" * 16)]
    assert set(bench.machine.worker.held.caches) == {"c" * 16, "d" * 16}


def test_trouble_is_told_to_the_driver_and_once_to_the_person():
    bench = Bench()
    (step,) = bench.frame()
    effects = bench.do(StepFailed(step.work, "no memory"))
    (fail,) = said(effects, Repair)
    assert (fail.op, fail.session, fail.epoch) == ("fail", "a" * 16, 5)  # type: ignore[union-attr]
    assert "d2: no memory" in fail.note  # type: ignore[union-attr]
    lost = [bench.do(FrameLost(DRIVER, rows(session=f"{n:016x}", stage=2), "refused")) for n in range(3)]
    assert [len(said(effects, Repair)) for effects in lost] == [1, 1, 1]
    assert [len(kinds(effects, Notice)) for effects in lost] == [1, 0, 0]


def test_time_of_one_token_steps_is_the_median():
    bench = Bench()
    for step, ms in enumerate((5.0, 1.0, 100.0, 2.0, 3.0)):
        slot = Slot("a" * 16, step, step, 1, 1)
        bench.frame(slots=(slot,), rows=1)
        bench.do(StepDone(Work(5, 1, "a" * 16, step), 1, (1,), ms))
    (beat,) = said(bench.do(Timer("beat")), Beat)
    assert beat.stage_ms == 3.0  # type: ignore[union-attr]


# --- what a driver asks ---------------------------------------------------------------------------


def repair(op: str, step: int = 0, **changes: object) -> Repair:
    return replace(Repair(op, "a" * 16, 5, step, DRIVER), **changes)  # type: ignore[arg-type]


def held(effects: list[Effect]) -> tuple[Held, ...]:
    (answer,) = said(effects, Repair)
    assert isinstance(answer, Repair) and (answer.op, answer.device) == ("held", an_id(2))
    return answer.held


def ran(bench: Bench, *passes: tuple[int, int]) -> None:
    for step, position in passes:
        (run,) = kinds(bench.frame(step=step, position=position), RunStep)
        bench.do(StepDone(run.work, 3, (position, position, position), 1.0))  # type: ignore[union-attr]


def test_it_says_what_it_holds_and_kept():
    bench = Bench()
    assert held(bench.do(Received(DRIVER, repair("probe")))) == (Held(1, 0, 0, 0),)
    ran(bench, (0, 0), (1, 3))
    bench.frame(step=2, position=6)  # under way: in the caches soon, but it went nowhere
    assert held(bench.do(Received(DRIVER, repair("probe", 7)))) == (Held(1, 9, 0, 6, 3, 2),)
    assert len(kinds(bench.frame(step=3, position=9), RunStep)) == 1  # a look changes nothing


def test_after_a_resume_older_steps_are_refused():
    bench = Bench()
    ran(bench, (0, 0))
    assert held(bench.do(Received(DRIVER, repair("resume", 5)))) == (Held(1, 3, 0, 3, 1, 1),)
    bench.do(Received(DRIVER, repair("resume", 2)))  # an old one that comes late
    assert bench.frame(step=4, position=3) == [] and bench.drops == {"repeated frame": 1}
    assert len(kinds(bench.frame(step=5, position=3), RunStep)) == 1


def test_a_late_word_of_the_driver_does_not_wake_a_session_that_ended():
    bench = Bench()
    ran(bench, (0, 0), (1, 3))
    bench.do(Received(DRIVER, Ask("cancel", "a" * 16, DRIVER, 5)))
    assert said(bench.do(Received(DRIVER, repair("resume", 1))), Repair) == []  # the network held it back
    assert bench.frame(step=1, position=0) == []
    assert held(bench.do(Received(DRIVER, repair("resume", 7)))) == (
        Held(1, 0, 0, 0),
    )  # it goes on after all
    assert len(kinds(bench.frame(step=7, position=0), RunStep)) == 1


@pytest.mark.parametrize(
    ("sender", "changes"),
    [
        (an_id(3), {"device": an_id(3)}),
        (DRIVER, {"epoch": 4}),
        (DRIVER, {"epoch": 6}),
    ],
)
def test_a_stranger_or_another_epoch_gets_no_answer(sender: str, changes: dict[str, object]):
    bench = Bench()
    assert said(bench.do(Received(sender, repair("resume", 9, **changes))), Repair) == []
    assert len(kinds(bench.frame(), RunStep)) == 1


def test_rows_are_sent_again_from_the_journal_and_the_last_asks_for_a_word():
    bench = Bench()
    ran(bench, (0, 0), (1, 3), (2, 6))
    sent = bench.do(Received(DRIVER, repair("replay", 10, stage=1, until=2, start=3, end=9)))
    frames = [(item.device, item.activation) for item in kinds(sent, SendFrame)]  # type: ignore[union-attr]
    assert frames == [
        (DRIVER, Activation(5, 0, 2, (Slot("a" * 16, 10, 3, 3, 0),), 3, (3, 3, 3), 2)),
        (DRIVER, Activation(5, 0, 2, (Slot("a" * 16, 11, 6, 3, 1),), 3, (6, 6, 6), 2)),
    ]
    late = bench.do(Received(DRIVER, repair("replay", 20, stage=1, until=2, start=3, end=12)))
    assert kinds(late, SendFrame) == []  # it has only a part of that


def test_rows_that_are_run_again_stop_where_they_are_wanted_and_are_told_when_done():
    bench = Bench(a_plan((0, 2, 1), (2, 4, 2), (4, 5, 3), (5, 6, 1), epoch=5))
    slots = tuple(Slot("a" * 16, step, 3 * step, 3, int(step == 1)) for step in (0, 1))
    words = []
    for slot in slots:
        (run,) = kinds(bench.frame(slots=(slot,), until=1), RunStep)
        effects = bench.do(StepDone(run.work, 3, (4, 5, 6), 1.0))  # type: ignore[union-attr]
        assert kinds(effects, SendFrame) == []
        words += said(effects, Repair)
    assert words == [repair("done", 1, device=an_id(2), until=1, end=6)]


def test_rows_that_are_run_again_share_passes_with_all_others_and_rows_under_way_with_few():
    """Devices behind have work from a part of the sessions at once, but none from what is run again here."""
    bench = Bench(a_plan((0, 2, 1), (2, 4, 2), (4, 5, 3), (5, 6, 1), epoch=5))
    limits = {}
    for step, until in enumerate((TO_THE_END, 1)):
        for session in ("a" * 16, "b" * 16, "c" * 16):
            effects = bench.frame(slots=(Slot(session, step, step, 1, 0),), until=until)
            limits[until] = [item.together for item in kinds(effects, RunStep)]  # type: ignore[union-attr]
    assert limits == {TO_THE_END: [1], 1: [3]}


def test_a_failed_step_leaves_nothing_that_could_be_trusted():
    bench = Bench()
    ran(bench, (0, 0))
    (run,) = kinds(bench.frame(step=1, position=3), RunStep)
    bench.do(StepFailed(run.work, "no memory"))  # type: ignore[union-attr]
    assert held(bench.do(Received(DRIVER, repair("resume", 9)))) == (Held(1, 0, 0, 3, 2, 1),)
