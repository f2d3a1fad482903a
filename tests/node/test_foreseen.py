"""Rows that run before they are asked for: their bits are those that they would have later."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.core.effects import LoadShards, RunStep
from swisd.core.errors import ModelError
from swisd.core.events import Event, LoadProgress, StepDone, StepFailed
from swisd.core.rows import Activation, Following, Sample, Score, Work
from swisd.core.types import SamplingParams, Slot
from swisd.node import outcomes
from swisd.node.hops import HopTimes
from swisd.node.stepping import Stepping
from swisd.runtime.fake import FakeShard, fake_manifest
from swisd.runtime.kv import KvStore
from tests.node.fakes import Promptly, install_runtime

MANIFEST = fake_manifest(layers=4, context=128)
A, B, C = (letter * 16 for letter in "abc")
ALL = (0, 6)
PARAMS = SamplingParams()
ON = Following(ALL, ())


class Shards:
    """One shard for all units, and a list of the passes it ran: the positions of each session."""

    def __init__(self, *cuts: int) -> None:
        self.passes: list[dict[str, int]] = []
        self.store = KvStore(MANIFEST, 128)
        ends = [0, *cuts, MANIFEST.n_units]
        self.held = {units: FakeShard(MANIFEST, *units, store=self.store) for units in pairwise(ends)}
        for shard in self.held.values():
            shard.run = self._noting(shard.run)  # type: ignore[method-assign]

    def get(self, units: tuple[int, int]) -> FakeShard | None:
        return self.held.get(units)

    def _noting(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def noted(slots: Sequence[Slot], x: Any) -> Any:
            self.passes.append({slot.session: slot.position for slot in slots})
            return run(slots, x)

        return noted


class Desk:
    """Steps are put in line and taken by hand; what is told is heard at once, and kept."""

    def __init__(self, *cuts: int) -> None:
        self.shards = Shards(*cuts)
        self.told: list[Event] = []
        self.stepping = Stepping(self.shards, HopTimes(), self._tell)  # type: ignore[arg-type]

    def _tell(self, *events: Event) -> None:
        self.told.extend(events)
        self.stepping.heard += 1

    def run(self, *effects: RunStep) -> list[Event]:
        """What is told of these steps, which come together."""
        before = len(self.told)
        for effect in effects:
            self.stepping.line.add(effect, 0)
        for _ in effects:
            self.stepping.take(0)
        return self.told[before:]

    def token(self, *effects: RunStep) -> int:
        (event,) = self.run(*effects)
        assert isinstance(event, StepDone) and event.token is not None
        return event.token

    @property
    def passes(self) -> list[dict[str, int]]:
        return self.shards.passes


def step(session: str, position: int, *ids: int, number: int = 0, **more: Any) -> RunStep:
    slot = Slot(session, number or position, position, len(ids), 1)
    rows = Activation(7, 0, 0, (slot,), len(ids), ids)
    sample = Sample(PARAMS, 0, position + len(ids), ())
    filled: dict[str, Any] = {"sample": sample, "following": ON, **more}
    return RunStep(Work(7, 0, session, slot.step), ALL, rows, **filled)


def alone(*ids: int, then: int) -> list[int]:
    """The tokens that a shard gives which runs one step after the other."""
    shard = FakeShard(MANIFEST, *ALL, store=KvStore(MANIFEST, 128))
    found, rows, position = [], list(ids), 0
    for _ in range(then):
        logits = shard.run([Slot(A, 0, position, len(rows), 1)], np.array(rows, np.int64))
        position += len(rows)
        rows = [int(logits[-1].argmax())]
        found += rows
    return found


def test_the_row_of_a_token_runs_before_it_is_asked_for() -> None:
    desk, said = Desk(), alone(1, 2, 3, then=4)
    assert desk.token(step(A, 0, 1, 2, 3)) == said[0]
    assert desk.passes == [{A: 0}, {A: 3}]
    for position in (3, 4, 5):
        assert desk.token(step(A, position, said[position - 3])) == said[position - 2]
        assert desk.passes[-1] == {A: position + 1} and len(desk.passes) == position  # each ran once


def test_a_pipelines_first_shard_runs_behind_its_head() -> None:
    desk = Desk(3)
    first = {"following": Following((0, 3), ()), "sample": None}

    def both(position: int, *ids: int) -> int:
        (done,) = desk.run(replace(step(A, position, *ids, **first), units=(0, 3)))
        assert isinstance(done, StepDone)
        rows = Activation(7, 0, 1, (Slot(A, position, position, len(ids), 1),), done.rows, done.payload)
        following = Following((0, 3), ())
        sample = Sample(PARAMS, 0, position + len(ids), ())
        return desk.token(RunStep(Work(7, 1, A, position), (3, 6), rows, sample, following=following))

    said = alone(1, 2, 3, then=3)
    assert [both(0, 1, 2, 3), both(3, said[0]), both(4, said[1])] == said
    assert [items[A] for items in desk.passes] == [0, 0, 3, 3, 4, 4, 5]  # the last one for the next token


@pytest.mark.parametrize("following", [None, Following((0, 3), ()), "stop"])
def test_nothing_runs_ahead_where_nothing_follows(following: Any) -> None:
    """The last token, a shard that is not here, or a token that ends the text."""
    desk, (said,) = Desk(), alone(1, 2, 3, then=1)
    following = Following(ALL, (said,)) if following == "stop" else following
    assert desk.token(step(A, 0, 1, 2, 3, following=following)) == said
    assert desk.passes == [{A: 0}]


def test_nothing_runs_ahead_while_others_wait() -> None:
    desk = Desk()
    for effect in (step(A, 0, 1, 2, 3), step(B, 0, 4, 5, 6)):
        desk.stepping.line.add(effect, 0)
    desk.stepping.take(0)
    assert desk.passes == [{A: 0}]
    desk.stepping.take(0)
    assert desk.passes == [{A: 0}, {B: 0}, {B: 3}]


@pytest.mark.parametrize(
    "change",
    [
        lambda asked: step(A, 3, asked + 1),
        lambda asked: step(A, 2, asked),
        lambda asked: step(B, 0, asked),
        lambda asked: replace(step(A, 3, asked), work=Work(8, 0, A, 3)),
        lambda asked: step(A, 3, asked, sample=None, score=Score(2, (None,))),
    ],
)
def test_what_else_is_asked_for_runs_as_it_would(change: Callable[[int], RunStep]) -> None:
    desk, plain = Desk(), Desk()
    first = desk.token(step(A, 0, 1, 2, 3))
    plain.run(step(A, 0, 1, 2, 3, following=None))
    asked = replace(change(first), following=None)
    (found,), (right,) = desk.run(asked), plain.run(asked)
    assert isinstance(found, StepDone) and isinstance(right, StepDone)
    assert (found.token, found.scores) == (right.token, right.scores)
    assert len(desk.passes) == 3 and len(plain.passes) == 2


def test_what_ran_ahead_is_forgotten_when_something_else_is_done() -> None:
    desk, said = Desk(), alone(1, 2, 3, then=2)
    desk.run(step(A, 0, 1, 2, 3))
    desk.stepping.interrupt()
    desk.shards.store.drop(A)  # as whatever is done may
    failed = desk.run(step(A, 3, said[0]))
    assert isinstance(failed[0], StepFailed)


def test_guesses_behind_what_ran_ahead_run_in_a_pass_of_their_own() -> None:
    desk, said = Desk(), alone(1, 2, 3, then=3)
    desk.run(step(A, 0, 1, 2, 3))
    found = desk.run(step(A, 3, said[0], following=None), step(A, 4, said[1], following=None))
    assert [event.token for event in found if isinstance(event, StepDone)] == said[1:]
    assert desk.passes == [{A: 0}, {A: 3}, {A: 4}]


def test_a_pass_that_fails_ahead_is_told_when_it_is_asked_for() -> None:
    desk = Desk()
    ids = (*range(1, 64), *range(1, 64), 1, 2)
    token = desk.token(step(A, 0, *ids))  # the caches have no room for more
    assert len(desk.told) == 1
    assert isinstance(desk.run(step(A, 128, token))[0], StepFailed)


def company(*sessions: str, **more: Any) -> list[RunStep]:
    """First rows of sessions that may share passes."""
    return [step(session, 0, ord(session[0]) % 7 + 1, together=len(sessions), **more) for session in sessions]


def next_row(done: Event, position: int, **more: Any) -> RunStep:
    assert isinstance(done, StepDone) and done.token is not None
    return step(done.work.session, position, done.token, **more)


def test_sessions_that_ran_together_run_ahead_together() -> None:
    desk = Desk()
    first = desk.run(*company(A, B))
    assert desk.passes == [{A: 0, B: 0}, {A: 1, B: 1}]
    second = desk.run(*(next_row(done, 1, together=2) for done in first))
    assert desk.passes[2:] == [{A: 2, B: 2}]
    assert [done.shared for done in second if isinstance(done, StepDone)] == [2, 2]
    apart = [desk.run(next_row(done, 2, together=2, following=None)) for done in second]
    assert len(desk.passes) == 3  # each of them finds its row, though they come one by one
    assert [len(events) for events in apart] == [1, 1]


def test_an_answer_that_fails_is_the_failure_of_its_session_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, right = Desk(), outcomes.sample
    seeds = {A: 0, B: 1}

    def wrong(logits: Any, *args: Any, **more: Any) -> int:
        if more["seed"] == seeds[B] and more["position"] == 2:
            raise ModelError("no token comes of this")
        return right(logits, *args, **more)

    def seeded(effect: RunStep) -> RunStep:
        assert effect.sample is not None
        return replace(effect, sample=replace(effect.sample, seed=seeds[effect.work.session]))

    monkeypatch.setattr(outcomes, "sample", wrong)
    first = desk.run(*map(seeded, company(A, B)))
    rows = [seeded(next_row(done, 1, together=2, following=None)) for done in first]
    assert [type(answer) for answer in desk.run(*rows)] == [StepDone, StepFailed]


def test_one_that_ends_leaves_the_others_ahead() -> None:
    desk = Desk()
    first, second = company(A, B)
    desk.run(first, replace(second, following=None))
    assert desk.passes == [{A: 0, B: 0}, {A: 1}]


def test_whoever_comes_new_joins_those_that_ran_ahead() -> None:
    """Their rows are answered at once, and those that come of that share a pass with the new one."""
    desk = Desk()
    first = desk.run(*company(A, B))
    mine: list[Event] = []

    def tell(*events: Event) -> None:
        mine.extend(events)
        if len(mine) == 2:  # A and B were answered, and their next rows come
            for done in events:
                desk.stepping.line.add(next_row(done, 2, together=3, following=None), 0)

    desk.stepping._tell = tell
    desk.run(step(C, 0, 4, together=3, following=None), *(next_row(done, 1, together=3) for done in first))
    assert desk.passes == [{A: 0, B: 0}, {A: 1, B: 1}, {C: 0, A: 2, B: 2}]


async def test_compute_forgets_what_ran_ahead_before_it_does_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_runtime(monkeypatch)
    events: asyncio.Queue[Event] = asyncio.Queue()
    compute = Promptly(
        tmp_path / "blobs", tmp_path / "scratch", (1,), lambda some: [*map(events.put_nowait, some)]
    )

    async def answer() -> Event:
        async with asyncio.timeout(20):
            while isinstance(event := await events.get(), LoadProgress):
                pass
            return event

    compute.make_room(load := LoadShards(7, "aa" * 32, (ALL,), (), 128), MANIFEST)
    compute.load(load, MANIFEST)
    await answer()
    compute.run(step(A, 0, 1, 2, 3))
    done = await answer()
    compute.drop(A)
    compute.run(next_row(done, 3))
    assert isinstance(await answer(), StepFailed)  # its caches are gone
    await compute.close()
