"""KV caches of a device: rows outlive shards, travel to other devices, and change no bits."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.core.errors import ModelError
from swisd.core.model import Manifest
from swisd.runtime import kv as kv_module
from swisd.runtime.fake import FakeShard, fake_manifest
from swisd.runtime.kv import KvStore
from swisd.runtime.shard import Shard, Slot

M = fake_manifest(layers=4, hidden=16, context=600)
AnyShard = Shard | FakeShard


@dataclass(frozen=True)
class Kind:
    """One of the two sorts of shards, with a model of three layers (units 1 to 4)."""

    manifest: Manifest
    blobs: Path
    load: Callable[..., AnyShard]

    def store(self) -> KvStore:
        return KvStore(self.manifest, 512)

    def shard(self, start: int, end: int, store: KvStore) -> AnyShard:
        return self.load(self.manifest, start, end, self.blobs, threads=1, store=store)


@pytest.fixture(params=["real", "fake"])
def kind(request: pytest.FixtureRequest, imported: Callable[..., Any]) -> Kind:
    if request.param == "fake":
        return Kind(fake_manifest(layers=3), Path("nowhere"), FakeShard.load)
    model = imported()
    return Kind(model.manifest, model.blobs, Shard.load)


class Line:
    """A pipeline of shards, each over a store that it may share, and the greedy stream of one session."""

    def __init__(self, *shards: AnyShard) -> None:
        self.shards = list(shards)
        self.position = 0
        self.last = np.empty(0)

    def run(self, ids: Any) -> np.ndarray:
        x = np.asarray(ids, np.int64)
        slot = Slot("s", self.position, len(x), 1)
        for shard in self.shards:
            x = shard.run([slot], x)
        self.position += slot.rows
        self.last = x
        return x

    def decode(self, steps: int) -> np.ndarray:
        return np.concatenate([self.run(self.last.argmax(axis=1)) for _ in range(steps)])


PROMPT = [3, 14, 15, 9, 26, 5, 35, 8]


def undisturbed(kind: Kind, steps: int) -> np.ndarray:
    line = Line(kind.shard(0, 5, kind.store()))
    line.run(PROMPT)
    return line.decode(steps)


@pytest.mark.parametrize("units", [(2, 4), (1, 3), (2, 3), (1, 4)])
def test_rows_that_moved_to_another_device_give_the_same_bits(kind: Kind, units: tuple[int, int]) -> None:
    expected = undisturbed(kind, 12)
    mine, theirs = kind.store(), kind.store()
    start, end = units
    line = Line(kind.shard(0, start, mine), kind.shard(start, end, mine), kind.shard(end, 5, mine))
    line.run(PROMPT)
    got = [line.decode(5)]
    rows = mine.read("s", units, 0, line.position)
    assert rows.shape == (end - start, 13, mine.width) and rows.dtype == np.float32
    sent = np.frombuffer(rows.tobytes(), "<f4").reshape(rows.shape)  # as it comes from a frame
    theirs.write("s", units, 0, sent[:, :6])
    theirs.write("s", units, 6, sent[:, 6:])  # in two parts
    assert theirs.length("s", units) == 13
    line.shards[1] = kind.shard(start, end, theirs)
    got.append(line.decode(7))
    assert np.array_equal(np.concatenate(got), expected)


def test_a_wrong_row_would_be_noticed(kind: Kind) -> None:
    expected = undisturbed(kind, 4)
    store, other = kind.store(), kind.store()
    line = Line(kind.shard(0, 5, store))
    line.run(PROMPT)
    for at in (0, 4, 7):
        for half in (0, 1):  # a key, a value
            rows = store.read("s", (1, 4), 0, 8)
            rows.reshape(3, 8, 2, -1)[:, at, half] += 10  # more than int8 activations swallow
            other.write("s", (1, 4), 0, rows)
            wrong = Line(kind.shard(0, 5, other))
            wrong.position, wrong.last = 8, line.last
            assert not np.array_equal(wrong.decode(4), expected)


def test_a_session_outlives_its_shards(kind: Kind) -> None:
    """Other shards over the same layers take the rows up where they lie."""
    expected = undisturbed(kind, 12)
    store = kind.store()
    line = Line(kind.shard(0, 2, store), kind.shard(2, 5, store))
    line.run(PROMPT)
    got = [line.decode(6)]
    before = store.nbytes()
    for shard in line.shards:
        shard.close()
    line.shards = [kind.shard(0, 3, store), kind.shard(3, 5, store)]
    got.append(line.decode(6))
    assert np.array_equal(np.concatenate(got), expected)
    assert store.nbytes() == before


def test_shards_that_overlap_see_the_same_rows(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while caches grow under what each has bound."""
    monkeypatch.setattr(kv_module, "STEP", 8)
    expected = undisturbed(kind, 30)
    store = kind.store()
    lines = [
        [kind.shard(0, 2, store), kind.shard(2, 5, store)],
        [kind.shard(0, 3, store), kind.shard(3, 5, store)],
    ]
    line = Line(*lines[0])
    line.run(PROMPT)
    got = []
    for number in range(30):
        line.shards = lines[number % 2]
        got.append(line.decode(1))
    assert np.array_equal(np.concatenate(got), expected)


def test_rows_written_under_a_running_shard_are_used(kind: Kind) -> None:
    """A write truncates, also below what the shard has computed and bound."""
    store, saved = kind.store(), kind.store()
    line = Line(kind.shard(0, 5, store))
    line.run(PROMPT)
    first = line.decode(6)
    rows = store.read("s", (1, 4), 0, 8)
    saved.write("s", (1, 4), 0, rows)
    store.write("s", (1, 4), 0, rows)
    assert store.length("s", (0, 5)) == 8
    line.position, line.last = 8, undisturbed_last(kind)
    assert np.array_equal(line.decode(6), first)
    store.drop("s")
    store.write("s", (1, 4), 0, rows)
    line.position, line.last = 8, undisturbed_last(kind)
    assert np.array_equal(line.decode(6), first)
    with pytest.raises(ModelError, match="only 14 tokens"):
        line.shards[0].run([Slot("s", 15, 1, 1)], np.array([1]))


def test_layers_of_different_capacity_run_together(kind: Kind) -> None:
    store = kind.store()
    line = Line(kind.shard(0, 5, store))
    line.run(PROMPT)
    first = line.decode(1)
    ahead = np.ones((1, 400, store.width), np.float32)
    store.write("s", (2, 3), 9, ahead)  # past what the others have, and into larger buffers
    got = [first, line.decode(5)]
    assert np.array_equal(np.concatenate(got), undisturbed(kind, 6))
    assert store.length("s", (2, 3)) == 14


def undisturbed_last(kind: Kind) -> np.ndarray:
    line = Line(kind.shard(0, 5, kind.store()))
    return line.run(PROMPT)


def test_a_closed_shard_leaves_its_rows_and_nothing_else(kind: Kind) -> None:
    store = kind.store()
    line = Line(kind.shard(0, 5, store))
    line.run(PROMPT)
    line.decode(2)
    line.shards[0].close()
    with pytest.raises(ModelError, match="closed"):
        line.decode(1)
    assert store.length("s", (1, 4)) == 10
    gone = weakref.ref(line.shards.pop())
    assert gone() is None


def test_shard_and_store_do_not_hold_each_other(kind: Kind) -> None:
    """Weights are too much to wait for a collector of cycles."""
    line = Line(kind.shard(0, 5, kind.store()))
    line.run(PROMPT)
    line.decode(2)
    gone = [weakref.ref(line.shards[0].store), weakref.ref(line.shards[0])]
    line.shards.clear()
    assert [ref() for ref in gone] == [None, None]


# --- the store alone --------------------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[KvStore]:
    yield KvStore(M, 500)


def some(units: int, rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((units, rows, 32), np.float32)


def test_what_is_written_is_read(store: KvStore) -> None:
    rows = some(3, 300)
    store.write("s", (1, 4), 0, rows)
    assert np.array_equal(store.read("s", (1, 4), 0, 300), rows)
    assert np.array_equal(store.read("s", (2, 3), 100, 7), rows[1:2, 100:107])
    store.write("s", (2, 3), 299, some(1, 100, 1))  # grows this one alone
    assert [store.length("s", units) for units in ((1, 4), (2, 3), (1, 5), (0, 6))] == [300, 399, 0, 0]
    assert np.array_equal(store.read("s", (2, 3), 0, 299), rows[1:2, :299])
    copy = store.read("s", (1, 2), 0, 1)
    store.write("s", (1, 2), 0, some(1, 1, 2))
    assert np.array_equal(copy, rows[:1, :1]) and store.length("s", (1, 2)) == 1


def test_embedding_and_head_travel_as_zeros(store: KvStore) -> None:
    rows = some(6, 4)
    store.write("s", (0, 6), 0, rows)
    got = store.read("s", (0, 6), 0, 4)
    assert not got[[0, 5]].any() and np.array_equal(got[1:5], rows[1:5])


@pytest.mark.parametrize(
    ("units", "position", "rows", "words"),
    [
        ((1, 3), 5, some(2, 1), "come at 5, but only 4"),
        ((1, 3), -1, some(2, 1), "come at -1"),
        ((1, 3), 4, some(2, 497), "allows 500"),
        ((1, 3), 4, some(3, 1), r"float32 \[2, rows, 32\], not float32 \[3, 1, 32\]"),
        ((1, 3), 4, some(2, 1)[:, :, :30], "not float32"),
        ((1, 3), 4, some(2, 1).astype(np.float64), "not float64"),
        ((1, 3), 4, some(2, 0), "come at 4"),
        ((1, 4), 4, some(3, 1), "but only 0"),  # unit 3 has none of them
        ((3, 5), 0, some(2, 1), "unit 4 is not this device's"),
        ((0, 1), 0, some(1, 1), "keep no keys"),
        ((5, 6), 0, some(1, 1), "keep no keys"),
        ((4, 7), 0, some(3, 1), "do not exist"),
        ((2, 2), 0, some(0, 1), "do not exist"),
    ],
)
def test_rows_that_do_not_fit_change_nothing(
    store: KvStore, units: tuple[int, int], position: int, rows: np.ndarray, words: str
) -> None:
    store.keep([(0, 3), (3, 4)])
    kept = some(2, 4, 5)
    store.write("s", (1, 3), 0, kept)
    before = store.nbytes()
    with pytest.raises(ModelError, match=words):
        store.write("s", units, position, rows)
    assert np.array_equal(store.read("s", (1, 3), 0, 4), kept) and store.nbytes() == before
    assert store.length("s", (3, 4)) == 0


@pytest.mark.parametrize(
    ("session", "position", "rows"), [("s", 0, 5), ("s", 3, 2), ("t", 0, 1), ("s", 0, 0), ("s", -1, 2)]
)
def test_rows_that_are_not_here_are_not_read(store: KvStore, session: str, position: int, rows: int) -> None:
    store.write("s", (1, 3), 0, some(2, 4))
    with pytest.raises(ModelError, match="not here"):
        store.read(session, (1, 3), position, rows)


def test_memory_is_counted_and_given_back(store: KvStore) -> None:
    token = M.kv_bytes_per_token(1, 2)
    store.write("s", (1, 4), 0, some(3, 2))
    store.write("t", (1, 2), 0, some(1, 400))
    assert store.nbytes() == token * (3 * 256 + 500)  # no more than a session may hold
    store.keep([(2, 6)])
    assert store.nbytes() == token * 2 * 256
    assert store.length("s", (2, 4)) == 2 and store.length("s", (1, 4)) == store.length("t", (1, 2)) == 0
    store.write("s", (4, 5), 0, some(1, 2))
    with pytest.raises(ModelError, match="not this device's"):
        store.write("s", (1, 5), 0, some(4, 2))
    store.drop("s")
    store.drop("never seen")
    assert store.nbytes() == 0
    store.keep([])
    with pytest.raises(ModelError, match="not this device's"):
        store.write("s", (4, 5), 0, some(1, 2))


def test_what_is_bound_is_forgotten_with_any_of_its_buffers(store: KvStore) -> None:
    owner, other = object(), object()

    def bind() -> None:
        store.reserve("s", range(1, 5), 10)
        store.bind("s", owner, range(1, 3), "bound")
        store.bind("s", other, range(3, 5), "other")

    bind()
    store.write("s", (1, 3), 0, some(2, 200))
    assert (store.bound("s", owner), store.bound("t", owner)) == ("bound", None)
    for replace_one in (
        lambda: store.write("s", (2, 3), 200, some(1, 100)),
        lambda: store.reserve("s", range(2, 3), 501),
        lambda: store.keep([(1, 2), (3, 5)]),
    ):
        bind()
        replace_one()
        assert (store.bound("s", owner), store.bound("s", other)) == (None, "other")
    bind()
    store.unbind(owner)
    assert (store.bound("s", owner), store.bound("s", other)) == (None, "other")
    store.drop("s")
    assert store.bound("s", other) is None


def test_the_bound_on_sessions_can_change(store: KvStore) -> None:
    store.allow(10)
    store.write("s", (1, 2), 0, some(1, 10))
    with pytest.raises(ModelError, match="allows 10"):
        store.write("s", (1, 2), 10, some(1, 1))
    store.allow(1 << 20)
    assert store.max_tokens == M.context
    store.write("s", (1, 2), 10, some(1, 300))


@pytest.mark.parametrize("config", [{}, {"kv_heads": "two", "head_size": 8}, {"kv_heads": 0, "head_size": 8}])
def test_a_manifest_without_shapes_is_one_clear_line(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="KV cache"):
        KvStore(replace(M, config=config), 100)


@pytest.mark.parametrize("keep", [True, False])
def test_a_session_goes_on_with_the_rows_of_another_one(kind: Kind, keep: bool) -> None:
    """Its bits are those of a session that ran all of it; the other one is as it was, or gone."""
    store = kind.store()
    shard = kind.shard(0, kind.manifest.n_units, store)
    first, whole = (np.arange(n, dtype=np.int64) % 7 + 3 for n in (9, 14))
    shard.run([Slot("first", 0, 9, 1)], first)
    expected = shard.run([Slot("whole", 0, 14, 1)], whole)
    store.fork("first", "second", 6, keep=keep)
    got = shard.run([Slot("second", 6, 8, 1)], whole[6:])
    assert np.array_equal(got, expected)
    units = 0, kind.manifest.n_units
    assert store.length("first", units) == (9 if keep else 0)
    if keep:
        again = shard.run([Slot("first", 9, 5, 1)], whole[9:])
        assert np.array_equal(again, expected)
    for session in ("first", "second", "whole"):
        store.drop(session)
    assert store.nbytes() == 0


def test_rows_that_are_not_here_are_not_given_to_another_session(store: KvStore) -> None:
    store.write("a", (1, 3), 0, np.ones((2, 5, store.width), np.float32))
    before = store.nbytes()
    for source, session, end in (("b", "c", 1), ("a", "c", 6), ("a", "c", 0), ("a", "a", 2)):
        with pytest.raises(ModelError):
            store.fork(source, session, end, keep=True)
    assert store.nbytes() == before and store.length("a", (1, 3)) == 5
