"""Transcripts of whole swarms, kept as text: a change of the protocol shows as a change of a file.

`SWISD_UPDATE_GOLDEN=1 pytest tests/sim/test_golden.py` writes them anew; read the difference before you
commit it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from invariants import Invariants, run_to_active, run_to_end

from swisd.sim.toy import toy_manifest
from swisd.sim.world import Speed, World

GOLDEN = Path(__file__).parent / "golden"
MIB = 1 << 20
FIVE = ("laptop", "pi", "phone", "tablet", "old")
SCENARIOS: dict[str, Callable[[], "Stage"]] = {}


class Stage:
    """A world without jitter, whose transcript also holds what the scenario does and what came of it."""

    def __init__(self, layers: int = 24) -> None:
        self.world = World(0, toy_manifest(layers), jitter=0.0)
        self.invariants = Invariants(self.world)

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

    def driver(self) -> str:
        plan = self.invariants.plan()
        assert plan is not None
        return plan.pipelines[0].driver

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


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_transcript_is_as_it_was(name: str):
    text = "\n".join(line.rstrip() for line in SCENARIOS[name]().world.log) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("SWISD_UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_transcript_has_its_scenario():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SCENARIOS)
