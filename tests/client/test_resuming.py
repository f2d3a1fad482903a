"""Answers that break off and go on: against a swarm that answers by rote, up to where it is told to fail."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from swisd.client.answers import Answer, Piece, Status
from swisd.client.asking import Options, stream
from swisd.client.kept import BrokeOff, KeptSession, load
from swisd.client.resuming import resume
from swisd.core.errors import SessionFailed
from swisd.core.messages import Out
from swisd.core.request import Answered, Ended, Request, Waiting
from swisd.core.types import FinishReason, Member, Pipeline, Plan, Prediction, Stage
from swisd.node.home import Home
from swisd.node.settings import Settings
from swisd.runtime.fake import fake_manifest, write_fake_blobs
from swisd.store.disk import BlobStore
from swisd.text.tokenizer import load_tokenizer

SHA = "ab" * 32
ANN = "11" * 8
PIPELINES = (Pipeline((Stage(0, 6, (Member(ANN),)),)),)
PLAN = Plan(3, ANN, SHA, "fake-4x16", 9, 256, "latency", PIPELINES, Prediction(0, 0, (), ()), active=True)
TOKENS = tuple(range(40, 52))
OPTIONS = Options(max_tokens=12, temperature=0.5, seed=7, raw=True, patience=3.0)
SETTINGS = Settings().answer


@dataclass
class Rote:
    """In the place of a `SwarmLink`: gives `TOKENS` from where the request stands, `most` of them."""

    home: Home
    most: int = 100
    finish: FinishReason = "length"
    error: str = ""
    waits: bool = False  # stands still after them
    sha: str = SHA
    ident: str = "ff" * 8
    plan: Plan | None = PLAN
    asked: list[Request] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = {ANN: "ann"}
        self.manifest = fake_manifest(layers=4)
        write_fake_blobs(self.manifest, self.home.blobs)
        blob = self.manifest.blobs[self.manifest.tokenizer]
        self.tokenizer = load_tokenizer(BlobStore(self.home.blobs).read(blob.sha256))

    def tell(self, text: str) -> None:
        self.told.append(text)

    async def model(self, patience: float | None) -> Any:
        return self.sha, self.manifest, self.tokenizer

    async def run(self, request: Request, patience: float | None) -> AsyncGenerator[Any, None]:
        self.asked.append(request)
        start = len(request.emitted)
        for index, token in enumerate(TOKENS[start : min(start + self.most, request.max_tokens)]):
            yield Answered(Out(request.session, index, 3, (token,)))
        if self.waits:
            yield Waiting("the swarm offers 3 MiB")
            yield Waiting("and still")
        yield Ended(self.finish, self.error, PLAN, 1.0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def breaks(home: Home, most: int = 5, **changes: Any) -> Rote:
    return Rote(home, most, "error", "the swarm offers 3 MiB", **changes)


async def asked(link: Any) -> list[Any]:
    return [item async for item in stream(link, "the sea", OPTIONS, SETTINGS)]


async def broken_off(link: Any) -> KeptSession:
    with pytest.raises(BrokeOff, match=r"3 MiB; go on with: swisd ask --continue [0-9a-f]{16}$") as caught:
        await asked(link)
    return load(link.home, caught.value.session)


async def gone_on(link: Any, kept: KeptSession) -> tuple[list[Piece], Answer]:
    items = [item async for item in resume(link, kept, 3.0)]
    assert isinstance(items[-1], Answer)
    return [item for item in items if isinstance(item, Piece)], items[-1]


def files(home: Home) -> list[str]:
    return sorted(path.name for path in home.sessions.glob("*"))


async def test_an_answer_goes_on_with_the_tokens_of_an_undisturbed_one(home: Home) -> None:
    whole = (await asked(Rote(home)))[-1]
    assert files(home) == []
    first = breaks(home)
    kept = await broken_off(first)
    assert (kept.emitted, kept.text, kept.model_id) == (TOKENS[:5], "the sea", "fake-4x16")
    link = Rote(home)
    pieces, answer = await gone_on(link, kept)
    assert pieces[0].token_ids == TOKENS[:5] and pieces[0].text
    assert "".join(piece.text for piece in pieces) == answer.text == whole.text
    assert answer.token_ids == whole.token_ids == TOKENS
    assert answer.timings.decode_tokens == 7
    (before,), (again,) = first.asked, link.asked
    assert again == replace(before, session=again.session, emitted=TOKENS[:5], model_id="fake-4x16")
    assert again.session != before.session
    assert files(home) == []


async def test_it_may_break_off_again_and_again(home: Home) -> None:
    kept = await broken_off(breaks(home))
    for count in (7, 9):
        with pytest.raises(BrokeOff, match=kept.session):
            await gone_on(breaks(home, 2), load(home, kept.session))
        assert load(home, kept.session).emitted == TOKENS[:count]
    assert files(home) == [f"{kept.session}.json"]
    with pytest.raises(BrokeOff):
        await gone_on(breaks(home, 0), load(home, kept.session))
    _, answer = await gone_on(Rote(home), load(home, kept.session))
    assert answer.token_ids == TOKENS and files(home) == []


async def test_only_the_word_that_it_is_over_was_missing(home: Home) -> None:
    kept = await broken_off(breaks(home, 12))
    link = Rote(home, plan=None)
    (piece,), answer = await gone_on(link, kept)
    assert link.asked == [] and files(home) == []
    assert (answer.token_ids, answer.finish_reason, piece.text) == (TOKENS, "length", answer.text)


async def test_nothing_is_kept_before_the_first_token(home: Home) -> None:
    with pytest.raises(SessionFailed, match="3 MiB") as caught:
        await asked(breaks(home, 0))
    assert not isinstance(caught.value, BrokeOff) and files(home) == []


async def test_another_model_is_refused(home: Home) -> None:
    kept = await broken_off(breaks(home))
    with pytest.raises(SessionFailed, match=r"\(cdcdcdcd\).*begun with fake-4x16 \(abababab\).*imported"):
        await gone_on(Rote(home, sha="cd" * 32), kept)
    with pytest.raises(SessionFailed, match=r"begun with gpt-9 .*`swisd up --model gpt-9`"):
        await gone_on(Rote(home, sha="cd" * 32), replace(kept, model_id="gpt-9"))
    assert files(home) == [f"{kept.session}.json"]


async def test_whoever_gives_up_waiting_can_go_on_later(home: Home) -> None:
    link = Rote(home, 5, waits=True)
    items = stream(link, "the sea", OPTIONS, SETTINGS)  # type: ignore[arg-type]
    async for item in items:
        if isinstance(item, Status):
            break
    await items.aclose()
    (name,) = files(home)
    assert link.told == [f"go on with: swisd ask --continue {name.removesuffix('.json')}"]
    items = stream(Rote(home), "the sea", OPTIONS, SETTINGS)  # type: ignore[arg-type]
    await anext(items)
    await items.aclose()  # of their own will, while tokens came
    assert files(home) == [name]


async def test_an_answer_that_the_swarm_let_go_is_kept(home: Home) -> None:
    items = await asked(Rote(home, 5, "cancelled", "the asker fell silent"))
    (status,) = [item for item in items if isinstance(item, Status)]
    assert "fell silent; go on with: swisd ask --continue" in status.text
    assert isinstance(items[-1], Answer) and items[-1].finish_reason == "cancelled"
    assert len(files(home)) == 1


async def test_a_disk_that_takes_nothing_does_not_hide_the_error(home: Home) -> None:
    (home.path / "sessions").write_text("a file in its place")
    with pytest.raises(SessionFailed, match=r"3 MiB; the answer so far could not be kept: .*sessions"):
        await asked(breaks(home))
