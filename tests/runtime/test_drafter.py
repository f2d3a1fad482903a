"""A small model that guesses: the tokens are its own, whatever text it was asked about before."""

from collections.abc import Callable
from typing import Any

import numpy as np

from swisd.runtime.drafter import Drafter
from swisd.runtime.kv import KvStore
from swisd.runtime.shard import Shard, Slot
from tests.tiny_models import VOCAB


def a_drafter(model: Any, max_tokens: int = 256) -> Drafter:
    return Drafter(model.manifest, model.blobs, threads=1, max_tokens=max_tokens)


def greedy(model: Any, ids: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The likeliest tokens, each by a pass over all before it."""
    manifest = model.manifest
    shard = Shard.load(manifest, 0, manifest.n_units, model.blobs, threads=1, store=KvStore(manifest, 256))
    said: list[int] = []
    for number in range(count):
        rows = np.array([*ids, *said], np.int64)
        logits = shard.run([Slot(str(number), 0, len(rows), 1)], rows)
        said.append(int(np.argmax(logits[-1])))
    return tuple(said)


def test_it_says_what_is_likeliest(imported: Callable[..., Any]) -> None:
    model = imported()
    ids = tuple(int(token) for token in np.random.default_rng(3).integers(0, VOCAB, 20))
    assert a_drafter(model).guess(ids, 6) == greedy(model, ids, 6)


def test_what_it_knows_of_a_text_before_changes_nothing(imported: Callable[..., Any]) -> None:
    model = imported()
    drafter = a_drafter(model)
    random = np.random.default_rng(4)
    ids = [int(token) for token in random.integers(0, VOCAB, 12)]
    for turn in range(12):
        said = drafter.guess(ids, 4)
        assert said == a_drafter(model).guess(ids, 4)
        right = (0, 2, 4)[turn % 3]
        ids = [*ids, *said[:right], int(random.integers(0, VOCAB))]  # some of it came true
    assert drafter.guess(ids[:5], 3) == a_drafter(model).guess(ids[:5], 3)
    assert drafter.guess(ids[:5], 3) == a_drafter(model).guess(ids[:5], 3)


def test_texts_that_are_too_long_or_not_of_its_tokens_are_not_guessed(imported: Callable[..., Any]) -> None:
    drafter = a_drafter(imported(), max_tokens=16)
    assert drafter.guess((), 3) == () and drafter.guess((1, 2), 0) == ()
    assert drafter.guess((1, VOCAB), 3) == ()
    assert len(drafter.guess(tuple(range(1, 15)), 5)) == 2
    assert drafter.guess(tuple(range(1, 17)), 5) == ()
