"""Several pipelines in one swarm: sessions spread over them, and a loss in one is no matter of the others."""

import pytest
from invariants import Invariants, run_to_active, run_to_end

from swisd.core.types import Plan
from swisd.sim.faults import FaultyWorld
from swisd.sim.mishaps import ALL
from swisd.sim.storm import run_storm
from swisd.sim.toy import toy_manifest
from swisd.sim.world import Speed

MIB = 1 << 20
EVEN = Speed(3.0, 4.0)


class Several:
    """Devices of equal speed that plan for throughput, with invariants watched."""

    def __init__(self, *memory_mib: int, layers: int = 8) -> None:
        self.world = FaultyWorld(1, toy_manifest(layers), jitter=0.0)
        self.invariants = Invariants(self.world)
        self.invariants.limits = self.world.limits
        self.ids = [
            self.world.add(
                f"d{number}",
                memory_bytes=mib * MIB,
                speed=Speed(3.0, 4.0),
                holds=True,
                objective="throughput",
            )
            for number, mib in enumerate(memory_mib, 1)
        ]
        assert run_to_active(self.world)
        self.world.run(2.0)

    @property
    def plan(self) -> Plan:
        plan = self.world.devices[self.ids[0]].machine.host.plan
        assert plan is not None
        return plan

    def driven(self) -> dict[str, int]:
        """Sessions of each driver."""
        return {
            driver: len(self.world.devices[driver].machine.driver.sessions.running)
            for driver in self.plan.drivers
        }


def test_devices_that_hold_the_whole_model_are_pipelines_of_their_own_and_share_the_sessions():
    swarm = Several(200, 200, 200)
    assert [len(pipeline.stages) for pipeline in swarm.plan.pipelines] == [1, 1, 1]
    assert swarm.world.devices[swarm.ids[0]].machine.host.rollout.uncovered == ()  # each has the others
    for _ in range(6):
        swarm.world.ask((3, 1, 4), 400)
        swarm.world.run(0.7)  # the digest has told of it
    assert set(swarm.driven().values()) == {2}
    assert run_to_end(swarm.world, 120.0)


def test_sessions_of_a_lost_pipeline_go_on_in_another_and_the_others_notice_nothing():
    swarm = Several(200, 200, 200)
    world = swarm.world
    keys = [world.ask((3, 1, number), 60) for number in range(6)]
    world.run(0.3)
    lost = swarm.plan.drivers[1]
    assert lost != swarm.ids[0] and all(count for count in swarm.driven().values())
    hers = {session.key for session in world.devices[lost].machine.driver.sessions.running}
    world.kill(lost)
    assert run_to_end(world, 120.0)
    assert all(world.streams[key].ended.finish == "length" for key in keys)  # type: ignore[union-attr]
    assert lost not in swarm.plan.drivers and len(swarm.plan.pipelines) == 2
    brought_back = [line for line in world.log if "goes on after" in line]
    assert 1 <= len({line.partition("session ")[2][:6] for line in brought_back}) <= len(hers)
    world.restart(lost)
    world.run(30.0)
    assert len(swarm.plan.pipelines) == 3  # it is back


def test_a_pair_that_lost_a_half_hands_its_sessions_to_the_other_pair():
    swarm = Several(75, 75, 75, 75)
    assert sorted(len(pipeline.devices) for pipeline in swarm.plan.pipelines) == [2, 2]
    keys = [swarm.world.ask((3, 1, number), 60) for number in range(4)]
    swarm.world.run(0.3)
    assert all(swarm.driven().values())
    pipeline = next(item for item in swarm.plan.pipelines if swarm.ids[0] not in item.devices)
    lost = next(device for device in pipeline.devices if device != pipeline.driver)
    swarm.world.kill(lost)
    swarm.world.run(1.0)
    assert [item.devices for item in swarm.plan.pipelines] == [
        item.devices for item in swarm.plan.pipelines if swarm.ids[0] in item.devices
    ]
    assert run_to_end(swarm.world, 120.0)
    assert all(swarm.world.streams[key].ended.finish == "length" for key in keys)  # type: ignore[union-attr]
    swarm.world.restart(lost)
    swarm.world.run(30.0)
    assert len(swarm.plan.pipelines) == 2


@pytest.mark.parametrize("seed", range(4))
def test_storms_over_several_pipelines_break_no_promise(seed: int):
    report = run_storm(seed, 4 + seed, 2.0, ALL, "throughput")
    assert not report.violations, "\n".join((report.violations[0].what, *report.violations[0].tail))
    assert report.ended_well > 0
