"""A device as a contender: exactly as many tokens as asked for, times in order, and errors in words."""

from dataclasses import replace

import pytest

from swisd.bench.contender import SwarmSide
from swisd.core import deadlines
from swisd.core.errors import NoSwarm, SessionFailed
from tests.client.conftest import Lone


async def test_answers_are_as_long_as_asked_for(lone: Lone) -> None:
    async with lone.asker() as link:
        side = SwarmSide(link, "one", "solo", "")
        await side.ready()
        assert side.context > 0 and side.shape() == "1 device, 1 stage" and side.epoch() > 0
        streams = await side.ask([(3, 4, 5), (6, 7, 8)], 5)
    assert [(stream.tokens, len(stream.gaps_ms), stream.prompt_tokens) for stream in streams] == [
        (5, 4, 3)
    ] * 2
    for stream in streams:
        assert stream.first_ms > 0 and min(stream.gaps_ms) >= 0
        assert stream.ended >= stream.began + stream.first_ms / 1000


async def test_a_tokens_way_is_read_from_what_the_device_tells(lone: Lone) -> None:
    async with lone.asker() as link:
        side = SwarmSide(link, "one", "solo", "")
        await side.ready()
        way = await side.way((3, 4, 5), 8)
    assert way is not None
    assert way.hops == 0 and way.whole_ms > 0 and len(way.devices) == 1


async def test_a_question_that_cannot_be_answered_ends_in_words(lone: Lone) -> None:
    async with lone.asker() as link:
        side = SwarmSide(link, "one", "solo", "")
        await side.ready()
        with pytest.raises(SessionFailed, match="prompt has"):
            await side.ask([(3,) * (side.context + 1)], 5)


async def test_a_plan_that_needs_a_person_is_not_waited_for(
    lone: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "NO_FIT", 0.05)
    async with lone.asker() as link:
        await link.context(20)
        assert link.plan is not None
        link.plan = replace(link.plan, active=False, pipelines=(), problem="swarm offers 1 MiB")
        with pytest.raises(NoSwarm, match="swarm offers 1 MiB"):
            await SwarmSide(link, "one", "solo", "").ready()
