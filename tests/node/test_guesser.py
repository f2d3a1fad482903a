"""The thread of a small model: only the last question counts, and what is wrong is told before it begins."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from swisd.core.effects import Draft
from swisd.core.errors import BadInput, ModelError
from swisd.core.events import DraftMade
from swisd.forge.importer import import_model
from swisd.node.drafting import Drafting
from swisd.node.home import Home
from swisd.node.memory import Offering
from swisd.node.settings import DeviceSettings, ModelSettings, Settings
from swisd.runtime import drafter
from swisd.store.disk import BlobStore
from swisd.store.models import ModelIndex
from tests.tiny_models import write_model

KEY = "a" * 16
WAIT_S = 20.0


def settings(name: str = "tiny") -> Settings:
    return Settings(
        device=DeviceSettings(drafter=name, threads=1), model=ModelSettings(context=64, min_context=32)
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with the model `tiny`."""
    home = Home(tmp_path / "home")
    gguf = write_model(tmp_path / "m.gguf", "llama", "Q4_1", layers=2)
    _, sha = import_model(gguf, home.blobs, model_id="tiny", licence="MIT")
    ModelIndex(home.models, BlobStore(home.blobs)).add(sha)
    return home


async def test_it_answers_with_what_comes_next(home: Home):
    made = await Drafting.of(home, settings())
    assert made is not None and made.memory_bytes > 0
    answers: asyncio.Queue[DraftMade] = asyncio.Queue()
    made.post = answers.put_nowait
    try:
        made.ask(Draft(KEY, (1, 2, 3), 4))
        async with asyncio.timeout(WAIT_S):
            answer = await answers.get()
    finally:
        await made.close()
    assert (answer.session, answer.after, len(answer.ids)) == (KEY, 3, 4)


async def test_while_it_thinks_only_the_last_question_waits(home: Home, monkeypatch: pytest.MonkeyPatch):
    begun, go = threading.Event(), threading.Event()
    asked: list[tuple[int, ...]] = []

    def slow(self: Any, ids: tuple[int, ...], count: int) -> tuple[int, ...]:
        asked.append(ids)
        begun.set()
        assert go.wait(WAIT_S)
        return (7,)

    monkeypatch.setattr(drafter.Drafter, "guess", slow)
    made = await Drafting.of(home, settings())
    assert made is not None
    answers: asyncio.Queue[DraftMade] = asyncio.Queue()
    made.post = answers.put_nowait
    made.ask(Draft(KEY, (1,), 1))
    assert await asyncio.to_thread(begun.wait, WAIT_S)
    for token in (2, 3, 4):
        made.ask(Draft(KEY, (1, token), 1))
    go.set()
    async with asyncio.timeout(WAIT_S):
        first, last = await answers.get(), await answers.get()
    await made.close()
    assert asked == [(1,), (1, 4)] and (first.after, last.after) == (1, 2)


async def test_a_model_that_is_not_here_or_not_whole_is_told_with_what_to_do(home: Home):
    assert await Drafting.of(home, settings("")) is None
    with pytest.raises(ModelError, match="swisd models pull other"):
        await Drafting.of(home, settings("other"))
    store = BlobStore(home.blobs)
    manifest = ModelIndex(home.models, store).manifest("tiny")
    store.remove(manifest.blobs[manifest.blob_indices(1, 2)[0]].sha256)
    with pytest.raises(ModelError, match=r"not whole.*swisd models pull tiny"):
        await Drafting.of(home, settings())


def test_what_it_takes_is_not_offered():
    device = DeviceSettings(memory="100MB", journal="1MB", drafter="tiny")
    assert Offering.of(device, print, 30_000_000).now(0) == 69_000_000
    with pytest.raises(BadInput, match="tiny takes 190 MiB"):
        Offering.of(device, print, 200_000_000)
