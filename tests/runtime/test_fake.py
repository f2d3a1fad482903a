"""The fake keeps the promises of the real shard, and notices every mistake of its user."""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from swisd.core.errors import ModelError
from swisd.core.model import Manifest
from swisd.runtime.fake import EOS_ID, FakeShard, fake_manifest, write_fake_blobs
from swisd.runtime.kv import KvStore
from swisd.runtime.slots import Slot
from swisd.text.tokenizer import load_tokenizer

M = fake_manifest()


def shards(*cuts: int) -> list[FakeShard]:
    edges = [0, *cuts, M.n_units]
    return [
        FakeShard.load(M, start, end, Path("nowhere"), threads=1, store=KvStore(M, 100))
        for start, end in pairwise(edges)
    ]


def step(pipeline: list[FakeShard], position: int, ids: list[int], logits: int = 1) -> np.ndarray:
    x = np.array(ids, np.int64)
    for shard in pipeline:
        x = shard.run([Slot("s", position, len(ids), logits)], x)
    return x


def tokens(pipeline: list[FakeShard], prompt: list[int], steps: int) -> list[int]:
    out = [int(step(pipeline, 0, prompt).argmax())]
    for number in range(steps):
        out.append(int(step(pipeline, len(prompt) + number, out[-1:]).argmax()))
    return out


@pytest.mark.parametrize("cuts", [(1,), (7,), (1, 7), (3, 4), (1, 2, 3, 4, 5, 6, 7)])
def test_any_cut_gives_the_same_bits(cuts: tuple[int, ...]) -> None:
    prompt = [5, 9, 2, 33]
    assert np.array_equal(step(shards(*cuts), 0, prompt, 4), step(shards(), 0, prompt, 4))
    assert tokens(shards(*cuts), prompt, 20) == tokens(shards(), prompt, 20)


def test_streams_vary_and_never_end_by_themselves() -> None:
    stream = tokens(shards(), [1, 2, 3], 60)
    assert EOS_ID not in stream
    assert len(set(stream)) > 20


def test_chunks_and_repeats_change_nothing() -> None:
    pipeline = shards(3)
    step(pipeline, 0, [5, 9], 0)
    split = step(pipeline, 2, [2, 33])
    assert np.array_equal(split, step(shards(), 0, [5, 9, 2, 33]))
    assert np.array_equal(step(pipeline, 2, [2, 33]), split)


def test_a_lost_or_wrong_row_changes_what_follows() -> None:
    right = step(shards(), 0, [5, 9, 2, 33])
    for wrong in ([5, 9, 33], [9, 5, 2, 33], [5, 9, 3, 33], [5, 9, 2, 2, 33]):
        assert not np.array_equal(step(shards(), 0, wrong), right)


def test_mistakes_are_refused_as_by_the_real_one() -> None:
    (whole,) = shards()
    with pytest.raises(ModelError, match="only 0 tokens"):
        step([whole], 4, [1])
    with pytest.raises(ModelError, match="allows 100"):
        step([whole], 0, [1] * 101)
    step([whole], 0, [1])
    assert whole.store.nbytes() > 0
    whole.store.drop("s")
    assert whole.store.nbytes() == 0
    whole.close()
    with pytest.raises(ModelError, match="closed"):
        step([whole], 0, [1])


def test_manifest_and_blobs(tmp_path: Path) -> None:
    assert Manifest.from_bytes(M.to_bytes()) == M
    write_fake_blobs(M, tmp_path)
    for blob in M.blobs:
        data = (tmp_path / blob.sha256).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (blob.sha256, blob.size)
    tokenizer = load_tokenizer((tmp_path / M.blobs[M.tokenizer].sha256).read_bytes())
    assert tokenizer.decode(tokenizer.encode("hi", special=False)) == "hi"
