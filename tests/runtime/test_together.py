"""One-row steps of several sessions in one pass: the bits of each alone, whoever comes and goes."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from swisd.runtime import agreement, kv
from swisd.runtime.grouping import Grouping
from swisd.runtime.kv import KvStore
from swisd.runtime.shard import Shard, Slot
from tests.shards import through
from tests.tiny_models import VOCAB

STEPS = 30


class Chat:
    """A session: its prompt, its greedy tokens so far."""

    def __init__(self, number: int) -> None:
        self.name = f"s{number}"
        self.prompt = np.random.default_rng(number).integers(0, VOCAB, 2 + 5 * number)
        self.tokens: list[int] = []

    def begin(self, shards: list[Shard]) -> None:
        rows = len(self.prompt)
        self.tokens.append(int(through(shards, Slot(self.name, 0, rows, 1), self.prompt).argmax()))

    @property
    def slot(self) -> Slot:
        return Slot(self.name, len(self.prompt) + len(self.tokens) - 1, 1, 1)


def together(shards: list[Shard], chats: list[Chat]) -> None:
    x = np.array([chat.tokens[-1] for chat in chats])
    for shard in shards:
        x = shard.run([chat.slot for chat in chats], x)
    for chat, logits in zip(chats, x, strict=True):
        chat.tokens.append(int(logits.argmax()))


def alone(shards: list[Shard], number: int) -> list[int]:
    chat = Chat(number)
    chat.begin(shards)
    for _ in range(STEPS):
        together(shards, [chat])
    return chat.tokens


@pytest.mark.parametrize("cuts", [(), (2,), (1, 3, 4)])
@pytest.mark.parametrize(("kind", "architecture"), [("Q4_1", "llama"), ("Q4_0", "qwen2"), ("Q6_K", "gemma3")])
def test_any_company_gives_the_tokens_of_each_alone(
    imported: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    architecture: str,
    cuts: tuple[int, ...],
) -> None:
    monkeypatch.setattr(kv, "STEP", 8)  # buffers grow while sessions share them
    model = imported(architecture, kind)
    expected = [alone(model.shards(*cuts), number) for number in range(6)]
    shards, rng = model.shards(*cuts), random.Random(1)
    assert all(shard.batches for shard in shards)
    chats = [Chat(number) for number in range(6)]
    company: list[Chat] = []
    while any(len(chat.tokens) <= STEPS for chat in chats):
        if rng.random() < 0.3 or not company:  # otherwise the same once more
            company = rng.sample(chats, rng.randint(1, 6))
        company = [chat for chat in company if len(chat.tokens) <= STEPS]
        for chat in company:
            if not chat.tokens:
                chat.begin(shards)
        if company:
            together(shards, company)
    assert [chat.tokens[: STEPS + 1] for chat in chats] == expected


def test_steps_that_want_no_answer_run_along(imported: Callable[..., Any]) -> None:
    """Tokens that are run again after a loss, beside others that go on."""
    for cuts in ((), (3,), (4,)):
        shards = imported().shards(*cuts)
        a, b, c = chats = [Chat(number) for number in range(1, 4)]
        for chat in chats:
            chat.begin(shards)
        before = shards[0].store
        for _ in range(3):
            x = np.array([chat.tokens[-1] for chat in chats])
            slots = [Slot(chat.name, chat.slot.position, 1, int(chat is not b)) for chat in chats]
            for shard in shards:
                x = shard.run(slots, x)
            assert len(x) == 2
            a.tokens.append(int(x[0].argmax()))
            c.tokens.append(int(x[1].argmax()))
            b.tokens.append(7)
        assert [a.tokens, c.tokens] == [alone(shards, 1)[:4], alone(shards, 3)[:4]]
        assert before.length("s2", (1, 2)) == len(b.prompt) + 3


def test_memory_comes_back_when_sessions_leave_a_pool(imported: Callable[..., Any]) -> None:
    model = imported()
    (shard,) = model.shards()
    store = shard.store
    chats = [Chat(number) for number in range(4)]
    for chat in chats:
        chat.begin(shard_list := [shard])
    each = store.nbytes() // 4
    for _ in range(3):
        together(shard_list, chats)
    assert store.nbytes() == 4 * each
    store.drop("s1")
    assert store.nbytes() == 3 * each
    del chats[1]
    for _ in range(3):
        together(shard_list, chats)
    for chat in chats:
        store.drop(chat.name)
    assert store.nbytes() == 0


def test_a_device_whose_kernels_disagree_runs_each_alone(
    imported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ONNX Runtime's fp32 products do: one kernel for a row, another for several."""
    shards = imported("llama", "F32").shards(2)
    run = Shard.run_group
    calls: list[int] = []

    def wrong(self: Shard, group: Any, slots: Any, x: Any) -> Any:
        calls.append(len(slots))
        return {number: rows + 1e-6 for number, rows in run(self, group, slots, x).items()}

    monkeypatch.setattr(Shard, "run_group", wrong)
    chats = [Chat(number) for number in range(1, 4)]
    for chat in chats:
        chat.begin(shards)
    for _ in range(STEPS):
        together(shards, chats)
    assert calls == [agreement.COMPANY] * 2  # tried once a shard
    assert [chat.tokens for chat in chats] == [alone(shards, number) for number in range(1, 4)]
    assert shards[0].store.length("trial 0", (1, 2)) == 0


# --- who is grouped -----------------------------------------------------------------------------------


@pytest.fixture
def store(imported: Callable[..., Any]) -> KvStore:
    store = KvStore(imported().manifest, 300)
    for number in range(5):
        store.write(f"s{number}", (1, 4), 0, np.zeros((3, 10 + number, store.width), np.float32))
    return store


def names(*numbers: int) -> list[str]:
    return [f"s{number}" for number in numbers]


def sizes(grouping: Grouping, *numbers: int) -> list[int]:
    totals = [11 + number for number in numbers]
    return [group.count for group in grouping.groups(names(*numbers), totals)]


def test_sessions_are_brought_together_the_second_time(store: KvStore) -> None:
    grouping = Grouping(store, range(1, 4))
    assert sizes(grouping, 0, 1, 2, 3) == [1, 1, 1, 1]
    assert sizes(grouping, 0, 1, 2, 3) == [4]
    assert sizes(grouping, 3, 0, 2, 1) == [4]  # in any order
    assert sizes(grouping, 0, 1, 3) == [4]  # 2 runs along: that costs less than another pass
    assert sizes(grouping, 0, 3) == [1, 1]  # two of four is too much
    assert sizes(grouping, 0, 3) == [2]  # but these two stay together, as it seems
    assert sizes(grouping, 1, 2, 4) == [2, 1]


def test_a_place_without_room_does_not_run_along(store: KvStore) -> None:
    grouping = Grouping(store, range(1, 4))
    pool = store.pool(names(0, 1, 2), range(1, 4), 256)
    store.write("s1", (2, 3), 11, np.zeros((1, pool.capacity - 11, store.width), np.float32))
    assert sizes(grouping, 0, 2) == [1, 1]


def test_what_runs_along_writes_beyond_what_is_valid(store: KvStore) -> None:
    grouping = Grouping(store, range(1, 4))
    store.pool(names(0, 1, 2), range(1, 4), 20)
    store.write("s1", (2, 3), 11, np.zeros((1, 5, store.width), np.float32))
    (group,) = grouping.groups(names(0, 2), [11, 13])
    assert group.others == ((1, 16),)
    store.drop("s1")
    (group,) = grouping.groups(names(0, 2), [11, 13])
    assert group.others == ((1, 0),)


def test_sessions_in_part_of_the_layers_are_on_their_own(store: KvStore) -> None:
    grouping = Grouping(store, range(1, 4))
    store.write("new", (1, 2), 0, np.zeros((1, 4, store.width), np.float32))
    for _ in range(3):
        assert [group.count for group in grouping.groups(["new", "s0"], [5, 11])] == [1, 1]
