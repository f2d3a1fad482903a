"""One plan in service and one that is prepared: what a device loads, keeps and runs meanwhile."""

from dataclasses import replace

import pytest
from builders import MIB, MODEL, a_config, a_manifest, a_plan, a_start, an_id, said

from swisd.core.effects import DropSession, Effect, GiveUp, KeepShards, LoadShards, RunStep
from swisd.core.events import (
    FrameArrived,
    LoadFailed,
    ManifestReady,
    Received,
    ShardsLoaded,
    StepDone,
)
from swisd.core.machine import NodeMachine
from swisd.core.messages import Beat, Repair
from swisd.core.types import Plan, Slot, Spare

FIRST = a_plan((0, 2, 1), (2, 4, 2), (4, 6, 1), epoch=5)
NEXT = replace(a_plan((0, 3, 1), (3, 5, 2), (5, 6, 1), epoch=6), active=False)
SPARE = replace(FIRST, spares=(Spare(an_id(2), 4, 6),))


class Bench:
    """Device 2 with the first plan in service, whose computations and loads are done by hand."""

    def __init__(self, plan: Plan = FIRST, memory_mib: int = 200) -> None:
        self.machine = NodeMachine(a_config(2, claims="never", memory_bytes=memory_mib * MIB))
        self.now = 100.0
        self.do(ManifestReady(MODEL, a_manifest(4)))
        self.first = self.plan(plan) + self.loaded((2, 4))

    def do(self, event: object) -> list[Effect]:
        self.now += 0.01
        return self.machine.handle(event, self.now)  # type: ignore[arg-type]

    def plan(self, plan: Plan) -> list[Effect]:
        return self.do(Received(plan.host, plan))

    def loaded(self, *units: tuple[int, int]) -> list[Effect]:
        newest = self.machine.local.newest
        assert newest is not None
        return self.do(ShardsLoaded(newest.epoch, units, 1))

    def rows(self, step: int, epoch: int = 5, position: int | None = None) -> list[RunStep]:
        from swisd.core.rows import Activation

        at = step if position is None else position
        rows = Activation(epoch, 0, 1, (Slot("a" * 16, step, at, 1, 1),), 1, (7,))
        return [item for item in self.do(FrameArrived(an_id(1), rows)) if isinstance(item, RunStep)]

    @property
    def epochs(self) -> tuple[int, int]:
        """Of the plan in service and of the one that is coming (0: none)."""
        local = self.machine.local
        return local.plan.epoch if local.plan else 0, local.coming.epoch if local.coming else 0


def kinds(effects: list[Effect], kind: type) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def test_an_inactive_plan_is_prepared_beside_the_one_in_service():
    bench = Bench()
    bench.rows(0)
    effects = bench.plan(NEXT)
    assert kinds(effects, LoadShards) == [LoadShards(6, MODEL, ((3, 5),), ((2, 4),), 1024)]
    assert not kinds(effects, DropSession) and bench.epochs == (5, 6)
    assert len(bench.rows(1)) == 1  # steps go on while it loads
    effects = bench.loaded((2, 4), (3, 5))
    assert [(beat.state, beat.epoch) for beat in said(effects, Beat)] == [("ready", 6)]  # type: ignore[union-attr]
    assert len(bench.rows(2)) == 1 and bench.epochs == (5, 6)


def test_when_it_is_active_it_serves_and_what_only_the_old_one_needed_goes():
    bench = Bench()
    (step,) = bench.rows(0)
    bench.do(StepDone(step.work, 1, (7,), 1.0)), bench.rows(1)  # the second one does not come to its end
    bench.plan(NEXT), bench.loaded((2, 4), (3, 5))
    effects = bench.plan(replace(NEXT, active=True))
    assert kinds(effects, GiveUp) == [GiveUp("a" * 16, 6, 0)]
    assert bench.epochs == (6, 0) and kinds(effects, KeepShards) == [KeepShards(((3, 5),))]
    assert bench.rows(1) == [] and bench.machine.local.drops == {"frame of another epoch": 1}
    kept = bench.machine.worker.held.caches._sessions["a" * 16]
    assert kept.lengths == {3: 1}  # layer 2 went elsewhere, layer 4 is new


def test_without_room_for_both_the_old_shard_goes_first():
    """Each shard has two layers of 10 MiB, and one of them is in both."""
    for memory, keep in ((41 + 3, ((2, 4),)), (38, ())):
        (load,) = kinds(Bench(memory_mib=memory).plan(NEXT), LoadShards)
        assert isinstance(load, LoadShards) and (load.wanted, load.keep) == (((3, 5),), keep)


def test_a_plan_with_less_context_is_loaded_with_its_own_where_the_old_one_goes():
    """Else a swarm that shrank could not load what it was planned for."""
    bench = Bench(memory_mib=38)
    (load,) = kinds(bench.plan(replace(NEXT, context=512)), LoadShards)
    assert isinstance(load, LoadShards) and (load.keep, load.max_tokens) == ((), 512)
    (load,) = kinds(Bench(memory_mib=200).plan(replace(NEXT, context=512)), LoadShards)
    assert isinstance(load, LoadShards) and (load.keep, load.max_tokens) == (((2, 4),), 1024)


@pytest.mark.parametrize("sign", ["frame", "ask", "resume"])
def test_whoever_acts_under_the_coming_plan_proves_that_it_is_active(sign: str):
    bench = Bench()
    bench.plan(NEXT), bench.loaded((2, 4), (3, 5))
    match sign:
        case "frame":
            assert len(bench.rows(0, epoch=6)) == 1
        case "ask":
            bench.do(Received("f" * 16, a_start(epoch=6)))
        case _:
            bench.do(Received(an_id(1), Repair("resume", "a" * 16, 6, 3, an_id(1))))
    assert bench.epochs == (6, 0) and bench.machine.local.plan == replace(NEXT, active=True)
    bench.plan(NEXT)  # comes late
    assert bench.epochs == (6, 0)
    assert bench.plan(replace(NEXT, active=True)) == []  # as does this


def test_a_device_that_is_not_ready_does_not_take_their_word():
    bench = Bench()
    bench.plan(NEXT)
    assert bench.rows(0, epoch=6) == [] and bench.epochs == (5, 6)
    bench.do(Received(an_id(1), Repair("resume", "a" * 16, 6, 3, an_id(1))))
    assert bench.epochs == (5, 6)


def test_old_late_and_repeated_plans_change_nothing():
    bench = Bench()
    bench.plan(NEXT)
    before = bench.machine.local.plan, bench.machine.local.coming
    for plan in (FIRST, NEXT, replace(FIRST, active=False), replace(NEXT, epoch=4, active=True)):
        assert not kinds(bench.plan(plan), LoadShards)
        assert (bench.machine.local.plan, bench.machine.local.coming) == before
    assert bench.machine.local.drops == {"plan of an old epoch": 3}


def test_a_newer_plan_replaces_the_one_that_is_coming():
    bench = Bench()
    bench.plan(NEXT)
    effects = bench.plan(replace(NEXT, epoch=7, pipelines=a_plan((0, 1, 1), (1, 3, 2), (3, 6, 1)).pipelines))
    assert kinds(effects, LoadShards) == [LoadShards(7, MODEL, ((1, 3),), ((2, 4),), 1024)]
    assert bench.epochs == (5, 7)
    assert not said(bench.do(ShardsLoaded(6, ((2, 4), (3, 5)), 1)), Repair)  # that load is of no use now
    assert bench.machine.local.ready_epoch == 5


def test_another_model_takes_all_the_memory_at_once():
    bench = Bench()
    bench.rows(0)
    effects = bench.plan(replace(NEXT, model="cd" * 32))
    (load,) = kinds(effects, LoadShards)
    assert isinstance(load, LoadShards) and (load.keep, load.max_tokens) == ((), 1024)
    assert DropSession("a" * 16) in effects and bench.epochs == (6, 0)


def test_a_plan_without_this_device_is_served_once_it_is_active():
    bench = Bench()
    bench.rows(0)
    alone = a_plan((0, 6, 1), epoch=6)
    assert not kinds(bench.plan(replace(alone, active=False)), KeepShards)
    assert len(bench.rows(1)) == 1
    effects = bench.plan(alone)
    assert kinds(effects, KeepShards) == [KeepShards(())] and DropSession("a" * 16) in effects


# --- spares --------------------------------------------------------------------------------------


def test_spares_are_loaded_beside_what_runs_and_told():
    bench = Bench()
    effects = bench.plan(SPARE)
    assert kinds(effects, LoadShards) == [LoadShards(5, MODEL, ((2, 4), (4, 6)), (), 1024)]
    assert len(bench.rows(0)) == 1  # what runs goes on
    (beat,) = said(bench.loaded((2, 4), (4, 6)), Beat)
    assert beat.warm == ((2, 4), (4, 6)) and beat.state == "ready"  # type: ignore[union-attr]
    assert kinds(bench.plan(SPARE), LoadShards) == []


def test_a_spare_that_is_called_upon_needs_no_loading():
    bench = Bench()
    bench.plan(SPARE), bench.loaded((2, 4), (4, 6))
    mended = replace(SPARE, epoch=6, active=False, pipelines=a_plan((0, 2, 3), (2, 6, 2)).pipelines)
    stages = a_plan((0, 2, 3), (2, 4, 2), (4, 6, 2)).pipelines
    effects = bench.plan(replace(mended, pipelines=stages))
    assert kinds(effects, LoadShards) == [] and bench.machine.local.ready_epoch == 6


def test_a_spare_that_cannot_be_loaded_costs_nothing_but_a_word():
    bench = Bench()
    bench.plan(SPARE)
    effects = bench.do(LoadFailed(5, "disk full"))
    assert not said(effects, Beat) and bench.machine.local.state == "ready"
    assert len(bench.rows(0)) == 1
    assert kinds(bench.loaded((2, 4)), LoadShards) == []  # and is not tried again
    assert bench.machine.local.loaded == ((2, 4),)


def test_a_spare_that_is_no_longer_wanted_goes():
    bench = Bench()
    bench.plan(SPARE), bench.loaded((2, 4), (4, 6))
    assert kinds(bench.plan(FIRST), KeepShards) == [KeepShards(((2, 4),))]
    bench.plan(SPARE)
    assert kinds(bench.plan(FIRST), KeepShards) == []  # still loading
    assert kinds(bench.loaded((2, 4), (4, 6)), KeepShards) == [KeepShards(((2, 4),))]


def test_a_step_of_the_old_plan_that_ends_after_the_switch_is_nobodys():
    bench = Bench()
    (run,) = bench.rows(0)
    bench.plan(NEXT), bench.loaded((2, 4), (3, 5)), bench.plan(replace(NEXT, active=True))
    assert bench.do(StepDone(run.work, 1, (8,), 1.0)) == []
