"""Each lever of a faulty world does what it says, once and alone."""

from dataclasses import replace
from random import Random

import pytest
from invariants import Invariants, Violation, run_to_active, run_to_end

from swisd.core import deadlines
from swisd.core.events import FrameArrived
from swisd.core.messages import Ask, Out, Plan
from swisd.core.shards import memory_of
from swisd.sim.faults import FaultyWorld
from swisd.sim.mishaps import Mishaps
from swisd.sim.network import Network, refusal_of_frame
from swisd.sim.toy import toy_manifest
from swisd.sim.world import RESET_S, Speed

MIB = 1 << 20


EIGHT = [tuple(3 + (7 * number + at) % 60 for at in range(256)) for number in range(8)]  # long prompts


class Three:
    """Three devices that need each other, and an answer on its way."""

    def __init__(self, count: int = 60, *, memory_mib: int = 120) -> None:
        self.world = FaultyWorld(1, toy_manifest(24), jitter=0.0)
        self.invariants = Invariants(self.world)
        self.invariants.limits = self.world.limits
        self.ids = [
            self.world.add(name, memory_bytes=memory_mib * MIB, speed=Speed(5.0, 8.0), holds=True)
            for name in ("laptop", "pi", "phone")
        ]
        assert run_to_active(self.world)
        self.world.run(1.0)
        self.key = self.world.ask((3, 1, 4), count)
        self.world.run(1.0)
        assert self.plan.epoch == 1

    @property
    def plan(self) -> Plan:
        plan = self.world.devices[self.ids[0]].machine.host.plan
        assert plan is not None
        return plan

    @property
    def ring(self) -> list[str]:
        return [stage.device for stage in self.plan.pipelines[0].stages]

    def drops(self, reason: str) -> int:
        return sum(device.machine.local.drops.get(reason, 0) for device in self.world.devices.values())

    def end(self, finish: str = "length", within: float = 200.0) -> float:
        began = self.world.now
        assert run_to_end(self.world, within), "\n".join(self.world.log)
        ended = self.world.streams[self.key].ended
        assert ended is not None and ended.finish == finish, ended
        return self.world.now - began


def told(swarm: Three, text: str) -> bool:
    return any(text in line for line in swarm.world.log)


def test_a_broken_lane_is_told_and_the_answer_goes_on_when_it_heals():
    swarm = Three()
    lane = frozenset(swarm.ring[:2])
    swarm.world.break_lane(*swarm.ring[:2])
    swarm.world.run(5.0)
    assert told(swarm, "the link to") and told(swarm, "no lane works")
    assert swarm.world.streams[swarm.key].ended is None
    swarm.world.lanes_down.discard(lane)
    assert swarm.end() < 20.0


@pytest.mark.parametrize("late", [0.0005, 0.0025, 0.2])
def test_a_heartbeat_that_comes_after_the_word_of_its_senders_end_does_not_bring_it_back(late: float):
    """The broker passes on what a device said last, and that its connection broke, in any order."""
    swarm = Three()
    swarm.end()  # no driver waits for its answers, who would tell of it
    world, host = swarm.world, swarm.ids[0]
    gone = next(ident for ident in swarm.ring if ident != host)
    entry = world.devices[host].machine.host.members.entries[gone]
    assert entry.beat is not None
    last = replace(entry.beat, seq=entry.beat.seq + 1)
    world.kill(gone)
    world.after(RESET_S + late, lambda: world.hand_over(gone, host, last))
    world.run(1.0)
    assert entry.liveness == "dead"
    world.restart(gone)
    world.run(2.0)
    assert world.devices[host].machine.host.members.entries[gone].liveness == "alive"


def test_a_loss_does_not_wait_for_a_look_that_was_put_off():
    """A mended plan is to be looked at in peace, later; then more is lost than can be mended."""
    world = FaultyWorld(1, toy_manifest(8), jitter=0.0)
    for name, memory_mib in (("host", 26), ("one", 80), ("two", 80), ("three", 80), ("small", 26)):
        world.add(name, memory_bytes=memory_mib * MIB, speed=Speed(3.0, 4.0), holds=True)
    assert run_to_active(world)
    world.run(2.0)
    host = next(iter(world.devices.values())).machine.host

    def ring() -> list[str]:
        assert host.plan is not None
        return [stage.device for stage in host.plan.pipelines[0].stages]

    world.ask((3, 1, 4), 1500)
    world.run(1.0)
    lost = ring()[1]
    world.kill(lost)
    world.run(0.5)
    assert lost not in ring()
    world.restart(lost)
    world.run(1.5)
    for device in set(ring()):
        world.kill(device)
    assert world.run_until(lambda: lost in ring(), 1.5), "\n".join(world.log[-20:])


def test_a_lane_that_swallows_frames_is_found_by_the_deadline_of_a_step():
    """Nobody is told that anything broke. The driver asks, and has the rows fed again until they come."""
    swarm = Three()
    swarm.world.run(1.0)  # by now it knows how long a token takes
    lane, began = frozenset(swarm.ring[:2]), swarm.world.now
    swarm.world.lanes_mute.add(lane)
    swarm.world.after(1.5, lambda: swarm.world.lanes_mute.discard(lane))
    assert swarm.world.run_until(lambda: told(swarm, "rows were lost on their way"), 1.5)
    assert swarm.world.streams[swarm.key].asker._submitted == 1
    assert swarm.world.run_until(lambda: swarm.invariants.progressed_at > began + 1.0, 4.0)
    swarm.end()
    assert swarm.world.streams[swarm.key].asker._submitted == 1  # nobody had to ask again


def test_without_the_bus_frames_still_flow():
    """The worker is heard no more, so the host plans without it, or for it once it is back."""
    swarm = Three(20)
    worker = swarm.ring[1]
    swarm.world.cut_bus(worker)
    swarm.end()
    assert swarm.plan.epoch == 1  # the answer was quicker than the deadline
    swarm.world.run(8.0)
    assert swarm.plan.epoch > 1 and worker not in swarm.ring if swarm.plan.pipelines else swarm.plan.problem
    swarm.world.reconnect(worker)
    assert run_to_active(swarm.world)


def test_a_full_disk_lets_the_next_load_fail_and_is_told():
    swarm = Three(400)
    worker = swarm.ring[1]
    swarm.world.disk[worker] = "the disk is full"
    swarm.world.restart(worker)
    swarm.end("error")
    ended = swarm.world.streams[swarm.key].ended
    assert ended is not None and swarm.world.loads_failed["the disk is full"] == 1
    assert "the disk is full" in ended.error or "missing" in ended.error
    del swarm.world.disk[worker]
    assert run_to_active(swarm.world)


def test_a_device_that_claims_memory_it_has_not_is_left_out():
    swarm = Three(400)
    worker = swarm.ring[1]
    swarm.world.real_memory[worker] = 10 * MIB
    swarm.world.add("tablet", memory_bytes=120 * MIB, holds=True)
    swarm.world.run(5.0)
    swarm.world.restart(worker)
    swarm.end()
    assert swarm.world.loads_failed["not enough memory for the shard"] >= 1
    assert worker not in swarm.ring


def test_a_device_that_boasts_is_believed_until_its_steps_say_otherwise():
    swarm = Three()
    worker = swarm.ring[1]
    swarm.end()
    swarm.world.boasts[worker] = 10.0
    swarm.world.restart(worker)
    swarm.world.run(3.0)
    assert run_to_active(swarm.world)
    profile = swarm.world.devices[worker].machine.local.capability.profiles[0]
    assert profile.layer_ms == pytest.approx(0.5)
    swarm.world.run(31.0)
    swarm.key = swarm.world.ask((3, 1, 4), 200)
    swarm.end()
    swarm.world.run(5.0)
    profile = swarm.world.devices[worker].machine.local.capability.profiles[0]
    assert profile.layer_ms == pytest.approx(5.0, rel=0.5)


def test_memory_that_another_program_takes_counts_for_the_next_plan():
    """What is loaded stays while nobody else has room: a swarm that gives up at once would be worse."""
    swarm = Three()
    worker = swarm.ring[1]
    swarm.world.offer(worker, 15 * MIB)
    swarm.end()
    swarm.world.run(10.0)
    assert swarm.plan.epoch == 1 and swarm.plan.active
    swarm.world.add("tablet", memory_bytes=120 * MIB, holds=True)
    swarm.world.run(5.0)
    ranges = {stage.units for stage in swarm.plan.pipelines[0].stages if stage.device == worker}
    assert swarm.plan.active and memory_of(swarm.world.manifest, ranges, swarm.plan.context) <= 15 * MIB
    swarm.key = swarm.world.ask((3, 1, 4), 20)
    swarm.end()


def test_a_clock_that_was_set_back_keeps_a_device_out_no_longer_than_its_silence():
    swarm = Three(400)
    worker = swarm.ring[1]
    swarm.world.kill(worker)
    swarm.world.restart_with_clock(worker, -1_000_000)
    swarm.end(within=60.0)
    assert worker in swarm.ring


def test_a_stale_plan_is_dropped():
    swarm = Three(400)
    swarm.world.restart(swarm.ring[1])
    swarm.world.run(5.0)
    assert swarm.plan.epoch == 2
    for ident in (*swarm.ids, swarm.key):
        swarm.world.replay_plan(0, ident)
    assert swarm.drops("plan of an old epoch") == 3
    swarm.end()


@pytest.mark.parametrize(
    ("fault", "part", "reason"),
    [
        ("duplicate", 1.0, "repeated frame"),
        ("delay", 0.3, ""),
        ("reorder", 0.3, ""),
        ("lose", 0.1, ""),
        ("corrupt", 0.02, "malformed frame"),
    ],
)
def test_a_bad_network_costs_time_but_no_token(fault: str, part: float, reason: str):
    swarm = Three()
    swarm.world.network.parts[fault] = part
    swarm.world.after(2.0, swarm.world.network.parts.clear)
    swarm.end()
    assert swarm.world.network.met[fault] > 0
    assert not reason or swarm.drops(reason) > 0
    assert fault != "corrupt" or sum(swarm.world.network.refused.values()) == swarm.world.network.met[fault]


def test_whatever_is_damaged_is_refused_by_the_real_wire_code():
    """Frames and messages with some bytes changed or cut off: none is taken for a sound one."""
    swarm = Three()
    seen: list[tuple[str, str, object]] = []
    swarm.world.loses = lambda sender, to, what: bool(seen.append((sender, to, what)))
    swarm.end()
    kinds = {type(what) for _, _, what in seen}
    assert {FrameArrived, Out, Ask} <= kinds
    network = Network(swarm.world, Random(1))
    for sender, to, what in seen * 10:
        network._corrupted(sender, to, what)
    assert sum(network.refused.values()) == 10 * len(seen)
    assert set(network.refused) == {"foreign message", "malformed message", "malformed frame"}


def test_damage_that_passes_is_a_violation(monkeypatch: pytest.MonkeyPatch):
    swarm = Three()
    seen: list[tuple[str, str, object]] = []
    swarm.world.loses = lambda sender, to, what: bool(seen.append((sender, to, what)))
    swarm.end()
    frame = next(item for item in seen if isinstance(item[2], FrameArrived))
    monkeypatch.setattr("swisd.sim.network.refusal_of_frame", lambda data: None)
    with pytest.raises(Violation, match="a corrupt FrameArrived was taken for a sound one"):
        Network(swarm.world, Random(1))._corrupted(*frame)
    assert refusal_of_frame(b"") == "malformed frame"


def test_a_plan_that_one_device_never_heard_is_repeated():
    swarm = Three(400)
    lost = []

    def loses(sender: str, to: str, what: object) -> bool:
        if isinstance(what, Plan) and what.epoch == 2 and to == swarm.ids[2] and not lost:
            lost.append(what)
            return True
        return False

    swarm.world.loses = loses
    swarm.world.restart(swarm.ids[1])
    swarm.end(within=60.0)
    assert lost and swarm.plan.epoch == 2


def test_what_lasts_ends_and_is_undone():
    swarm = Three(1)
    swarm.end()
    mishaps = Mishaps(swarm.world, Random(3), embedded=True)
    before = {ident: device.speed for ident, device in swarm.world.devices.items()}
    for kind in ("slow", "disk", "memory", "boast-memory", "link", "lose", "freeze", "cut-off"):
        assert mishaps.happen(kind), kind
    assert swarm.world.active == 8
    assert swarm.world.run_until(lambda: swarm.world.active == 0, 200.0)
    world = swarm.world
    assert before == {ident: device.speed for ident, device in world.devices.items()}
    assert not (
        world.disk or world.real_memory or world.lanes_down or world.lanes_mute or world.network.parts
    )
    assert all(device.frozen is None and device.online for device in world.devices.values())


def test_a_long_line_at_a_device_that_became_slow_makes_nobody_forget_what_waits_in_it():
    """Every prompt waits minutes between its two parts, since all others' come first."""
    swarm = Three(memory_mib=140)
    swarm.end()
    world, (_, slow, *_) = swarm.world, swarm.ring
    world.devices[slow].speed = Speed(60.0, 100.0)
    keys = [world.ask(prompt, 5) for prompt in EIGHT]
    assert run_to_end(world, 600.0) and world.now > deadlines.IDLE_SESSION + 30.0
    ends = [world.streams[key].ended for key in keys]
    assert all(ended is not None and ended.finish == "length" for ended in ends)
    assert not told(swarm, "rows are missing") and not told(swarm, "do not come round")


def test_a_token_that_waits_behind_the_prompts_of_others_makes_no_device_late():
    """How long tokens took alone says nothing of that. Whoever is late again and again is left out."""
    swarm = Three()
    swarm.end()
    swarm.world.devices[swarm.ring[1]].speed = Speed(20.0, 32.0)
    for prompt in EIGHT:
        swarm.world.ask(prompt, 40)
    assert run_to_end(swarm.world, 300.0)
    assert not told(swarm, "was late")
    assert all(stream.ended is not None for stream in swarm.world.streams.values())
    assert swarm.plan.epoch == 1
