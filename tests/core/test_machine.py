"""One device alone: what it does when something happens to it, and what it never does."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from builders import (
    MIB,
    MODEL,
    a_beat,
    a_config,
    a_device,
    a_manifest,
    a_plan,
    a_profile,
    a_start,
    an_id,
    said,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import MESSAGES, records

from swisd.core import deadlines
from swisd.core.effects import (
    CancelTimer,
    Effect,
    GetManifest,
    KeepShards,
    Knock,
    Lead,
    LoadShards,
    MeasureCompute,
    MeasureLinks,
    Notice,
    ProvideModel,
    Publish,
    ReadKv,
    RunStep,
    SendFrame,
    SendKv,
    SetTimer,
    WriteKv,
)
from swisd.core.events import (
    BrokerFailed,
    BrokerStarted,
    BusChanged,
    Dropped,
    FrameArrived,
    FrameLost,
    HoldingsChanged,
    HostSeen,
    KvArrived,
    KvFailed,
    KvRead,
    LinkLost,
    LinksMeasured,
    LoadFailed,
    LoadProgress,
    ManifestFailed,
    ManifestReady,
    Measured,
    MeasureFailed,
    OfferChanged,
    PortClosed,
    ProvideFailed,
    Received,
    ShardsLoaded,
    Started,
    StepDone,
    StepFailed,
    Stopping,
    Timer,
)
from swisd.core.machine import NodeMachine
from swisd.core.messages import Ask, Beat, Call, Digest, Gone, Held, MemberView, Out, Repair, SessionView
from swisd.core.rows import TO_THE_END, Activation, KvRows, Work
from swisd.core.types import Capability, Holding, PeerLink, Plan, Scores, Slot, Spare
from swisd.wire.messages import decode_message, encode_message, topic_of

ME = an_id(1)
HOLDING = Holding(MODEL, "tiny", 1000, ((0, 6),))


class Node:
    """A machine whose effects are only looked at."""

    def __init__(self, number: int = 1, **config: object) -> None:
        self.machine = NodeMachine(a_config(number, **config))
        self.now = 100.0

    def do(self, event: Any) -> list[Effect]:
        return self.machine.handle(event, self.now)

    def hear(self, number: int, message: Any) -> list[Effect]:
        return self.do(Received(an_id(number), message))

    def after(self, seconds: float, timer: str) -> list[Effect]:
        self.now += seconds
        return self.do(Timer(timer))


def kinds(effects: list[Effect], kind: type) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def a_digest(host: int = 9, *members: int, model: str = "", epoch: int = 0) -> Digest:
    views = tuple(
        MemberView(an_id(number), f"d{number}", "alive", "idle", (), 0, number, True, 0)
        for number in (host, *members)
    )
    return Digest(an_id(host), epoch, 1, views, model=model, model_bytes=1000)


# --- as a member ---------------------------------------------------------------------------------


def test_on_the_bus_it_says_what_it_is_and_that_it_lives():
    node = Node(claims="never")
    assert node.do(Started()) == []
    effects = node.do(BusChanged(True))
    assert said(effects, Capability) == [node.machine.local.capability]
    (beat,) = said(effects, Beat)
    assert (beat.device, beat.state, beat.seq) == (ME, "idle", 1)  # type: ignore[union-attr]
    assert SetTimer("beat", node.now + deadlines.BEAT) in effects
    assert kinds(effects, Lead) == []
    (again,) = said(node.after(1, "beat"), Beat)
    assert again.seq == 2  # type: ignore[union-attr]


def test_a_model_in_the_digest_is_described_then_measured_then_told():
    node = Node(claims="never")
    effects = node.hear(9, a_digest(model=MODEL))
    assert kinds(effects, GetManifest) == [GetManifest(MODEL, 1000)]
    assert kinds(node.hear(9, a_digest(model=MODEL)), GetManifest) == []  # it comes already
    effects = node.do(ManifestReady(MODEL, a_manifest()))
    assert kinds(effects, MeasureCompute) == [MeasureCompute(MODEL)]
    assert [beat.state for beat in said(effects, Beat)] == ["measuring"]  # type: ignore[union-attr]
    assert kinds(node.hear(9, a_digest(model=MODEL)), MeasureCompute) == []
    effects = node.do(Measured(a_profile(threads=3)))
    (capability,) = said(effects, Capability)
    assert capability.profiles == (a_profile(threads=3),)  # type: ignore[union-attr]
    assert capability.threads == 3  # type: ignore[union-attr]
    assert "3 thread(s)" in kinds(effects, Notice)[0].text
    assert [beat.state for beat in said(effects, Beat)] == ["idle"]  # type: ignore[union-attr]
    assert kinds(node.hear(9, a_digest(model=MODEL)), MeasureCompute) == []


def test_a_manifest_that_cannot_be_had_is_asked_for_again_later():
    node = Node(claims="never")
    node.hear(9, a_digest(model=MODEL))
    effects = node.do(ManifestFailed(MODEL, "no peer has it"))
    (timer,) = kinds(effects, SetTimer)
    assert timer == SetTimer("member-retry", node.now + deadlines.RETRY)
    assert kinds(node.hear(9, a_digest(model=MODEL)), GetManifest) == []
    assert kinds(node.after(deadlines.RETRY, "member-retry"), GetManifest) == [GetManifest(MODEL, 1000)]


def test_a_device_that_cannot_measure_itself_says_so_and_does_not_try_without_end():
    node = Node(claims="never")
    node.hear(9, a_digest(model=MODEL)), node.do(ManifestReady(MODEL, a_manifest()))
    node.do(MeasureFailed(MODEL, "no memory"))
    for tries in (0, 1):
        for second in range(1, round(deadlines.MEASURE_AGAIN) + 1):
            node.now += 1
            again = kinds(node.hear(9, a_digest(model=MODEL)), MeasureCompute)
            assert bool(again) == (second == deadlines.MEASURE_AGAIN), tries
        node.do(MeasureFailed(MODEL, "no memory"))
    assert (node.machine.local.state, node.machine.local.note) == ("failed", "no memory")


def test_links_are_measured_to_the_host_and_a_bounded_number_of_peers():
    node = Node(5, claims="never")
    turn = deadlines.LINKS_SETTLE + 4 * deadlines.LINKS_APART  # four devices come before it
    effects = node.hear(9, a_digest(9, *range(1, 31)))
    assert kinds(effects, SetTimer) == [SetTimer("links", node.now + turn)]
    assert node.hear(9, a_digest(9, *range(1, 31))) == []  # the same peers
    effects = node.after(1, "links")
    (measure,) = kinds(effects, MeasureLinks)
    assert measure.devices == tuple(an_id(number) for number in (9, 6, 7, 8, 10, 11, 12, 13))
    (capability,) = said(node.do(LinksMeasured((PeerLink(an_id(9), 1.0, 100.0),))), Capability)
    assert capability.links[0].device == an_id(9)  # type: ignore[union-attr]
    assert node.do(LinksMeasured((PeerLink(an_id(9), 1.0, 100.0),))) == []


def test_a_link_is_measured_once_and_not_while_answers_run():
    node = Node(5, claims="never")
    node.hear(9, a_digest(9, 1, 5))
    (measure,) = kinds(node.after(1, "links"), MeasureLinks)
    assert measure.devices == (an_id(9), an_id(1))
    node.do(LinksMeasured((PeerLink(an_id(9), 1.0, 100.0),)))  # the other did not answer

    node.hear(9, a_digest(9, 1, 5, 7))
    (measure,) = kinds(node.after(1, "links"), MeasureLinks)
    assert measure.devices == (an_id(7),)
    assert kinds(node.after(1, "links"), MeasureLinks) == []
    (measure,) = kinds(node.after(deadlines.LINKS_AGAIN, "links"), MeasureLinks)
    assert measure.devices == (an_id(7), an_id(1))
    (capability,) = said(node.do(LinksMeasured((PeerLink(an_id(7), 2.0, 50.0),))), Capability)
    assert [link.device for link in capability.links] == [an_id(7), an_id(9)]  # type: ignore[union-attr]

    talk = SessionView("c" * 16, an_id(1), 3, 1, 2.0)
    node.hear(9, replace(a_digest(9, 1, 5, 7, 8), sessions=(talk,)))
    assert kinds(node.after(1, "links"), MeasureLinks) == []
    node.hear(9, a_digest(9, 1, 5, 7, 8))
    (measure,) = kinds(node.after(1, "links"), MeasureLinks)
    assert measure.devices == (an_id(8),)


def test_a_small_change_of_the_offer_is_not_worth_a_message():
    node = Node(claims="never", memory_bytes=1000 * MIB)
    assert node.do(OfferChanged(950 * MIB, 1, 2)) == []
    (capability,) = said(node.do(OfferChanged(800 * MIB, 1, 2)), Capability)
    assert capability.memory_bytes == 800 * MIB  # type: ignore[union-attr]
    (beat,) = said(node.after(1, "beat"), Beat)
    assert (beat.free_bytes, beat.resident_bytes) == (1, 2)  # type: ignore[union-attr]


def test_a_host_that_knows_an_old_capability_is_told_again():
    """The last one was lost, or one from before the measurement came late."""
    node = Node(claims="never")
    node.do(BusChanged(True))
    told = [said(node.hear(9, a_digest(9, 1)), Capability)]  # says that this device offers nothing
    told.append(said(node.hear(9, a_digest(9, 1)), Capability))  # not at once again
    node.now += deadlines.RETRY
    told.append(said(node.hear(9, a_digest(9, 1)), Capability))
    mine = node.machine.local.capability
    assert mine.memory_bytes and told == [[mine], [], [mine]]
    node.now += deadlines.RETRY
    digest = a_digest(9, 1)
    right = replace(digest, members=tuple(replace(m, memory_bytes=mine.memory_bytes) for m in digest.members))
    assert said(node.hear(9, right), Capability) == []


def test_its_farewell_is_its_last_word():
    node = Node(claims="never")
    node.do(BusChanged(True))
    assert said(node.do(Stopping())) == [Gone(ME, 1001, True)]
    later = (
        node.after(1, "beat")
        + node.hear(9, a_plan((0, 6, 1), host=9))
        + node.do(ShardsLoaded(1, ((0, 6),), 1))
    )
    assert said(later, Beat) == []


def test_what_is_dropped_is_counted_under_a_bounded_number_of_reasons():
    node = Node()
    for number in range(100):
        node.do(Dropped(f"reason {number}"))
    assert len(node.machine.local.drops) == 32 and sum(node.machine.local.drops.values()) == 100
    (beat,) = said(node.after(1, "beat"), Beat)
    assert decode_message(topic_of(beat).kind, encode_message(beat)) == beat


# --- who may say what ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        a_beat(2), a_device(an_id(2)), Gone(an_id(2), 1, True), a_digest(2), a_plan((0, 6, 1), host=2),
    ],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
def test_a_message_in_another_devices_name_is_dropped(message: object):
    node = Node()
    node.do(BusChanged(True))
    assert node.hear(3, message) == []
    assert node.machine.local.drops == {"message in another device's name": 1}
    assert node.machine.host.members.entries == {} and node.machine.local.plan is None


def test_a_plan_of_an_old_epoch_is_dropped():
    node = Node(claims="never")
    node.hear(9, a_plan((0, 6, 1), epoch=5, host=9))
    assert node.hear(9, a_plan(epoch=4, host=9)) == []
    assert node.machine.local.drops == {"plan of an old epoch": 1}
    assert node.machine.local.plan is not None and node.machine.local.plan.epoch == 5


def test_a_host_that_began_anew_may_use_an_epoch_twice():
    node = Node(claims="never")
    node.hear(9, a_plan((0, 6, 1), host=9)), node.do(ShardsLoaded(1, ((0, 6),), 1))
    effects = node.hear(9, a_plan((0, 6, 2), host=9))
    assert kinds(effects, KeepShards) == [KeepShards(())]
    assert node.hear(9, a_plan((0, 6, 2), host=9, problem="only its words differ")) == []


def test_only_a_host_listens_to_beats_and_calls():
    node = Node(claims="never")
    node.do(BusChanged(True))
    for message in (a_beat(2), a_device(an_id(2)), Gone(an_id(2), 1002, True), Call("replan", an_id(2))):
        assert node.hear(2, message) == []
    assert node.machine.host.members.entries == {}


# --- as host -------------------------------------------------------------------------------------


class HostNode(Node):
    """A host with the manifest, and devices that answer as asked."""

    def __init__(self, *, holder: int = 1, **config: object) -> None:
        super().__init__(1, **config)
        self.seq, self.holder = 0, holder
        if holder == 1:
            self.do(HoldingsChanged((HOLDING,)))
        self.do(BusChanged(True))
        self.do(ManifestReady(MODEL, a_manifest(4)))

    def member(self, number: int, memory_mib: float = 200, **beat: object) -> list[Effect]:
        """A device's capability and heartbeat reach the host."""
        self.seq += 1
        capability = replace(
            a_device(an_id(number), memory_mib, boot=1000 + number, links={an_id(9): (1.0, 100.0)}),
            holds=(HOLDING,) if number == self.holder else (),
        )
        effects = self.hear(number, capability)
        return effects + self.hear(number, a_beat(number, self.seq, **({"planner": an_id(1)} | beat)))

    def tick(self, seconds: float = deadlines.HOST_TICK) -> list[Effect]:
        effects: list[Effect] = []
        steps = max(1, round(seconds / deadlines.HOST_TICK))
        for _ in range(steps):
            effects += self.after(seconds / steps, "host")
        return effects

    def until_plan(self, *numbers: int, memory_mib: float = 200) -> Plan:
        """The first plan for these devices, loaded and active."""
        for number in numbers:
            self.member(number, memory_mib)
        (plan,) = said(self.tick(1.0), Plan)
        effects: list[Effect] = []
        for number in numbers:
            effects += self.member(number, memory_mib, state="ready", epoch=plan.epoch)  # type: ignore[union-attr]
        (active,) = said(effects, Plan)  # with the last heartbeat, and not at the next tick
        assert active == replace(plan, active=True)  # type: ignore[type-var]
        return active  # type: ignore[return-value]


def test_a_host_says_the_digest_and_plans_for_who_is_there():
    node = HostNode()
    assert node.machine.leadership.leading
    plan = node.until_plan(1)
    assert plan.pipelines[0].driver == ME and plan.host == ME
    (digest,) = said(node.tick(1.0), Digest)
    assert (digest.model, digest.epoch, digest.members[0].device) == (MODEL, plan.epoch, ME)  # type: ignore[union-attr]


def test_without_a_model_it_is_imported_here_or_the_person_is_told_how():
    forging = Node(forge=True)
    forging.do(BusChanged(True))
    assert kinds(forging.after(deadlines.PROVIDE, "host"), ProvideModel) == [ProvideModel("tiny")]
    assert kinds(forging.after(1, "host"), ProvideModel) == []
    forging.do(ProvideFailed("tiny", "no network"))
    assert kinds(forging.after(1, "host"), ProvideModel) == []
    assert kinds(forging.after(6 * deadlines.RETRY, "host"), ProvideModel) == [ProvideModel("tiny")]
    helpless = Node(forge=False)
    helpless.do(BusChanged(True))
    helpless.after(deadlines.PROVIDE, "host")
    (digest,) = said(helpless.after(1, "host"), Digest)
    assert "swisd models pull tiny" in digest.note  # type: ignore[union-attr]


def test_a_model_is_not_imported_twice_while_the_bus_is_slow():
    node = Node(forge=True)
    node.do(BusChanged(True))
    assert kinds(node.after(deadlines.PROVIDE, "host"), ProvideModel)
    node.do(HoldingsChanged((HOLDING,)))  # told to the swarm, but nothing came back yet
    effects = node.after(1, "host")
    assert kinds(effects, ProvideModel) == [] and kinds(effects, GetManifest) == [GetManifest(MODEL, 1000)]


def test_a_newcomer_that_is_not_needed_is_told_why_once():
    node = HostNode()
    plan = node.until_plan(1)
    node.member(2)
    told: list[Any] = said(node.tick(2), Plan)
    assert {(item.epoch, item.active, item.pipelines) for item in told} == {
        (plan.epoch, True, plan.pipelines)
    }
    (verdict,) = [item for item in told[-1].verdicts if item.device == an_id(2)]
    assert not verdict.used and verdict.reason
    assert told[-1].spares == (Spare(an_id(2), 0, 6),)  # it can stand in for the only device
    for _ in range(5):
        node.member(1, state="ready", epoch=plan.epoch), node.member(2)
        assert said(node.tick(1), Plan) == []


def test_a_device_that_cannot_load_is_left_out_for_a_while():
    node = HostNode()
    for number in (1, 2, 3):
        node.member(number, 60)
    (plan,) = said(node.tick(1), Plan)
    assert isinstance(plan, Plan) and len(plan.pipelines[0].stages) == 3
    out = plan.pipelines[0].stages[1].device
    bad = int(out, 16)
    node.member(bad, 60, state="failed", epoch=plan.epoch, note="disk full")
    for number in {1, 2, 3} - {bad}:
        node.member(number, 60, state="ready", epoch=plan.epoch)
    (second,) = said(node.tick(2), Plan)
    assert isinstance(second, Plan) and second.epoch > plan.epoch
    assert bad not in [int(stage.device, 16) for pipe in second.pipelines for stage in pipe.stages]
    (verdict,) = [item for item in second.verdicts if item.device == out and "disk full" in item.reason]
    assert not verdict.used


def test_a_plan_that_did_not_reach_a_device_is_said_again():
    node = HostNode()
    node.member(1)
    (plan,) = said(node.tick(1), Plan)
    said_again = []
    for _ in range(2):
        node.member(1, state="idle", epoch=0)
        said_again += said(node.tick(deadlines.TELL_AGAIN / 1.9), Plan)
    assert said_again == [plan]
    for _ in range(5):
        node.member(1, state="loading", epoch=plan.epoch)  # type: ignore[union-attr]
        assert said(node.tick(1), Plan) == []


def test_without_any_device_left_the_problem_says_why_they_are_left_out():
    node = HostNode()
    node.member(1)
    (plan,) = said(node.tick(1), Plan)
    node.member(1, state="failed", epoch=plan.epoch, note="disk full")  # type: ignore[union-attr]
    (empty,) = said(node.tick(2), Plan)
    assert isinstance(empty, Plan) and empty.problem == f"name of {ME} could not load its shard: disk full"


def test_when_a_ban_ends_the_host_looks_again_although_nothing_else_changed():
    node = HostNode()
    node.member(1)
    (plan,) = said(node.tick(1), Plan)
    node.member(1, state="failed", epoch=plan.epoch, note="busy")  # type: ignore[union-attr]
    (empty,) = said(node.tick(2), Plan)
    assert isinstance(empty, Plan) and not empty.pipelines
    found: list[Any] = []
    for _ in range(round(deadlines.BAN) + 2):
        node.member(1, state="idle", epoch=empty.epoch)
        found += said(node.tick(1), Plan)
    assert found and found[0].pipelines


def test_loading_without_progress_is_given_up():
    node = HostNode()
    node.member(1)
    (plan,) = said(node.tick(1), Plan)
    for second in range(round(deadlines.LOAD_STALL) + 9):
        progress = min(second, 5) / 10
        node.member(1, state="loading", epoch=plan.epoch, progress=progress)  # type: ignore[union-attr]
        plans = said(node.tick(1), Plan)
        if second < deadlines.LOAD_STALL:
            assert plans == []
    assert isinstance(node.machine.host.plan, Plan) and not node.machine.host.plan.pipelines


def test_a_plan_is_made_anew_when_one_of_its_devices_began_anew():
    node = HostNode()
    plan = node.until_plan(1)
    node.hear(1, replace(a_device(ME, boot=9000), holds=(HOLDING,)))
    node.hear(1, a_beat(1, 1, boot=9000))
    (again,) = said(node.tick(1), Plan)
    assert isinstance(again, Plan) and again.epoch == plan.epoch + 1 and not again.active


def test_a_capability_from_before_the_measurement_that_comes_late_does_not_stop_the_host():
    node = HostNode()
    plan = node.until_plan(1)
    node.member(2, state="ready", epoch=plan.epoch)  # could run the model as well
    node.hear(1, replace(a_device(ME, boot=1001), profiles=(), holds=(HOLDING,)))
    node.tick(2.0)
    assert node.machine.host.plan is not None and node.machine.host.plan.epoch == plan.epoch


def test_a_beat_of_a_higher_epoch_makes_the_host_plan_above_it():
    """A plan of another host is about that this one never heard of."""
    node = HostNode()
    node.until_plan(1)
    node.member(1, state="ready", epoch=41)
    (plan,) = said(node.tick(1), Plan)
    assert isinstance(plan, Plan) and plan.epoch == 42


def test_a_device_that_cannot_load_its_part_of_an_active_plan_again_is_left_out():
    """It was apart, under a plan of its own, and another program has its memory by now."""
    node = HostNode()
    plan = node.until_plan(1, 2, memory_mib=60)
    node.member(2, 60, state="fetching", epoch=plan.epoch)
    assert said(node.tick(2), Plan) == []
    effects = node.member(2, 60, state="failed", epoch=plan.epoch, note="not enough memory")
    effects += node.tick(1)
    problem = said(effects, Plan)[-1]
    assert isinstance(problem, Plan) and problem.epoch > plan.epoch
    assert "could not load its shard: not enough memory" in problem.problem


def test_a_device_that_does_not_follow_the_active_plan_is_told_again():
    node = HostNode()
    plan = node.until_plan(1)
    node.member(1, state="idle", epoch=0)
    third = deadlines.TELL_AGAIN / 3
    again = [item for _ in range(4) for item in (*node.member(1, epoch=0), *node.tick(third))]
    assert said(again, Plan) == [plan]


ANOTHER = pytest.mark.parametrize("maker", [{"planner": an_id(9)}, {"planner_boot": 5}])


@ANOTHER
def test_a_device_that_follows_another_plan_of_the_same_epoch_makes_the_host_plan_above_it(
    maker: dict[str, Any],
):
    """Another host made it, or this one in an earlier life: nothing but the device's heartbeat tells so."""
    node = HostNode()
    first = node.until_plan(1)
    node.member(2)
    assert said(node.member(1, state="ready", epoch=first.epoch), Plan) == []
    node.member(1, state="ready", epoch=first.epoch, **maker)
    plan = said(node.tick(1), Plan)[0]
    assert isinstance(plan, Plan) and plan.epoch == first.epoch + 1


@ANOTHER
def test_who_is_ready_for_another_plan_of_the_same_epoch_is_not_ready_for_this_one(maker: dict[str, Any]):
    node = HostNode()
    node.member(1)
    (plan,) = said(node.tick(1.0), Plan)
    assert isinstance(plan, Plan)
    effects = node.member(1, state="ready", epoch=plan.epoch, **maker)
    effects += node.tick(1.0)
    assert [item.active for item in said(effects, Plan) if isinstance(item, Plan)] == [False]


def test_a_rival_host_that_will_step_down_is_outranked_at_once():
    node = HostNode()
    plan = node.until_plan(1)
    assert node.hear(9, a_digest(9, epoch=plan.epoch)) == []  # its plan of the same epoch may be about
    (again,) = said(node.tick(1), Plan)
    assert isinstance(again, Plan) and again.epoch == plan.epoch + 1
    node.hear(9, a_digest(9, epoch=plan.epoch))
    effects = node.member(1, state="ready", epoch=again.epoch) + node.tick(1)
    assert [item.active for item in said(effects, Plan)] == [True]  # type: ignore[union-attr]


def test_a_broken_plan_is_withdrawn_when_no_device_holds_the_model():
    node = HostNode(holder=2, forge=False)
    plan = node.until_plan(1, 2, 3, memory_mib=60)
    assert an_id(2) in [stage.device for stage in plan.pipelines[0].stages]
    effects = node.hear(2, Gone(an_id(2), 1002, True)) + node.tick(1)
    (gone,) = said(effects, Plan)
    assert isinstance(gone, Plan) and gone.epoch == plan.epoch + 1
    assert gone.pipelines == () and not gone.active and "no device holds tiny" in gone.problem
    node.member(1), node.member(3)
    assert said(node.tick(1), Plan) == []


def test_a_new_host_without_the_models_description_ends_a_plan_whose_device_began_anew():
    """It cannot place anything, and nobody shall wait for what is not loaded."""
    node = HostNode(holder=0, forge=False)
    node.hear(9, a_plan((0, 3, 1), (3, 6, 2), epoch=4, host=9, active=True, model="5e" * 32))
    node.member(1, state="ready", epoch=4, planner=an_id(9), warm=((0, 3),))
    effects = node.member(2, state="measuring", epoch=0) + node.tick(1)
    assert said(effects, Plan) == []
    effects = node.member(2, state="idle", epoch=0) + node.tick(1)
    (gone,) = said(effects, Plan)
    assert isinstance(gone, Plan) and gone.pipelines == () and gone.epoch > 4
    assert "began anew" in gone.problem and "no description" in gone.problem


def test_a_device_whose_connection_broke_and_whose_port_is_closed_is_lost_at_once():
    node = HostNode()
    node.until_plan(1, 2, 3, memory_mib=60)
    effects = node.hear(2, Gone(an_id(2), 1002, False))
    where = a_device(an_id(2))
    assert kinds(effects, Knock) == [Knock(an_id(2), tuple((item, where.port) for item in where.addresses))]
    assert kinds(node.hear(2, Gone(an_id(2), 1002, False)), Knock) == []  # once is enough
    effects = node.do(PortClosed(an_id(2)))
    assert "is lost: its bus connection broke and its swisd is no longer running" in " ".join(
        notice.text for notice in kinds(effects, Notice)
    )
    assert node.do(PortClosed(an_id(2))) == []


def test_a_closed_port_outweighs_a_heartbeat_that_came_late():
    node = HostNode()
    node.until_plan(1, 2, 3, memory_mib=60)
    node.hear(2, Gone(an_id(2), 1002, False))
    node.member(2, 60)
    entry = node.machine.host.members.entries[an_id(2)]
    assert node.do(PortClosed(an_id(9))) == [] and entry.liveness == "alive"
    assert "is no longer running" in " ".join(
        item.text for item in kinds(node.do(PortClosed(an_id(2))), Notice)
    )
    node.member(2, 60)
    assert entry.liveness == "dead"
    node.tick(deadlines.EVIDENCE)
    node.member(2, 60)
    assert entry.liveness == "alive"  # it runs after all


@pytest.mark.parametrize("news", [{"boot": 2000}, {"addresses": ("10.0.0.7",)}])
def test_a_closed_port_says_nothing_of_a_device_that_began_anew_or_is_elsewhere(news: dict[str, object]):
    node = HostNode()
    node.until_plan(1, 2, 3, memory_mib=60)
    node.hear(2, Gone(an_id(2), 1002, False))
    known = node.machine.host.members.entries[an_id(2)].capability
    assert known is not None
    capability = replace(known, **news)  # type: ignore[arg-type]
    node.hear(2, capability)
    node.hear(2, replace(a_beat(2, node.seq + 1, planner=an_id(1)), boot=capability.boot))
    assert node.do(PortClosed(an_id(2))) == []
    assert node.machine.host.members.entries[an_id(2)].liveness == "alive"


def test_a_host_that_steps_down_goes_quiet():
    node = HostNode(claims="when silent")
    assert Lead(True) in node.after(deadlines.CLAIM + 0.1, "beat")
    node.until_plan(1)
    effects = node.hear(0, a_digest(0))
    assert Lead(False) in effects and not node.machine.leadership.leading
    assert node.tick(5) == []
    assert node.hear(2, a_beat(2)) == []


def test_a_new_host_continues_above_every_epoch_it_heard():
    node = Node(2, claims="when silent")
    node.do(BusChanged(True))
    node.hear(1, a_digest(1, 2))
    node.hear(1, a_plan((0, 6, 2), epoch=7, host=1))
    node.now += deadlines.CLAIM + 0.1
    effects = node.after(0, "beat")
    assert Lead(True) in effects
    assert [item.device for item in node.machine.host.members.usable()] == [an_id(2)]  # without the bus
    node.do(HoldingsChanged((HOLDING,))), node.do(ManifestReady(MODEL, a_manifest(4)))
    node.hear(2, replace(a_device(an_id(2), boot=1002), holds=(HOLDING,)))
    node.hear(2, a_beat(2, epoch=7))
    (plan,) = said(node.after(1, "host"), Plan)
    assert isinstance(plan, Plan) and plan.epoch > 7


def test_without_the_bus_nobody_claims_and_a_host_that_others_can_replace_resigns():
    node = Node(claims="when silent")
    node.do(BusChanged(True))
    node.do(BusChanged(False, "cable"))
    assert kinds(node.after(100, "beat"), Lead) == []
    node.do(BusChanged(True))
    assert kinds(node.after(1, "beat"), Lead) == []
    assert kinds(node.after(deadlines.CLAIM, "beat"), Lead) == [Lead(True)]
    assert Lead(False) in node.do(BusChanged(False, "cable"))
    broker = HostNode()
    assert kinds(broker.do(BusChanged(False, "cable")), Lead) == []


def test_the_loss_of_the_bus_is_told_once():
    node = Node(claims="never")
    node.do(BusChanged(True))
    notices = [len(kinds(node.do(BusChanged(False, "x")), Notice)) for _ in range(3)]
    assert notices == [1, 0, 0]


# --- anything, in any order ----------------------------------------------------------------------

CUTS = [
    ((0, 6, 1),), ((0, 6, 1),), ((0, 2, 1), (2, 4, 2), (4, 6, 1)), ((0, 2, 2), (2, 4, 1), (4, 6, 2)),
    ((0, 3, 1), (3, 4, 3), (4, 5, 2), (5, 6, 1)), ((0, 6, 2),), (),
]  # fmt: skip


class Fate:
    """Makes events that fit together often enough to reach deep states, and often enough do not."""

    def __init__(self, seed: int, node: Node) -> None:
        self.random, self.node = Random(seed), node
        self.running: list[RunStep] = []
        self.sent: list[SendFrame] = []
        self.loading: LoadShards | None = None
        self.asked: Repair | None = None
        self.moves: list[tuple[str, tuple[int, int]]] = []  # from whom, which layers

    def moved(self, giver: str, units: tuple[int, int]) -> Repair:
        return Repair("moved", "0" * 16, self.epoch(), 0, giver, start=units[0], end=units[1])

    def note(self, effects: list[Effect]) -> None:
        """What the machine wants done: some of it comes back."""
        self.running += kinds(effects, RunStep)
        self.sent += kinds(effects, SendFrame)
        for load in kinds(effects, LoadShards):
            self.loading = load
        for word in said(effects, Repair):
            if word.op in ("resume", "probe"):  # type: ignore[union-attr]
                self.asked = word  # type: ignore[assignment]
        for effect in kinds(effects, Publish):
            if isinstance(effect.message, Repair) and effect.message.op == "move":
                self.moves = [(effect.to, (effect.message.start, effect.message.end))]

    def epoch(self) -> int:
        plan = self.node.machine.local.plan
        now = plan.epoch if plan else 1
        return now if self.random.random() < 0.85 else max(0, now + self.random.choice((-1, 1)))

    def key(self) -> str:
        return f"{self.random.randrange(6):016x}"

    def event(self) -> Any:
        pick, epoch, number = self.random.choice, self.epoch(), self.random.randint(1, 3)
        match self.random.randrange(28):
            case 0:
                return self.plan(epoch, number)
            case 1 | 2 | 3:
                length = pick((0, 1, 3, 60, 150, 300))
                fresh = tuple(self.random.randrange(1001) for _ in range(length))
                prompt = pick((fresh, fresh, tuple(range(length))))  # some begin as others did
                scoring, emitted = self.random.random() < 0.2, pick(((), (), (7, 8)))
                most = self.random.randrange(6)
                ask = a_start(
                    self.key(), prompt, epoch=epoch, emitted=emitted, max_tokens=most, score_top=int(scoring),
                    stop_ids=(5,), alone=pick(((), (), ((20, 50),))),
                )  # fmt: skip
                return Received("f" * 16, ask)
            case 4 | 5:
                op = pick(("renew", "renew", "renew", "renew", "renew", "cancel", "park"))
                held = list(self.node.machine.worker.held.caches) if op == "park" else []
                key = pick(held or [self.key()])
                ask = Ask(op, key, an_id(number), epoch, from_index=self.random.randrange(3))
                return Received(an_id(number), ask)
            case 6 | 7:
                rows = self.random.randrange(3)
                slot = Slot(
                    self.key(), self.random.randrange(3), self.random.randrange(201), max(rows, 1), rows
                )
                return FrameArrived(
                    an_id(number), Activation(epoch, 0, self.random.randrange(4), (slot,), rows, ())
                )
            case 8 | 9 | 10:
                return self.comes_back()
            case 11 | 12:
                return self.loaded(epoch)
            case 13:
                return pick((LoadFailed(epoch, "full"), LoadProgress(epoch, True, 0.5)))
            case 14:
                return BusChanged(self.random.random() < 0.7)
            case 15 | 16:
                names = (
                    "beat",
                    "beat",
                    "host",
                    "host",
                    "links",
                    "member-retry",
                    "heir",
                    "moving",
                    f"step:{pick(self.node.machine.driver.running() or [self.key()])}",
                    f"repair:{pick(self.node.machine.driver.running() or [self.key()])}",
                    "?",
                )
                return Timer(pick(names))
            case 17:
                return pick((ManifestReady(MODEL, a_manifest(4)), ManifestFailed(MODEL, "no")))
            case 18:
                return pick((Measured(a_profile()), MeasureFailed(MODEL, "no")))
            case 19:
                return HoldingsChanged(pick(((), (HOLDING,))))
            case 20:
                state = pick(("idle", "ready", "failed"))
                beat = a_beat(number, self.random.randrange(99), state=state, epoch=epoch)
                return Received(an_id(number), beat)
            case 21:
                return Received(an_id(number), replace(a_device(an_id(number)), boot=1000 + number))
            case 22 if self.random.random() < 0.3:
                seen = HostSeen(an_id(number), epoch, number, self.random.random() < 0.5, "10.0.0.1", 7000)
                return pick((BrokerStarted(), BrokerFailed("no"), seen, PortClosed(an_id(number))))
            case 22:
                return Received(an_id(number), a_digest(number, 1, 2, 3, model=MODEL, epoch=epoch))
            case 23 | 24:
                return self.repair(epoch, number)
            case 25:
                rows = KvRows(epoch, self.key(), (pick((1, 2)), 3), self.random.randrange(3), 2, ())
                if self.moves and self.random.random() < 0.8:
                    giver, units = pick(self.moves)
                    given = KvRows(epoch, self.key(), units, 0, 2, ())
                    return pick((KvArrived(giver, given), Received(giver, self.moved(giver, units))))
                failed = KvFailed(self.key(), (2, 3), "no")
                return pick((KvArrived(an_id(number), rows), KvRead(an_id(number), rows), failed))
            case 26:
                ops = ("model", "replan", "broken", "suspect", "slow")
                call = Call(pick(ops), an_id(number), "tiny", an_id(self.random.randint(1, 3)), epoch)
                return pick((Received(an_id(number), call), LinkLost(an_id(number), "reset")))
            case _:
                work = Work(epoch, self.random.randrange(4), self.key(), self.random.randrange(3))
                return pick((StepFailed(work, "no"), StepDone(work, 1, (), 1.0)))

    def plan(self, epoch: int, number: int) -> Any:
        pick = self.random.choice
        cut, active = pick(CUTS), self.random.random() < 0.6
        spares = pick(((), (), (Spare(ME, 2, 4),)))
        return Received(
            an_id(number), a_plan(
                *cut, epoch=epoch + self.random.randrange(2), host=number, active=active, context=200,
                spares=spares, gentle=self.random.random() < 0.3,
            ),
        )  # fmt: skip

    def loaded(self, epoch: int) -> ShardsLoaded:
        """What was asked for last, and sometimes something else."""
        ranges = [(0, 6), (0, 2), (4, 6), (2, 4), (3, 4)]
        if self.loading is not None and self.random.random() < 0.8:
            return ShardsLoaded(self.loading.epoch, (*self.loading.wanted, *self.loading.keep), 1)
        return ShardsLoaded(epoch, tuple(self.random.sample(ranges, self.random.randrange(3))), 1)

    def repair(self, epoch: int, number: int) -> Any:
        """Questions, and answers to the last question that this device asked as a driver."""
        pick, asked = self.random.choice, self.asked
        if asked is not None and self.random.random() < 0.7:
            plan = self.node.machine.local.plan
            stages = plan.pipelines[0].stages if plan and plan.pipelines else ()
            held = tuple(
                Held(
                    at,
                    *sorted((self.random.randrange(5), self.random.randrange(5), self.random.randrange(5))),
                )
                for at, stage in enumerate(stages)
                if stage.device != ME
            )
            device = next((stage.device for stage in stages if stage.device != ME), an_id(number))
            return Received(device, Repair("held", asked.session, asked.epoch, asked.step, device, held))
        plan, worker = self.node.machine.local.plan, self.node.machine.worker
        if plan is not None and plan.pipelines and worker.stages and self.random.random() < 0.5:
            driver, (stage, _) = plan.pipelines[0].driver, pick(worker.stages)
            key = pick(list(worker.held.caches) or [self.key()])
            op = pick(("replay", "replay", "replay", "probe", "resume", "fork"))
            if op == "fork":
                source = pick(worker.held.caches.parked() or [self.key()])
                fresh = f"{self.random.randrange(6, 12):016x}"
                word = Repair("fork", fresh, plan.epoch, 9, driver, end=pick((1, 3)), source=source)
                return Received(driver, replace(word, keep=self.random.random() < 0.5))
            again = Repair(op, key, plan.epoch, 9, driver, (), stage, stage + 1, 0, pick((1, 3, 60)))
            return Received(driver, again)
        coming = self.node.machine.local.coming
        if coming is not None and coming.gentle and self.random.random() < 0.5:
            stages = coming.pipelines[0].stages if coming.pipelines else ()
            for stage in self.random.sample(stages, len(stages)):
                start, end = max(stage.start, 1), min(stage.end, 5)
                if stage.device != ME and start < end:
                    word = Repair("move", "0" * 16, coming.epoch, 0, stage.device, start=start, end=end)
                    return Received(stage.device, word)
        ops = ("probe", "resume", "held", "replay", "done", "fail", "move", "moved")
        stage, until, start, end = (self.random.randrange(most) for most in (3, 4, 4, 5))
        step = self.random.randrange(9)
        repair = Repair(pick(ops), self.key(), epoch, step, an_id(number), (), stage, until, start, end)
        return Received(an_id(number), repair)

    def comes_back(self) -> Any:
        """What was sent or run has an end, or comes round the ring as the head's rows."""
        if self.sent and self.random.random() < 0.5:
            frame = self.sent.pop(0)
            if self.random.random() < 0.1:
                return FrameLost(frame.device, frame.activation, "lost")
            plan = self.node.machine.local.plan
            last = len(plan.pipelines[0].stages) - 1 if plan and plan.pipelines else 0
            sender = plan.pipelines[0].stages[last - 1].device if last else frame.device
            slot = frame.activation.slots[0]
            return FrameArrived(sender, replace(frame.activation, stage=last, rows=slot.logits))
        if not self.running:
            return Timer("beat")
        step = self.running.pop(0)
        if self.random.random() < 0.05:
            return StepFailed(step.work, "no memory")
        slot = step.activation.slots[0]
        token = self.random.randrange(12) if step.sample else None
        count = slot.logits
        scores = Scores(((1,),) * count, ((-1.0,),) * count, (None,) * count) if step.score else None
        return StepDone(step.work, slot.logits, (), 1.0, token=token, scores=scores)


@pytest.mark.parametrize("claims", ["never", "when silent", "at once"])
def test_nothing_that_happens_breaks_a_machine(claims: str):
    ran: set[str] = set()
    for seed in range(50):
        node = Node(claims=claims)
        fate, timers = Fate(seed, node), set[str]()
        if seed % 4:
            node.do(ManifestReady(MODEL, a_manifest(4)))
        for _ in range(500):
            node.now += fate.random.choice((0.0, 0.0, 0.01, 0.3, 0.3, 4.0))
            event = fate.event()
            if isinstance(event, Timer):
                timers.discard(event.name)
            effects = node.do(event)
            fate.note(effects)
            check_effects(node, effects, timers)
            ran |= {type(effect).__name__ for effect in effects}
            ran |= {str(out.finish) for out in said(effects, Out)}  # type: ignore[union-attr]
            ran |= {word.op for word in said(effects, Repair)}  # type: ignore[union-attr]
            ran |= {"replay" for frame in kinds(effects, SendFrame) if frame.activation.until != TO_THE_END}
    assert ran >= {
        "RunStep", "SendFrame", "DropSession", "LoadShards", "KeepShards", "WriteKv", "ReadKv", "ForkKv",
        "length", "stop", "error", "cancelled", "None",
        "probe", "resume", "held", "replay", "move",
    }  # fmt: skip


@settings(
    deadline=None, derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
@given(st.data(), st.booleans())
def test_any_well_typed_message_is_taken_or_dropped(data: st.DataObject, leads: bool):
    node = Node(claims="at once" if leads else "never")
    node.do(BusChanged(True)), node.do(ManifestReady(MODEL, a_manifest(4)))
    for message in data.draw(st.lists(st.sampled_from(MESSAGES).flatmap(records), max_size=6)):
        name = getattr(message, "host", getattr(message, "device", "f" * 16))
        node.now += 1
        check_effects(node, node.do(Received(name, message)), set())
        check_effects(node, node.do(Timer("host")), set())
        check_effects(node, node.do(Timer("beat")), set())


def check_effects(node: Node, effects: list[Effect], timers: set[str]) -> None:
    local = node.machine.local
    for effect in effects:
        match effect:
            case Publish():
                kind = topic_of(effect.message, effect.to).kind
                assert decode_message(kind, encode_message(effect.message)) == effect.message
            case RunStep() | SendFrame():
                assert local.plan is not None and effect.activation.epoch == local.plan.epoch
                stages = local.plan.pipelines[effect.activation.pipeline].stages
                stage = stages[effect.activation.stage]
                assert stage.device == (ME if isinstance(effect, RunStep) else effect.device)
                assert not isinstance(effect, RunStep) or effect.units == stage.units
                assert local.ready_epoch >= local.plan.epoch
            case LoadShards():
                assert local.newest is not None and effect.epoch == local.newest.epoch
            case ReadKv() | SendKv() | WriteKv():
                epoch = effect.epoch if isinstance(effect, ReadKv) else effect.kv.epoch
                assert local.newest is not None and epoch == local.newest.epoch
            case SetTimer():
                assert effect.at >= node.now
                timers.add(effect.name)
            case CancelTimer():
                timers.discard(effect.name)
    driver = node.machine.driver
    running = {view.session for view in driver.views() if not view.waiting}
    of_sessions = {name for name in timers if name.startswith(("step:", "repair:"))}
    assert {name.partition(":")[2] for name in of_sessions} <= running
    assert timers - of_sessions <= {"beat", "host", "links", "member-retry", "heir", "moving"}
