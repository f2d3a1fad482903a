"""Whoever dies, the host included: where enough memory is left, every stream ends with its own tokens."""

from random import Random

import pytest
from invariants import Invariants, run_to_active, run_to_end

from swisd.sim.toy import toy_manifest
from swisd.sim.world import Speed, World

MIB = 1 << 20


def a_swarm(seed: int, count: int, layer_ms: tuple[float, ...] = (1.0, 3.0, 9.0)) -> tuple[World, list[str]]:
    """Devices of which any one can be spared."""
    random = Random(seed)
    world = World(seed, toy_manifest(8), jitter=0.5)
    Invariants(world)
    ids = []
    for number in range(count):
        speed = Speed(random.choice(layer_ms), random.choice((2.0, 10.0)))
        memory = random.randint(75, 110) * MIB
        ids.append(world.add(f"d{number + 1}", memory_bytes=memory, speed=speed, holds=True))
    return world, ids


def hosts(world: World) -> list[str]:
    return [ident for ident, item in world.devices.items() if item.alive and item.leading]


def settled(world: World) -> bool:
    """One host, and everybody who is there follows it."""
    leading = hosts(world)
    alive = [item for item in world.devices.values() if item.alive]
    return len(leading) == 1 and all(item.machine.leadership.host == leading[0] for item in alive)


def ended_well(world: World) -> bool:
    return {stream.ended.finish for stream in world.streams.values() if stream.ended} == {"length"}


def story(seed: int, world: World) -> str:
    return f"seed {seed}\n" + "\n".join(world.log)


def pause_after(world: World, victim: str, key: str, *, mute: bool = False) -> float:
    """Seconds until two more tokens came, after a device was killed."""
    world.kill(victim, mute=mute)
    killed, stream = world.now, world.streams[key]
    before = len(stream.tokens)
    world.run_until(lambda: stream.ended is not None or len(stream.tokens) > before + 1, 60.0)
    return world.now - killed


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_any_one_device_may_die_at_any_moment(start: int):
    pauses = []
    for seed in range(start, start + 20):
        random = Random(seed)
        world, ids = a_swarm(seed, 4)
        assert run_to_active(world), seed
        key = world.ask((3, 1, 4), 60)
        world.run(random.uniform(0.0, 3.0))
        victim = ids[0] if seed % 2 else random.choice(ids)
        pauses.append(pause_after(world, victim, key))
        assert run_to_end(world, 300.0) and ended_well(world), story(seed, world)
        world.run(20.0)
        assert settled(world), story(seed, world)
    # One second of it is the toy's loading, and what a slow device has to run again takes its time.
    assert max(pauses) < 5.5 and sorted(pauses)[len(pauses) // 2] < 3.0


@pytest.mark.parametrize("start", range(0, 40, 20))
def test_where_others_keep_its_units_loaded_a_loss_is_a_short_pause(start: int):
    """Devices of one speed: what has to be run again takes no longer than it took before."""
    hosts_lost, others_lost = [], []
    for seed in range(start, start + 20):
        random = Random(seed)
        world, ids = a_swarm(seed, 5, layer_ms=(2.0,))
        assert run_to_active(world), seed
        world.run(4.0)
        plan = world.devices[ids[0]].machine.host.plan
        assert plan is not None and plan.spares, story(seed, world)
        runs = sorted({stage.device for stage in plan.pipelines[0].stages} - {ids[0]})
        key = world.ask((3, 1, 4), 60)
        world.run(random.uniform(0.0, 1.0))
        victim = ids[0] if seed % 2 else random.choice(runs or ids[:1])
        if victim in world.devices[ids[0]].machine.host.rollout.uncovered:
            continue
        pause = pause_after(world, victim, key)
        (hosts_lost if victim == ids[0] else others_lost).append(pause)
        assert run_to_end(world, 300.0) and ended_well(world), story(seed, world)
    assert len(hosts_lost) > 3 and len(others_lost) > 3
    assert max(hosts_lost) < 3.0 and max(others_lost) < 1.5


@pytest.mark.parametrize("start", range(0, 40, 20))
def test_one_host_after_another_may_die(start: int):
    for seed in range(start, start + 20):
        random = Random(seed)
        world, ids = a_swarm(seed, 6)
        assert run_to_active(world), seed
        world.ask((3, 1, 4), 120)
        for _ in range(2):
            world.run(random.uniform(0.0, 4.0))
            leading = hosts(world)
            world.kill(leading[0] if leading else random.choice([i for i in ids if world.devices[i].alive]))
        assert run_to_end(world, 300.0) and ended_well(world), story(seed, world)
        world.run(20.0)
        assert settled(world), story(seed, world)


@pytest.mark.parametrize("mute", [False, True])
@pytest.mark.parametrize("start", range(0, 30, 15))
def test_two_may_die_at_once_and_where_it_shows_nobody_waits_for_them(mute: bool, start: int):
    """`mute`: with their machines, so that no connection is refused. One of them is often the host."""
    pauses = []
    for seed in range(start, start + 15):
        random = Random(seed)
        world, ids = a_swarm(seed, 5, layer_ms=(2.0,))
        assert run_to_active(world), seed
        world.run(4.0)
        key = world.ask((3, 1, 4), 60)
        world.run(random.uniform(0.0, 1.0))
        first, second = random.sample(ids[:3] if seed % 2 else ids, 2)
        world.kill(first, mute=mute)
        pauses.append(pause_after(world, second, key, mute=mute))
        assert run_to_end(world, 300.0) and ended_well(world), story(seed, world)
        world.run(20.0)
        assert settled(world), story(seed, world)
    # One second of it is the toy's loading, where no spare has the units of both.
    assert max(pauses) < (7.0 if mute else 3.0) and (mute or sorted(pauses)[len(pauses) // 2] < 1.5)


@pytest.mark.parametrize("kind", ["frozen", "apart", "cut off"])
@pytest.mark.parametrize("start", range(0, 30, 15))
def test_two_hosts_become_one(kind: str, start: int):
    """However long it takes, and whoever is on which side; askers stay with those that are not named."""
    for seed in range(start, start + 15):
        random = Random(seed)
        world, ids = a_swarm(seed, 5)
        assert run_to_active(world), seed
        world.ask((3, 1, 4), 80)
        world.run(random.uniform(0.0, 3.0))
        seconds = random.choice((1.0, 4.0, 5.5, 8.0, 20.0))
        if kind == "frozen":
            world.freeze(ids[0])
            world.run(seconds)
            world.thaw(ids[0])
        elif kind == "apart":
            world.partition(*random.sample(ids, random.choice((1, 2))))
            world.run(seconds)
            world.partition()
        else:
            world.cut_off(ids[0])
            world.run(seconds)
            world.reconnect(ids[0])
        assert run_to_end(world, 300.0) and ended_well(world), story(seed, world)
        assert world.run_until(lambda: settled(world), 40.0), story(seed, world)  # noqa: B023
        world.run(10.0)
        assert settled(world), story(seed, world)
        world.ask((1, 5), 10)
        assert run_to_end(world, 60.0) and ended_well(world), story(seed, world)
