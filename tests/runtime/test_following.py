"""Several rows of one session in one pass: the bits of one after the other, and nothing left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.core.errors import ModelError
from swisd.runtime import agreement, kv, mirrors, shard
from swisd.runtime.binding import Binding
from swisd.runtime.kv import KvStore
from swisd.runtime.shard import Shard, Slot
from tests.shards import Imported, through
from tests.tiny_models import VOCAB

PROMPT = np.random.default_rng(5).integers(0, VOCAB, 21)
TOKENS = np.random.default_rng(6).integers(0, VOCAB, 400)
Make = Callable[..., Imported]

needs_mirrors = pytest.mark.skipif(mirrors.mirrored(1, 1024, 64) is None, reason="no such memory here")


@pytest.fixture(autouse=True)
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test finds out anew what this device's kernels do."""
    monkeypatch.setattr(agreement, "_TRIED", {})


def begin(shards: list[Shard], session: str = "s") -> None:
    through(shards, Slot(session, 0, len(PROMPT), 1), PROMPT)


def following(shards: list[Shard], position: int, tokens: np.ndarray, session: str = "s") -> np.ndarray:
    """One-row slots of one session in one step; logits float32 [tokens, vocab]."""
    x = np.asarray(tokens, np.int64)
    for part in shards:
        x = part.run([Slot(session, position + n, 1, 1) for n in range(len(tokens))], x)
    return x


def one_by_one(shards: list[Shard], position: int, tokens: np.ndarray, session: str = "s") -> np.ndarray:
    rows = [through(shards, Slot(session, position + n, 1, 1), [t]) for n, t in enumerate(tokens)]  # type: ignore[arg-type]
    return np.concatenate(rows)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each pass over mirrors that runs, trials aside."""
    seen: list[int] = []
    run = Shard.run_mirrored

    def counted(self: Shard, slots: Any, x: Any) -> Any:
        found = run(self, slots, x)
        if found is not None and slots[0].session != "trial":
            seen.append(len(slots))
        return found

    monkeypatch.setattr(Shard, "run_mirrored", counted)
    return seen


@needs_mirrors
@pytest.mark.parametrize("cuts", [(), (2,), (1, 3, 4)])
@pytest.mark.parametrize(("kind", "architecture"), [("Q4_1", "llama"), ("Q4_0", "qwen2"), ("Q6_K", "gemma3")])
def test_rows_in_one_pass_have_the_bits_of_one_after_the_other(
    imported: Make,
    monkeypatch: pytest.MonkeyPatch,
    passes: list[int],
    kind: str,
    architecture: str,
    cuts: tuple[int, ...],
) -> None:
    monkeypatch.setattr(kv, "STEP", 8)  # buffers grow meanwhile
    model = imported(architecture, kind)
    shards, plain = model.shards(*cuts), model.shards(*cuts)
    begin(shards)
    begin(plain)
    position = len(PROMPT)
    for count in (2, 3, 1, 8, 11, 1, 2, 9, 1):
        tokens = TOKENS[position : position + count]
        got, expected = following(shards, position, tokens), one_by_one(plain, position, tokens)
        assert np.array_equal(got, expected), count
        position += count
    of_one = [2, 3, 8, 8, 3, 2, 8, 1]
    assert sorted(passes) == sorted(of_one * sum(bool(part.layers) for part in shards))
    for mine, theirs in zip(shards, plain, strict=True):
        if mine.layers:
            units = mine.layers.start, mine.layers.stop
            rows = [part.store.read("s", units, 0, position) for part in (mine, theirs)]
            assert np.array_equal(*rows)
            assert mine.store.length("s", units) == position


@pytest.mark.parametrize("threads", [1, 2])
def test_wrong_guesses_leave_nothing_behind(imported: Make, threads: int) -> None:
    """A session goes back behind rows that were not wanted, and on with others, in any mixture."""
    model = imported()
    store = KvStore(model.manifest, 512)
    guessing = [Shard.load(model.manifest, 0, 5, model.blobs, threads=threads, store=store)]
    plain = model.shards()
    begin(guessing)
    begin(plain)
    position, rng = len(PROMPT), np.random.default_rng(1)
    for _ in range(12):
        right = int(rng.integers(1, 5))
        tokens = TOKENS[position : position + right]
        wrong = rng.integers(0, VOCAB, int(rng.integers(0, 8)))
        got = following(guessing, position, np.concatenate([tokens, wrong]))
        assert np.array_equal(got[:right], one_by_one(plain, position, tokens))
        position += right
    assert np.array_equal(one_by_one(guessing, position, TOKENS[:3]), one_by_one(plain, position, TOKENS[:3]))
    ids = TOKENS[:7]  # a pass of many rows over the same memory
    last = [through(part, Slot("s", position, 7, 7), ids) for part in (guessing, plain)]
    assert np.array_equal(*last)


@needs_mirrors
def test_caches_grow_where_rows_come_together(imported: Make, passes: list[int]) -> None:
    """Past 256 positions, in a pass of several rows and in one of a single row; up to the last position."""
    model = imported()
    for first in (3, 1):
        shards, plain = model.shards(2, max_tokens=300), model.shards(2, max_tokens=300)
        long = np.resize(PROMPT, 250)
        for line in (shards, plain):
            through(line, Slot("s", 0, 250, 1), long)
        position = 250
        for count in (2, 4, first, 5, 8, 8, 8, 8, 6 - first):
            tokens = TOKENS[position : position + count]
            got = following(shards, position, tokens)
            assert np.array_equal(got, one_by_one(plain, position, tokens))
            position += count
            store = shards[0].store
            rows = store.rows("s", 1)
            assert rows is not None and rows.mirrors and store.nbytes() == rows.nbytes
        assert position == 299 and rows.capacity >= 300
        with pytest.raises(ModelError, match="allows 300"):
            following(shards, 299, TOKENS[:2])
    assert passes


def test_sessions_mix_in_a_step(imported: Make) -> None:
    """Rows of two, between them single rows of others, in any order; who wants no answer has none."""
    model = imported()
    for cuts in ((), (3,), (4,)):
        shards, plain = model.shards(*cuts), model.shards(*cuts)
        for line in (shards, plain):
            for session in "abcd":
                begin(line, session)
        at = len(PROMPT)
        for step in range(3):
            sessions = ["a", "c", "b", "a", "b", "d", "a", "b"]
            counted: dict[str, int] = {}
            slots, number = [], at + 3 * step
            for n, session in enumerate(sessions):
                behind = counted[session] = counted.get(session, -1) + 1
                start = number if session in "ab" else at + step
                slots.append(Slot(session, start + behind, 1, int(n not in (0, 5))))
            ids = TOKENS[step * 10 : step * 10 + len(slots)]
            x = ids
            for part in shards:
                x = part.run(slots, x)
            expected = [through(plain, slot, ids[n : n + 1]) for n, slot in enumerate(slots)]
            assert np.array_equal(x, np.concatenate(expected))
            assert len(x) == 6


def test_memory_of_such_sessions_is_read_written_forked_and_pooled(imported: Make) -> None:
    model = imported()
    (part,) = shards = model.shards()
    plain = model.shards()
    store, units, at = part.store, (1, 4), len(PROMPT)
    for line in (shards, plain):
        for session in "st":
            begin(line, session)
    each = store.nbytes() // 2
    following(shards, at, TOKENS[:6])
    one_by_one(plain, at, TOKENS[:6])
    rows = store.read("s", units, 0, at + 6)
    assert np.array_equal(rows, plain[0].store.read("s", units, 0, at + 6))
    assert store.nbytes() == 2 * each  # once, however often it is to be seen

    store.fork("s", "copy", at + 4, keep=True)
    store.fork("s", "moved", at + 4, keep=False)
    expected = one_by_one(plain, at + 4, TOKENS[10:14])
    for session in ("copy", "moved"):
        assert np.array_equal(following(shards, at + 4, TOKENS[10:14], session), expected)

    store.write("moved", units, at + 2, rows[:, at + 2 : at + 6])
    assert np.array_equal(store.read("moved", units, 0, at + 6), rows)
    expected = one_by_one(plain, at + 6, TOKENS[20:23])  # of another past
    one_by_one(plain, at + 4, TOKENS[4:6])
    expected = one_by_one(plain, at + 6, TOKENS[20:23])
    assert np.array_equal(following(shards, at + 6, TOKENS[20:23], "moved"), expected)

    # Beside another session in a pool, and out of it again.
    for step in range(3):
        slots = [Slot("moved", at + 9 + step, 1, 1), Slot("t", at + step, 1, 1)]
        got = part.run(slots, TOKENS[step : step + 2])
        mine = through(plain, Slot("s", at + 9 + step, 1, 1), TOKENS[step : step + 1])
        theirs = through(plain, Slot("t", at + step, 1, 1), TOKENS[step + 1 : step + 2])
        assert np.array_equal(got, np.concatenate([mine, theirs]))
    held = store.rows("moved", 1)
    assert held is not None and held.pool is not None
    expected = one_by_one(plain, at + 12, TOKENS[30:35])
    assert np.array_equal(following(shards, at + 12, TOKENS[30:35], "moved"), expected)
    held = store.rows("t", 1)
    assert held is not None and held.pool is not None
    expected = one_by_one(plain, at + 3, TOKENS[40:42], "t")
    assert np.array_equal(following(shards, at + 3, TOKENS[40:42], "t"), expected)

    store.keep([(2, 4)])
    assert store.length("moved", (2, 4)) == at + 17
    for session in ("copy", "moved", "t"):
        store.drop(session)
    assert store.nbytes() == 0


def test_another_shard_takes_such_a_session_over(imported: Make) -> None:
    model = imported()
    store, plain = KvStore(model.manifest, 512), model.shards()
    whole = [model.shard(0, 5, store)]
    begin(whole)
    begin(plain)
    at = len(PROMPT)
    following(whole, at, TOKENS[:4])
    expected = one_by_one(plain, at, TOKENS[:20])
    whole[0].close()
    halves = [model.shard(0, 3, store), model.shard(3, 5, store)]
    assert np.array_equal(following(halves, at + 4, TOKENS[4:9]), expected[4:9])
    others = [model.shard(0, 2, store), model.shard(2, 5, store)]  # over the same rows, beside them
    for n in range(9, 17, 2):
        line = halves if n % 4 == 1 else others
        assert np.array_equal(following(line, at + n, TOKENS[n : n + 2]), expected[n : n + 2])


# --- where it cannot be ---------------------------------------------------------------------------------


def no_memory(*_: int) -> None:
    return None


def no_agreement(*_: object) -> bool:
    return False


@pytest.mark.parametrize("why", ["no memory", "none any more", "kernels disagree", "old and several threads"])
def test_rows_run_one_after_the_other_where_one_pass_cannot_be(
    imported: Make, monkeypatch: pytest.MonkeyPatch, passes: list[int], why: str
) -> None:
    model = imported()
    threads = 1
    if why == "no memory":
        monkeypatch.setattr(kv, "mirrored", no_memory)
    elif why == "kernels disagree":
        monkeypatch.setattr(shard, "mirrors_agree", no_agreement)
    elif why == "old and several threads":
        threads = 2
        monkeypatch.setattr(shard, "version", lambda: (1, 31))
    store = KvStore(model.manifest, 512)
    line = [Shard.load(model.manifest, 0, 5, model.blobs, threads=threads, store=store)]
    plain = model.shards()
    begin(line)
    begin(plain)
    if why == "none any more":
        assert line[0].mirrors or mirrors.mirrored(1, 1024, 64) is None
        monkeypatch.setattr(mirrors, "MOST_MAPPINGS", 0)
    at = len(PROMPT)
    expected = one_by_one(plain, at, TOKENS[:11])
    assert np.array_equal(following(line, at, TOKENS[:11]), expected)
    assert passes == []
    rows = store.rows("s", 1)
    assert rows is not None and rows.mirrors is None


@needs_mirrors
def test_memory_that_ends_in_the_middle_changes_no_bits(
    imported: Make, monkeypatch: pytest.MonkeyPatch, passes: list[int]
) -> None:
    (line,), plain = model_lines(imported)
    assert line.mirrors
    asked: list[int] = []
    real = mirrors.mirrored

    def scarce(*shape: int) -> Any:
        asked.append(1)
        return real(*shape) if len(asked) != 4 else None  # the second layer's values, this once

    monkeypatch.setattr(kv, "mirrored", scarce)
    at = len(PROMPT)
    expected = one_by_one(plain, at, TOKENS[:20])
    assert np.array_equal(following([line], at, TOKENS[:9]), expected[:9])
    assert np.array_equal(one_by_one([line], at + 9, TOKENS[9:12]), expected[9:12])
    assert passes == []
    assert np.array_equal(following([line], at + 12, TOKENS[12:20]), expected[12:])
    assert passes == [8]


def model_lines(imported: Make) -> tuple[list[Shard], list[Shard]]:
    model = imported()
    lines = model.shards(), model.shards()
    for line in lines:
        begin(line)
    return lines


@needs_mirrors
def test_the_trial_sees_kernels_that_disagree_and_rows_that_are_not_written(
    imported: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Shard.run_mirrored

    def other_bits(self: Shard, slots: Any, x: Any) -> Any:
        return [rows + 1e-6 for rows in run(self, slots, x) or ()]

    def unwritten(self: Shard, slots: Any, x: Any) -> Any:
        """Entries that read what was in the cache before, as in a race that is lost."""
        mine = self.store.mirror("trial", self.layers, 1)
        assert mine is not None and mine[0].mirrors
        kept = [(rows, rows.key.copy(), rows.value.copy()) for rows in mine]
        found = run(self, slots, x)
        for rows, key, value in kept:
            rows.key[...], rows.value[...] = key, value
        return found

    for wrong in (other_bits, unwritten):
        (line,) = imported().shards()
        with monkeypatch.context() as patch:
            patch.setattr(Shard, "run_mirrored", wrong)
            patch.setattr(agreement, "_TRIED", {})
            assert not line.mirrors
        assert line.store.nbytes() == 0
        assert line.store.length(agreement.TRIAL, (1, 4)) == 0
    short = imported().shards(max_tokens=mirrors.ROWS)[0]
    assert not short.mirrors  # no room to try it
    (line,) = imported().shards()
    assert line.mirrors


def test_what_was_tried_of_a_model_is_not_tried_again(
    imported: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ran = imported(), list[tuple[int, int]]()
    trial = agreement._sessions_agree

    def counted(part: Shard) -> bool | None:
        ran.append(part.units)
        return trial(part)

    monkeypatch.setattr(agreement, "_sessions_agree", counted)
    for units in ((0, 2), (2, 4), (4, 5), (1, 5), (0, 5)):
        assert model.shard(*units, KvStore(model.manifest, 64)).batches
    assert ran == [(0, 2), (4, 5)]  # layers, and the head


def test_a_pass_that_fails_leaves_what_it_would_not_have_written(
    imported: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,), plain = model_lines(imported)
    at = len(PROMPT)
    expected = one_by_one(plain, at, TOKENS[:8])
    following([line], at, TOKENS[:4])

    def fails(*_: Any) -> Any:
        raise RuntimeError("the pass")

    with monkeypatch.context() as patch:
        patch.setattr(Binding, "run", fails)
        with pytest.raises(RuntimeError, match="the pass"):
            following([line], at + 3, TOKENS[3:6])
    assert line.store.length("s", (1, 4)) == at + 3
    assert np.array_equal(following([line], at + 3, TOKENS[3:8]), expected[3:])


@pytest.mark.parametrize(
    "slots",
    [
        [Slot("s", 21, 1, 1), Slot("s", 23, 1, 1)],
        [Slot("s", 21, 1, 1), Slot("s", 20, 1, 1)],
        [Slot("s", 21, 1, 1), Slot("s", 21, 1, 1)],
        [Slot("s", 21, 2, 1), Slot("s", 23, 1, 1)],
        [Slot("s", 21, 1, 1), Slot("s", 22, 2, 1)],
        [Slot("s", 21, 1, 1), Slot("t", 0, 1, 1), Slot("s", 23, 1, 1)],
    ],
)
def test_rows_that_do_not_follow_each_other_are_refused(imported: Make, slots: list[Slot]) -> None:
    (line,), _ = model_lines(imported)
    with pytest.raises(ModelError, match="positions in a row"):
        line.run(slots, np.zeros(sum(slot.rows for slot in slots), np.int64))
    with pytest.raises(ModelError, match="only 21 tokens"):
        line.run([Slot("s", 22, 1, 1), Slot("s", 23, 1, 1)], np.zeros(2, np.int64))
    assert line.store.length("s", (1, 4)) == 21


# --- the memory itself ----------------------------------------------------------------------------------


@needs_mirrors
def test_what_is_written_to_one_entry_is_in_all() -> None:
    array = mirrors.mirrored(2, 1024, 32)
    assert array is not None and array.shape == (mirrors.ROWS, 2, 1024, 32) and array.flags.c_contiguous
    assert not array.any()
    array[3, 1, 7] = 5
    assert (array[:, 1, 7] == 5).all() and array.sum() == 5 * 32 * mirrors.ROWS
    part = array[:1, :, :3]
    del array
    part[...] = 2  # a view is enough to keep it
    assert part.sum() == 2 * part.size


def test_what_is_not_whole_pages_is_not_mapped() -> None:
    assert mirrors.mirrored(1, 7, 3) is None
    for position_bytes in (768, 12, 4096, 10_000, 64):
        for capacity in (1, 255, 256, 500):
            found = mirrors.fitting(capacity, position_bytes)
            assert found >= capacity and found * position_bytes % mirrors.mmap.PAGESIZE == 0
    assert mirrors.fitting(256, 768) == 256


@pytest.mark.parametrize("lacking", ["memfd_create", "mmap", "room"])
def test_a_system_that_cannot_do_it_says_so(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    before = open_files()
    if lacking == "memfd_create":
        monkeypatch.delattr(mirrors.os, "memfd_create", raising=False)
    elif lacking == "mmap":

        def none(*_: Any, **__: Any) -> Any:
            raise OSError("no C library")

        monkeypatch.setattr(mirrors.ctypes, "CDLL", none)
        mirrors._libc.cache_clear()
    else:

        def full(*_: Any) -> Any:
            raise OSError("no space")

        monkeypatch.setattr(mirrors.os, "ftruncate", full)
    assert mirrors.mirrored(1, 1024, 64) is None
    assert open_files() == before


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("swisd-kv")


@needs_mirrors
@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="no /proc")
def test_no_mapping_and_no_file_outlives_its_session(imported: Make) -> None:
    model = imported()
    (part,) = line = model.shards()
    for session in "ab":
        begin(line, session)
    files, before = open_files(), mappings()
    at = len(PROMPT)
    for session in "ab":
        for count in (2, 3, 8):
            following(line, at, TOKENS[:count], session)
            one_by_one(line, at + count, TOKENS[:2], session)
    each = 2 * mirrors.ROWS * len(part.layers)
    assert mappings() == before + 2 * each and open_files() == files
    through(line, Slot("a", at, 300, 1), TOKENS[:300])  # grows
    assert mappings() == before + 2 * each
    part.store.keep([(0, 3)])
    assert mappings() == before + 4 * each // len(part.layers)
    part.store.drop("a")
    assert mappings() == before + 2 * each // len(part.layers)
    part.store.drop("b")
    assert mappings() == before and open_files() == files
