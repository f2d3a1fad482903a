"""Several answers at once, no more than there are devices: each driver guesses for all of them."""

import pytest
from invariants import Invariants, run_to_active, run_to_end

from swisd.sim.faults import FaultyWorld
from swisd.sim.toy import toy_manifest, toy_tokens
from swisd.sim.world import Speed

MIB = 1 << 20
COUNT = 300
PROMPTS = ((3, 1, 4, 1, 5), (2, 7, 1, 8), (1, 4, 1, 4, 2), (1, 7, 3, 2), (2, 2, 3, 6))


def guessed(sessions: int, *, kill: int | None = None) -> list[int]:
    """How many tokens of so many answers at once were guessed right, on three devices that need each other.

    With `kill` one of them dies in between, and a fourth takes its place. No token is another one.
    """
    world = FaultyWorld(1 + (kill or 0), toy_manifest(12), jitter=0.2)
    invariants = Invariants(world)
    invariants.limits = world.limits
    for name in ("ann", "bob", "cyd", *(("dan",) if kill is not None else ())):
        world.add(name, memory_bytes=75 * MIB, speed=Speed(1.0, 1.0), holds=True)
    assert run_to_active(world)
    world.run(1.0)
    keys = [world.ask(prompt, COUNT) for prompt in PROMPTS[:sessions]]
    if kill is not None:
        world.run(2.0)
        plan = next(item for item in world.devices.values() if item.leading).machine.host.plan
        assert plan is not None
        world.kill(sorted(plan.pipelines[0].devices)[-1 - kill % 2])
    assert run_to_end(world, 300.0)
    ended = []
    for key, prompt in zip(keys, PROMPTS, strict=False):
        stream = world.streams[key]
        assert stream.tokens == toy_tokens(toy_manifest(12), prompt, COUNT)
        assert stream.ended is not None
        ended.append(stream.ended.guessed)
    return ended


def test_two_and_three_answers_have_their_tokens_guessed_as_one_has():
    (alone,) = guessed(1)
    assert alone > COUNT // 10
    for sessions in (2, 3):
        assert min(guessed(sessions)) > COUNT // 20


def test_where_more_answers_than_devices_share_passes_hardly_anything_is_guessed():
    # Only once some of them have ended.
    assert sum(guessed(5)) < sum(guessed(3))


@pytest.mark.parametrize("kill", range(4))
def test_a_loss_among_guesses_of_several_changes_no_token(kill: int):
    assert min(guessed(3, kill=kill)) > 0
