"""A swarm whose driver has a small model: more tokens in a round, the same ones, also where devices die."""

import pytest
from invariants import Invariants, run_to_active, run_to_end

from swisd.sim.faults import FaultyWorld
from swisd.sim.toy import toy_manifest, toy_tokens
from swisd.sim.world import Speed

MIB = 1 << 20
PROMPT, COUNT = (3, 1, 4, 1, 5), 240


def answer(drafter: str, *, kill: bool = False, seed: int = 1) -> tuple[list[int], float, int]:
    """Tokens, seconds, and how many of them were guessed right."""
    world = FaultyWorld(seed, toy_manifest(12), jitter=0.2)
    invariants = Invariants(world)
    invariants.limits = world.limits
    for name in ("ann", "bob", "cyd", "dan"):
        world.add(name, memory_bytes=75 * MIB, speed=Speed(4.0, 4.0), holds=True, drafter=drafter)
    assert run_to_active(world)
    world.run(1.0)
    began = world.now
    key = world.ask(PROMPT, COUNT)
    if kill:
        world.run(2.5)
        plan = next(item for item in world.devices.values() if item.leading).machine.host.plan
        assert plan is not None
        world.kill(sorted(plan.pipelines[0].devices)[-1 - seed % 2])
    assert run_to_end(world, 300.0)
    stream = world.streams[key]
    assert stream.ended is not None
    return stream.tokens, world.now - began, stream.ended.guessed


def test_its_guesses_bring_the_same_tokens_sooner():
    plain, slow, before = answer("")
    drafted, quick, guessed = answer("small")
    assert drafted == plain == toy_tokens(toy_manifest(12), PROMPT, COUNT)
    assert quick < slow and guessed > before  # what was there before is guessed in both


@pytest.mark.parametrize("seed", range(4))
def test_a_loss_among_guesses_changes_no_token(seed: int):
    tokens, _, _ = answer("small", kill=True, seed=seed)
    assert tokens == toy_tokens(toy_manifest(12), PROMPT, COUNT)
