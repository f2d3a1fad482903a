"""What a device says of itself, and how much memory it offers."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.cli.up import chosen_of_several
from swisd.core.checked import from_json, to_json
from swisd.core.local import capability_of
from swisd.core.types import Capability
from swisd.node import describe, memory
from swisd.node.describe import counts_of, describe_device, model_of, models_in
from swisd.node.home import Home
from swisd.node.settings import DEFAULT_MODEL, Settings
from swisd.runtime.fake import fake_manifest, write_fake_blobs
from swisd.store.disk import BlobStore
from swisd.store.models import ModelIndex

MIB = 1 << 20
AMOUNTS = st.integers(0, 1 << 45)


def test_the_home_and_the_settings_are_in_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    plain = Settings()
    settings = replace(
        plain,
        device=replace(plain.device, name="ann", threads=3),
        model=replace(plain.model, id="tiny", context=100),
    )
    config = describe_device(
        home, settings, claims="never", memory_bytes=64 * MIB, journal_bytes=MIB, port=7,
        addresses=("10.0.0.1",),
    )  # fmt: skip
    assert (config.memory_bytes, config.journal_bytes, config.spares) == (64 * MIB, MIB, True)
    assert (config.device, config.rank) == (home.identity().device, home.identity().since)
    assert (config.name, config.threads, config.model_id, config.claims) == ("ann", 3, "tiny", "never")
    assert not config.fewer
    assert config.min_context == config.context == 100  # no plan may be asked for more than there is to be


def test_a_home_serves_its_last_model_unless_it_is_told_another(tmp_path: Path) -> None:
    home, plain = Home(tmp_path), Settings()
    index = ModelIndex(home.models, BlobStore(home.blobs))

    def add(layers: int, at: int) -> str:
        manifest = fake_manifest(layers=layers)
        write_fake_blobs(manifest, home.blobs)
        name = index.add(BlobStore(home.blobs).put(manifest.to_bytes())).model_id
        os.utime(home.models / f"{name}.json", (at, at))
        return name

    assert model_of(home, plain) == DEFAULT_MODEL
    first = add(2, at=1)
    assert model_of(home, plain) == first and chosen_of_several(home, plain) == ""
    assert model_of(home, replace(plain, model=replace(plain.model, id="tiny"))) == "tiny"
    second = add(3, at=2)
    assert models_in(home, plain) == [first, second] and model_of(home, plain) == second  # the last one added
    assert chosen_of_several(home, plain) == (
        f"models here: {first}, {second}; {second} is offered, --model names another"
    )
    assert model_of(home, replace(plain, device=replace(plain.device, drafter=second))) == first
    add(2, at=3)
    assert model_of(home, plain) == first


def test_what_it_says_is_a_message_that_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "_usable_cores", lambda: set(range(5000)))
    monkeypatch.setattr(describe.platform, "machine", lambda: "m" * 200)
    config = describe_device(Home(tmp_path), Settings(), claims="at once", memory_bytes=MIB)
    said = capability_of(config)
    assert from_json(Capability, to_json(said)) == said
    assert config.threads == 1024 and config.fewer


@pytest.mark.parametrize(
    ("most", "counts"), [(1, (1,)), (2, (2, 1)), (6, (6, 3, 1)), (12, (12, 6, 3, 1)), (1024, None)]
)
def test_numbers_of_threads_to_try_halve_down_to_one(most: int, counts: tuple[int, ...] | None) -> None:
    found = counts_of(most)
    assert found == counts if counts else (found[0], found[-1], len(found)) == (1024, 1, 11)


@given(asked=AMOUNTS, free=AMOUNTS, held=AMOUNTS)
def test_an_offer_is_what_was_asked_for_and_never_more_than_there_is(
    asked: int, free: int, held: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "available_bytes", lambda: free)
        assert memory.offer(asked, held) == min(asked, free + held)
        assert memory.offer(None, held) <= free + held
        assert memory.offer(None, held) >= (free + held) * memory.SHARE - 1


def test_the_kernels_own_file_where_psutil_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "meminfo"
    table.write_text("MemTotal:       8000000 kB\nMemAvailable:   1234567 kB\nSwapFree:  1 kB\n")
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr(memory, "MEMINFO", table)
    assert memory.available_bytes() == 1234567 * 1024
    table.write_text("MemTotal:       8000000 kB\n")
    assert memory.available_bytes() == 0
    monkeypatch.undo()
    assert memory.available_bytes() > MIB
