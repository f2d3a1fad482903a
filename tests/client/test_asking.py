"""Asking a device in this process: streams, cancelling, several at once, scores, errors."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.client.answers import Answer, Evaluation, Piece, Status
from swisd.client.asking import Options, check_prompt, evaluate, sampling_for, stream
from swisd.client.kept import KeptSession, keep
from swisd.client.link import SwarmLink
from swisd.client.resuming import resume
from swisd.core.errors import BadInput, ModelError, NoSwarm, SessionFailed
from swisd.core.messages import Digest
from swisd.core.types import Slot
from swisd.node.lonely import LonelyDevice
from swisd.node.settings import AnswerSettings, Settings
from swisd.runtime.fake import FakeShard, fake_manifest
from swisd.runtime.kv import KvStore
from swisd.runtime.scoring import score
from swisd.text.chat import encode_chat
from swisd.text.tokenizer import load_tokenizer
from tests.client.conftest import Lone
from tests.node.conftest import Until
from tests.node.fakes import KEY, FakeModel, solo

SETTINGS = Settings().answer
GREEDY = Options(max_tokens=12, temperature=0.0, raw=True)


async def collect(link: SwarmLink, prompt: str, options: Options = GREEDY) -> tuple[list[Piece], Answer]:
    async with asyncio.timeout(30):
        items = [item async for item in stream(link, prompt, options, SETTINGS)]
    pieces = [item for item in items if isinstance(item, Piece)]
    assert isinstance(items[-1], Answer)
    return pieces, items[-1]


def ids_of(model: FakeModel, text: str) -> list[int]:
    store = model.home.blobs / model.manifest.blobs[model.manifest.tokenizer].sha256
    return load_tokenizer(store.read_bytes()).encode(text, special=True)


async def test_an_answer_is_the_models_own_and_its_pieces_are_its_parts(lone: Lone) -> None:
    async with lone.asker() as link:
        pieces, answer = await collect(link, "the sea")
    assert list(answer.token_ids) == solo(lone.model, ids_of(lone.model, "the sea"), 12)
    assert [token for piece in pieces for token in piece.token_ids] == list(answer.token_ids)
    assert "".join(piece.text for piece in pieces) == answer.text != ""
    assert answer.finish_reason == "length"
    assert answer.timings.prompt_tokens == len(ids_of(lone.model, "the sea"))
    assert answer.timings.decode_tokens == 12
    (shard,) = answer.plan.shards
    assert (shard.name, shard.start, shard.end, answer.plan.model) == ("lone", 0, 6, "fake-4x16")


async def test_a_model_without_a_chat_template_is_asked_in_plain_turns(lone: Lone) -> None:
    async with lone.asker() as link:
        _, _, tokenizer = await link.model(20)
        assert tokenizer.chat_template is None
        expected = encode_chat(
            tokenizer, [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
        )
        options = replace(GREEDY, raw=False, system="be kind", max_tokens=3)
        _, answer = await collect(link, "hi", options)
    assert list(answer.token_ids) == solo(lone.model, expected, 3)


async def test_a_model_is_read_once(lone: Lone) -> None:
    async with lone.asker() as link:
        first, again = await link.model(20), await link.model(20)
        assert first[0] == lone.model.sha and again[2] is first[2]
        await collect(link, "the sea")
        assert (await link.model(None))[2] is first[2]


async def test_the_models_end_ends_the_answer(lone: Lone, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lone.asker() as link:
        _, whole = await collect(link, "the sea")
        found = await link.model(20)
        stop = whole.token_ids[5]
        monkeypatch.setattr(found[2], "eos_ids", frozenset({stop}))

        async def model(patience: float) -> Any:
            return found

        monkeypatch.setattr(link, "model", model)
        _, answer = await collect(link, "the sea")
    assert answer.finish_reason == "stop"
    at = whole.token_ids.index(stop)
    assert answer.token_ids[:at] == whole.token_ids[:at] and len(answer.token_ids) <= at + 1


async def test_closing_the_stream_frees_the_session_on_the_device(lone: Lone, until: Until) -> None:
    async with lone.asker() as link:
        items = stream(link, "the sea", replace(GREEDY, max_tokens=200), SETTINGS)
        async for item in items:
            if isinstance(item, Piece):
                break
        await until(lambda: lone.sessions)
        await items.aclose()
        await until(lambda: not lone.sessions)
        assert not link._sessions
        driver = lone.device.node.machine.driver
        await until(lambda: not driver.views())
        _, answer = await collect(link, "the sea")
        assert len(answer.token_ids) == 12


async def test_leaving_with_a_question_open_frees_it_too(lone: Lone, until: Until) -> None:
    async with lone.asker() as link:
        items = stream(link, "the sea", replace(GREEDY, max_tokens=200), SETTINGS)
        while not isinstance(await anext(items), Piece):
            pass
    await until(lambda: not lone.sessions and not lone.device.node.machine.driver.views())
    await items.aclose()


async def test_an_asker_that_is_cancelled_frees_its_session(lone: Lone, until: Until) -> None:
    async with lone.asker() as link:
        task = asyncio.create_task(collect(link, "the sea", replace(GREEDY, max_tokens=230)))
        await until(lambda: lone.sessions)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not lone.sessions)


async def test_two_askers_at_once_get_their_own_answers(lone: Lone) -> None:
    async with lone.asker() as one, lone.asker() as two:
        answers = await asyncio.gather(
            collect(one, "the sea"), collect(two, "a hill"), collect(one, "the moon")
        )
    for prompt, (_, answer) in zip(("the sea", "a hill", "the moon"), answers, strict=True):
        assert list(answer.token_ids) == solo(lone.model, ids_of(lone.model, prompt), 12), prompt


async def test_a_seed_repeats_an_answer(lone: Lone) -> None:
    warm = replace(GREEDY, temperature=2.0, seed=7)
    async with lone.asker() as link:
        first = (await collect(link, "the sea", warm))[1].token_ids
        assert (await collect(link, "the sea", warm))[1].token_ids == first
        assert (await collect(link, "the sea", replace(warm, seed=8)))[1].token_ids != first


async def test_scores_are_those_of_the_model_in_one_piece(lone: Lone) -> None:
    text = "the sea was calm and the boat lay still. " * 20
    async with lone.asker() as link:
        found: Evaluation = await evaluate(link, text, model_id="", top=3, patience=20.0)
    ids = ids_of(lone.model, text)
    assert list(found.token_ids) == ids and found.tokens == len(ids) > 256  # more than one window
    assert len(found.top_ids) == len(found.top_logprobs) == len(found.next_logprobs) == len(ids)
    shard = FakeShard(lone.model.manifest, 0, 6, store=KvStore(lone.model.manifest, 512))
    first = shard.run([Slot("ab" * 8, 0, 0, 100, 100)], np.array(ids[:100], np.int64))
    alone = score(first, ids[1:101], 3)
    assert found.top_ids[:100] == alone.top_ids and found.next_logprobs[:100] == alone.next_logprobs
    assert found.perplexity > 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": -3}, "max_tokens"),
        ({"max_tokens": 1 << 40}, "max_tokens"), ({"seed": -1}, "seed"), ({"seed": 1 << 63}, "seed"),
        ({"temperature": -0.5}, "temperature"), ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"), ({"min_p": -0.1}, "min_p"), ({"top_k": -4}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
    ],
)  # fmt: skip
async def test_options_out_of_range_are_refused_and_not_waited_for(
    lone: Lone, options: dict[str, Any], word: str
) -> None:
    async with lone.asker() as link:
        with pytest.raises(BadInput, match=word):
            await collect(link, "the sea", replace(GREEDY, **options))


async def test_questions_that_cannot_be_answered(lone: Lone) -> None:
    async with lone.asker() as link:
        with pytest.raises(SessionFailed, match="tokens"):
            await collect(link, "sea " * 300)
        with pytest.raises(BadInput, match="more than 131072"):
            await collect(link, "s " * 140_000)
        with pytest.raises(BadInput, match="empty"):
            await collect(link, "")
        with pytest.raises(SessionFailed, match="fake-4x16, not gpt-9"):
            await evaluate(link, "the sea", model_id="gpt-9", top=3, patience=20.0)
        for text, top, word in (("a", 3, "too short"), ("the sea", 0, "top"), ("the sea", 101, "top")):
            with pytest.raises(BadInput, match=word):
                await evaluate(link, text, model_id="", top=top, patience=20.0)


@pytest.mark.parametrize(
    ("prompt", "options", "word"),
    [("", {}, "empty"), (" \n\t", {}, "empty"), ("caf\udce9", {}, "UTF-8"),
     ("hi", {"system": "\udce9"}, "UTF-8"),
     ("x" * ((4 << 20) + 1), {}, "characters")],
    ids=["empty", "blank", "bytes", "system", "long"],
)  # fmt: skip
def test_prompts_that_need_no_swarm_to_be_refused(prompt: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        check_prompt(prompt, Options(**options))
    check_prompt("hello", Options())
    check_prompt(" ", Options(raw=True))


async def test_an_error_in_the_middle_is_the_devices_own_words(
    lone: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise ValueError("the sum is wrong")

    async with lone.asker() as link:
        await collect(link, "the sea")
        monkeypatch.setattr(FakeShard, "run", fails)
        items = stream(link, "the sea", replace(GREEDY, patience=20.0), SETTINGS)
        said = ""
        async with asyncio.timeout(20):
            while "the sum is wrong" not in said:
                item = await anext(items)
                assert isinstance(item, Status)
                said = item.text
        await items.aclose()


async def test_digest_and_plan_are_there_once_settled(lone: Lone) -> None:
    async with lone.asker() as link:
        await link.context(20)
        assert link.names == {lone.model.home.identity().device: "lone"}
    async with lone.asker() as late:
        await late.settled()
        assert late.plan is not None and late.plan.active and late.digest is not None
        assert late.plan.epoch == late.digest.epoch


async def test_messages_of_the_host_count_only_in_its_own_name(lone: Lone, until: Until) -> None:
    async with lone.asker() as link:
        await link.context(20)
        forged = Digest("99" * 8, 99, 1, ())
        link._on_message("88" * 8, forged)
        link._on_message("88" * 8, forged)
        assert link.drops == {"message in another device's name": 2} and link.digest != forged
        assert sum("another device's name" in text for text in lone.told) == 1
        plan = link.plan
        assert plan is not None
        link._on_message(plan.host, replace(plan, active=False))
        link._on_message(plan.host, replace(plan, epoch=plan.epoch - 1))
        assert link.plan == plan
        link._on_message(plan.host, replace(plan, epoch=plan.epoch + 1, active=False))
        assert link.plan is not plan


async def test_no_bus_is_no_swarm(tmp_path: Any, fake_home: FakeModel) -> None:
    class Silent:
        connected = False

        async def start(self) -> None: ...
        async def close(self) -> None: ...
        def subscribe(self, *_: Any) -> None: ...

    def make(courier: Any, ident: str, on_state: Callable[[bool, str], None]) -> Any:
        on_state(False, "nobody home")
        return Silent()

    with pytest.raises(NoSwarm, match="nobody home"):
        async with SwarmLink(fake_home.home, KEY, make, lambda _: None) as link:
            await link.connected(0.01)


@given(
    asked=st.one_of(st.none(), st.floats(0, 3)), setting=st.one_of(st.just(-1.0), st.floats(0, 3)),
    penalty=st.one_of(st.none(), st.floats(0.5, 2)),
)  # fmt: skip
def test_what_was_asked_for_comes_before_the_settings(
    asked: float | None, setting: float, penalty: float | None
) -> None:
    params = sampling_for(
        fake_manifest(),
        Options(temperature=asked, repetition_penalty=penalty),
        AnswerSettings(temperature=setting),
    )
    assert params.temperature == (asked if asked is not None else max(setting, 0.0))
    assert params.repetition_penalty == (penalty if penalty is not None else 1.0)


def test_the_cards_style_is_for_when_nothing_is_said() -> None:
    carded = replace(fake_manifest(), model_id="smollm2-135m-instruct-q4_1")
    usual = sampling_for(carded, Options(), AnswerSettings())
    assert usual.temperature > 0
    greedy = sampling_for(carded, Options(temperature=0), AnswerSettings())
    assert (greedy.temperature, greedy.repetition_penalty) == (0, 1.0)


async def test_a_model_that_cannot_be_had_is_named(
    quick: None, fake_home: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> str:
        raise ModelError("there is no model of that name")

    monkeypatch.setattr("swisd.node.errands.import_model", fails)
    wants = replace(fake_home.settings, model=replace(fake_home.settings.model, id="other"))
    lone = Lone(fake_home)
    lone.device = LonelyDevice(fake_home.home, wants, KEY, lone.observed.append, 64 << 20)
    await lone.device.start()
    try:
        async with lone.asker() as link:
            with pytest.raises(SessionFailed, match="there is no model of that name"):
                await collect(link, "the sea", replace(GREEDY, patience=1.0))
    finally:
        await lone.device.stop()


async def test_an_answer_that_broke_off_goes_on_as_if_nothing_had_happened(
    lone: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real device: with sampling and a seed, in the middle of a prompt's answer."""
    options = replace(GREEDY, temperature=2.0, seed=7, max_tokens=20)
    async with lone.asker() as link:
        pieces, whole = await collect(link, "the sea", options)
        kept = KeptSession(
            "ab" * 8, lone.model.sha, "fake-4x16", tuple(ids_of(lone.model, "the sea")), whole.token_ids[:9],
            (), 20, 7, sampling_for(lone.model.manifest, options, SETTINGS),
        )  # fmt: skip
        keep(lone.model.home, kept)
        items = [item async for item in resume(link, kept, 20.0)]
    answer = items[-1]
    assert isinstance(answer, Answer) and (answer.token_ids, answer.text) == (whole.token_ids, whole.text)
    assert len(pieces) == 20 and not list(lone.model.home.sessions.iterdir())
