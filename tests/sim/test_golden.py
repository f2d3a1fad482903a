"""Transcripts of whole swarms, kept as text: a change of the protocol shows as a change of a file.

`SWISD_UPDATE_GOLDEN=1 pytest tests/sim/test_golden.py` writes them anew; read the difference before you
commit it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from invariants import Invariants, run_to_active, run_to_end

from swisd.sim.faults import FaultyWorld
from swisd.sim.toy import toy_manifest
from swisd.sim.world import Speed

GOLDEN = Path(__file__).parent / "golden"
MIB = 1 << 20
FIVE = ("laptop", "pi", "phone", "tablet", "old")
SCENARIOS: dict[str, Callable[[], "Stage"]] = {}


class Stage:
    """A world without jitter, whose transcript also holds what the scenario does and what came of it."""

    def __init__(self, layers: int = 24) -> None:
        self.world = FaultyWorld(0, toy_manifest(layers), jitter=0.0)
        self.invariants = Invariants(self.world)
        self.invariants.limits = self.world.limits

    def add(self, name: str, memory_mib: int = 120, *, layer_ms: float = 5.0, holds: bool = False) -> str:
        self.say(f"{name} joins with {memory_mib} MiB")
        speed = Speed(layer_ms, layer_ms * 1.6)
        return self.world.add(name, memory_bytes=memory_mib * MIB, speed=speed, holds=holds)

    def ask(self, count: int, *, prompt: tuple[int, ...] = (3, 1, 4), score_top: int = 0) -> str:
        what = "scores of" if score_top else f"{count} tokens after"
        self.say(f"asker {len(self.world.streams) + 1} wants {what} a prompt of {len(prompt)}")
        return self.world.ask(prompt, count, score_top=score_top)

    def say(self, text: str) -> None:
        self.world.log.append(f"{self.world.now:7.2f}  -- {text}")

    def active(self) -> None:
        assert run_to_active(self.world)
        self.show_plan()
        self.world.run(1.0)

    def show_plan(self) -> None:
        plan = self.invariants.plan()
        assert plan is not None
        names = {ident: device.machine.local.config.name for ident, device in self.world.devices.items()}
        ring = [
            f"{names[stage.device]} [{stage.start}, {stage.end})"
            for p in plan.pipelines
            for stage in p.stages
        ]
        self.say(f"plan {plan.epoch}: {' -> '.join(ring) or 'none'}")
        for verdict in plan.verdicts:
            self.say(f"{names[verdict.device]} {verdict.reason}")

    def ring(self) -> list[str]:
        plan = self.invariants.plan()
        assert plan is not None
        return [stage.device for stage in plan.pipelines[0].stages]

    def driver(self) -> str:
        return self.ring()[0]

    def covered(self) -> None:
        """Wait until devices with room to spare keep others' units loaded."""
        self.world.run(2.0)
        plan = self.invariants.plan()
        assert plan is not None
        for spare in plan.spares:
            device = self.world.devices[spare.device]
            assert spare.units in device.shards
            self.say(f"{self.name(spare.device)} keeps [{spare.start}, {spare.end}) to spare")

    def name(self, ident: str) -> str:
        return self.world.devices[ident].machine.local.config.name

    def kill(self, *idents: str) -> None:
        for ident in idents:
            self.world.kill(ident)

    def outlives(self, *idents: str, pause: float) -> None:
        """Devices are killed, and the answers come to their end with no longer pause than that."""
        self.kill(*idents)
        self.end()
        self.paused(pause)

    def paused(self, most: float) -> None:
        """The longest time between two tokens of any answer."""
        self.say(f"longest pause {self.invariants.longest_pause:.2f} s")
        assert self.invariants.longest_pause <= most

    def show_hosts(self) -> None:
        """Who leads, and whom each device follows."""
        names = {ident: device.machine.local.config.name for ident, device in self.world.devices.items()}
        for ident, device in self.world.devices.items():
            if device.alive:
                host = device.machine.leadership.host
                leads = device.machine.leadership.leading
                self.say(
                    f"{names[ident]} {'is host' if leads else 'follows ' + names.get(host or '', 'nobody')}"
                )

    def end(self, within: float = 200.0) -> None:
        assert run_to_end(self.world, within)
        for number, (key, stream) in enumerate(self.world.streams.items(), 1):
            assert stream.ended is not None
            request = stream.asker._request
            if request.score_top:
                self.say(f"asker {number} got {stream.scores} rows of scores")
                continue
            alone = self.invariants.expected(key)[: len(stream.tokens)]
            assert stream.tokens == alone
            told = " ".join(str(token) for token in stream.tokens[:12])
            self.say(f"asker {number} got {len(stream.tokens)} tokens, as one device alone: {told}")


def scenario(make: Callable[[], Stage]) -> Callable[[], Stage]:
    SCENARIOS[make.__name__] = make
    return make


@scenario
def solo() -> Stage:
    """One device alone, which imports the model itself."""
    stage = Stage(6)
    stage.add("laptop", 200)
    stage.active()
    stage.ask(8)
    stage.end()
    return stage


@scenario
def join_plan_ask_leave() -> Stage:
    """Four small devices run together what none could alone; one leaves, and it goes on."""
    stage = Stage()
    names = [
        stage.add(name, 120, holds=name == "laptop") for name in ("laptop", "pi", "phone", "tablet", "old")
    ]
    stage.active()
    stage.ask(40)
    stage.world.run(2.0)
    stage.say("phone leaves")
    stage.world.leave(names[2])
    stage.end()
    stage.show_plan()
    return stage


@scenario
def a_late_joiner_is_told_why_it_is_left_out() -> Stage:
    stage = Stage(6)
    stage.add("laptop", 400, holds=True)
    stage.active()
    stage.add("pi", 60, layer_ms=50.0)
    stage.world.run(10.0)
    stage.show_plan()
    return stage


@scenario
def a_faster_late_joiner_takes_over() -> Stage:
    """It is worth a new plan, but not while a session runs."""
    stage = Stage(6)
    stage.add("laptop", 400, holds=True)
    stage.active()
    stage.ask(200)
    stage.add("desktop", 400, layer_ms=1.0)
    stage.end()
    stage.world.run(5.0)
    stage.show_plan()
    return stage


@scenario
def a_worker_is_killed_in_mid_answer() -> Stage:
    stage = Stage()
    names = [stage.add(name, 120, holds=True) for name in FIVE]
    stage.active()
    stage.ask(40)
    stage.world.run(2.0)
    stage.world.kill(names[2])
    stage.end()
    stage.show_plan()
    return stage


@scenario
def a_worker_is_killed_and_the_rest_is_too_small() -> Stage:
    stage = Stage()
    names = [stage.add(name, 120, holds=True) for name in ("laptop", "pi", "phone")]
    stage.active()
    stage.ask(40)
    stage.world.run(2.0)
    stage.world.kill(names[2])
    stage.end()
    return stage


@scenario
def a_worker_restarts_in_mid_answer() -> Stage:
    stage = Stage()
    names = [stage.add(name, 120, holds=True) for name in ("laptop", "pi", "phone")]
    stage.active()
    stage.ask(40)
    stage.world.run(2.0)
    stage.world.restart(names[1])
    stage.end()
    return stage


@scenario
def host_is_killed_in_mid_answer() -> Stage:
    """The next in line runs the broker and plans; askers find it by the same list."""
    stage = Stage()
    names = [stage.add(name, 120, holds=True, layer_ms=speed) for name, speed in (
        ("laptop", 9.0), ("pi", 9.0), ("phone", 2.0), ("tablet", 9.0))]  # fmt: skip
    stage.active()
    assert stage.driver() != names[0]
    stage.ask(40)
    stage.world.run(2.0)
    stage.world.kill(names[0])
    stage.end()
    stage.show_plan()
    stage.world.restart(names[0])
    stage.world.run(5.0)
    stage.show_hosts()
    return stage


@scenario
def host_that_is_also_driver_is_killed() -> Stage:
    stage = Stage()
    names = [stage.add(name, 120, holds=True, layer_ms=speed) for name, speed in (
        ("laptop", 2.0), ("pi", 9.0), ("phone", 9.0), ("tablet", 9.0))]  # fmt: skip
    stage.active()
    assert stage.driver() == names[0]
    stage.ask(40)
    stage.world.run(2.0)
    stage.world.kill(names[0])
    stage.end()
    stage.show_plan()
    return stage


@scenario
def host_is_frozen_and_comes_back() -> Stage:
    """For its clients a host that says nothing is lost; when it goes on it finds the other and joins it."""
    stage = Stage()
    names = [stage.add(name, 120, holds=True) for name in ("laptop", "pi", "phone", "tablet")]
    stage.active()
    stage.ask(120)
    stage.world.run(2.0)
    stage.world.freeze(names[0])
    stage.world.run(8.0)
    stage.world.thaw(names[0])
    stage.end()
    stage.world.run(5.0)
    stage.show_plan()
    stage.show_hosts()
    return stage


@scenario
def host_is_apart_from_the_others_for_a_while() -> Stage:
    """Each side of the cut has its host; when it heals, the one that nobody follows joins the other."""
    stage = Stage()
    names = [stage.add(name, 120, holds=True) for name in ("laptop", "pi", "phone", "tablet")]
    stage.active()
    stage.ask(60)
    stage.world.run(2.0)
    stage.world.partition(names[0])
    stage.end()
    stage.world.run(15.0)
    stage.world.partition()
    stage.world.run(10.0)
    stage.show_plan()
    stage.show_hosts()
    return stage


@scenario
def two_hosts_with_followers_become_one() -> Stage:
    stage = Stage()
    names = [stage.add(name, 200, holds=True) for name in ("laptop", "pi", "phone", "tablet")]
    stage.active()
    stage.world.partition(names[2], names[3])
    stage.world.run(20.0)
    stage.show_hosts()
    stage.world.partition()
    stage.world.run(10.0)
    stage.show_plan()
    stage.show_hosts()
    stage.ask(10)
    stage.end()
    return stage


@scenario
def the_host_leaves_and_names_the_next() -> Stage:
    stage = Stage()
    names = [stage.add(name, 120, holds=True) for name in ("laptop", "pi", "phone", "tablet")]
    stage.active()
    stage.ask(40)
    stage.world.run(2.0)
    stage.say("laptop leaves")
    stage.world.leave(names[0])
    stage.end()
    stage.show_hosts()
    return stage


@scenario
def no_fit() -> Stage:
    stage = Stage()
    stage.add("laptop", 100, holds=True)
    stage.add("pi", 40)
    stage.world.run(10.0)
    stage.show_plan()
    stage.ask(8)
    stage.end()
    return stage


@scenario
def four_sessions_at_once() -> Stage:
    stage = Stage()
    for name in ("laptop", "pi", "phone"):
        stage.add(name, 120, holds=True)
    stage.active()
    for number in range(4):
        stage.ask(20 + number, prompt=(number, 2, 7))
    stage.end()
    return stage


@scenario
def a_queue() -> Stage:
    """Sessions that fill the context go one after the other, and each is told its place."""
    stage = Stage()
    for name in ("laptop", "pi", "phone"):
        stage.add(name, 95, holds=True)
    stage.active()
    for number in range(3):
        stage.ask(400, prompt=(number,) * 300)
    stage.end(1000)
    return stage


@scenario
def scoring() -> Stage:
    stage = Stage()
    for name in ("laptop", "pi", "phone"):
        stage.add(name, 120, holds=True)
    stage.active()
    stage.ask(0, prompt=tuple(range(60)) * 5, score_top=3)
    stage.end()
    return stage


def four(*layer_ms: float) -> tuple[Stage, list[str]]:
    """Four devices of which two run the model and the others stand by, and an answer that began 1 s ago.

    What has to be run again is as slow as it was, so the pauses below hold for short answers only.
    """
    stage = Stage()
    speeds = layer_ms or (5.0, 5.0, 5.0, 5.0)
    named = zip(("laptop", "pi", "phone", "tablet"), speeds, strict=True)
    names = [stage.add(name, 220, holds=True, layer_ms=speed) for name, speed in named]
    stage.active()
    stage.covered()
    stage.ask(60)
    stage.world.run(1.0)
    return stage, names


@scenario
def a_worker_is_killed_and_a_spare_takes_over() -> Stage:
    stage, names = four()
    worker = stage.ring()[1]
    assert worker != names[0]
    stage.outlives(worker, pause=1.5)
    stage.world.run(5.0)
    stage.show_plan()
    return stage


@scenario
def the_driver_is_killed_and_a_spare_takes_over() -> Stage:
    stage, names = four(6.0, 6.0, 5.0, 5.0)
    driver = stage.driver()
    assert driver != names[0]
    stage.outlives(driver, pause=1.5)
    return stage


@scenario
def the_host_is_killed_and_runs_nothing() -> Stage:
    """Nobody waits for a plan: the answer goes on while the bus moves."""
    stage, names = four(30.0, 5.0, 5.0, 5.0)
    assert names[0] not in stage.ring()
    stage.outlives(names[0], pause=3.0)
    stage.show_hosts()
    return stage


@scenario
def the_host_that_is_also_driver_is_killed_and_a_spare_takes_over() -> Stage:
    stage, names = four()
    assert stage.driver() == names[0]
    stage.outlives(names[0], pause=3.0)
    stage.show_hosts()
    return stage


@scenario
def two_devices_are_killed_at_once_and_the_others_have_room() -> Stage:
    stage, names = four(6.0, 5.0, 5.0, 6.0)
    driver, worker = stage.ring()[:2]
    assert names[0] not in (driver, worker)
    stage.outlives(driver, worker, pause=3.0)
    stage.show_plan()
    return stage


@scenario
def the_host_and_the_next_in_line_are_killed_at_once() -> Stage:
    """Nobody waits for a device whose machine says that it does not run."""
    stage, names = four(9.0, 9.0, 5.0, 5.0)
    stage.world.run(1.0)
    stage.outlives(names[0], names[1], pause=3.0)
    stage.show_hosts()
    return stage


@scenario
def the_host_and_a_worker_are_killed_at_once() -> Stage:
    """The new host does not wait for the worker that it misses."""
    stage, names = four(9.0, 9.0, 5.0, 5.0)
    worker = next(ident for ident in stage.ring() if ident != stage.driver())
    assert worker not in names[:2]
    stage.outlives(names[0], worker, pause=3.0)
    stage.show_hosts()
    return stage


@scenario
def the_host_and_the_next_in_line_vanish_with_their_machines() -> Stage:
    """Nothing refuses a connection, and the usual waits hold."""
    stage, names = four(9.0, 9.0, 5.0, 5.0)
    for ident in names[:2]:
        stage.world.kill(ident, mute=True)
    stage.end()
    stage.paused(6.0)
    stage.show_hosts()
    return stage


@scenario
def a_killed_worker_is_back_in_a_moment() -> Stage:
    """It is known to be lost at once, and comes back as a new device."""
    stage, _ = four()
    worker = stage.ring()[1]
    stage.kill(worker)
    stage.world.run(0.1)
    stage.world.restart(worker)
    stage.end()
    stage.paused(1.5)
    stage.show_hosts()
    return stage


@scenario
def a_killed_host_is_back_in_a_moment() -> Stage:
    """Another one has begun to take its place, and it follows that one."""
    stage, names = four()
    stage.kill(names[0])
    stage.world.run(0.1)
    stage.world.restart(names[0])
    stage.end()
    stage.world.run(10.0)
    stage.paused(3.0)
    stage.show_hosts()
    return stage


@scenario
def two_devices_are_killed_at_once_and_the_rest_is_too_small() -> Stage:
    """Whoever asked hears soon what is missing."""
    stage = Stage()
    names = [stage.add(name, 120, holds=True) for name in ("laptop", "pi", "phone", "tablet")]
    stage.active()
    stage.covered()
    key = stage.ask(60)
    stage.world.run(2.0)
    killed = stage.world.now
    stage.kill(names[1], names[2])
    stage.end()
    ended = stage.world.streams[key].ended
    assert ended is not None and ended.finish == "error" and "MiB missing" in ended.error
    assert stage.world.now - killed <= 5.0
    return stage


@scenario
def a_frozen_worker_is_found_before_its_heartbeats_are_missed() -> Stage:
    stage, _ = four()
    stage.world.run(1.0)  # until the driver knows how long a token takes
    worker = stage.ring()[1]
    stage.world.freeze(worker)
    stage.world.run(8.0)
    stage.world.thaw(worker)
    stage.end()
    stage.paused(2.5)
    stage.world.run(5.0)
    stage.show_plan()
    return stage


@scenario
def a_worker_freezes_before_its_pace_is_known() -> Stage:
    stage, _ = four()
    stage.world.freeze(stage.ring()[1])
    stage.end()
    stage.paused(3.5)
    return stage


@scenario
def a_lane_breaks_and_is_made_again() -> Stage:
    stage, _ = four()
    driver, worker = stage.ring()[:2]
    stage.say("the lane from the driver to the worker breaks, and nothing on it arrives")
    stage.world.break_lane(driver, worker)
    stage.world.run(0.05)
    stage.world.lanes_down.clear()
    stage.end()
    stage.paused(1.5)
    plan = stage.invariants.plan()
    assert plan is not None and plan.epoch == 1  # both are there still
    return stage


@scenario
def a_lane_swallows_rows_for_a_while() -> Stage:
    stage, _ = four()
    stage.world.run(1.0)  # until the driver knows how long a token takes
    lane = frozenset(stage.ring()[:2])
    stage.say("the lane swallows rows for 0.2 s, and nobody is told")
    stage.world.lanes_mute.add(lane)
    stage.world.run(0.2)
    stage.world.lanes_mute.clear()
    stage.end()
    stage.paused(1.5)
    return stage


@scenario
def a_device_is_slow_for_a_moment() -> Stage:
    """It is asked, and answers: nothing is run again and nobody is lost."""
    stage, _ = four()
    device = stage.world.devices[stage.ring()[1]]
    usual, device.speed = device.speed, Speed(60.0, 100.0)
    stage.say("the worker is 12 times slower for 3 s")
    stage.world.run(3.0)
    device.speed = usual
    stage.end()
    plan = stage.invariants.plan()
    assert plan is not None and plan.epoch == 1
    return stage


@scenario
def a_device_that_stays_slow_is_moved_out() -> Stage:
    stage, _ = four()
    worker = stage.ring()[1]
    device = stage.world.devices[worker]
    stage.ask(200)
    device.speed = Speed(60.0, 100.0)
    stage.say("the worker is 12 times slower from now on")
    stage.world.run(40.0)
    assert worker not in stage.ring()
    stage.end(600.0)
    return stage


@scenario
def a_device_joins_and_one_leaves_in_mid_answer() -> Stage:
    """Who comes helps only where it is worth it; who leaves says so, and its spare goes on."""
    stage, _ = four()
    worker = stage.ring()[1]
    stage.add("desktop", 220, holds=True)
    stage.world.run(1.0)
    stage.say(f"{stage.name(worker)} leaves")
    stage.world.leave(worker)
    stage.end()
    stage.paused(1.5)
    return stage


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_transcript_is_as_it_was(name: str):
    text = "\n".join(line.rstrip() for line in SCENARIOS[name]().world.log) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("SWISD_UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_transcript_has_its_scenario():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SCENARIOS)
