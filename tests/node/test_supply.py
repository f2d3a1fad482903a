"""What a device gets from the others, over real sockets on loopback between two homes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.errors import ModelError
from swisd.core.messages import Digest, MemberView
from swisd.core.model import MAX_MANIFEST_BYTES, Manifest
from swisd.core.types import Units
from swisd.net.listener import Listener
from swisd.node.supply import Supply, _users
from swisd.runtime import fake
from swisd.store.protocol import Request
from swisd.store.server import BlobServer
from swisd.text.tokenizer import load_tokenizer
from swisd.wire.handshake import Purpose
from tests.node.fakes import KEY, FakeModel, sha_of

ME, ANN, BOB, CYD = "11" * 8, "22" * 8, "33" * 8, "44" * 8


def view(
    device: str, holds: tuple[tuple[str, int, int], ...] = (), *, port: int = 1, liveness: str = "alive",
    addresses: tuple[str, ...] = ("127.0.0.1",),
) -> MemberView:  # fmt: skip
    return MemberView(device, device, liveness, "ready", addresses, port, 0, True, 0, holds)  # type: ignore[arg-type]


def digest(*members: MemberView) -> Digest:
    return Digest(ANN, 1, 1, members)


class Swarm:
    """One home with a fake model behind a listener, and an empty one that knows of it."""

    def __init__(self, model: FakeModel, listener: Listener, server: BlobServer, folder: Path) -> None:
        self.model, self.listener, self.server = model, listener, server
        self.supply = Supply(folder / "blobs", folder / "models", KEY, ME)
        self.holders()

    def holders(self, units: int | None = None) -> None:
        span = (self.model.sha, 0, self.model.manifest.n_units if units is None else units)
        self.supply.on_digest(digest(view(ANN, (span,), port=self.listener.port)))

    async def manifest(self) -> Manifest:
        return await self.supply.manifest(self.model.sha, self.model.size)


@pytest.fixture
async def swarm(fake_home: FakeModel, tmp_path: Path) -> AsyncIterator[Swarm]:
    theirs = Supply(fake_home.home.blobs, fake_home.home.models, KEY, ANN)
    server = BlobServer(theirs.store)
    listener = await Listener.start("127.0.0.1", 0, KEY, {Purpose.STORE: server.serve})
    made = Swarm(fake_home, listener, server, tmp_path / "mine")
    yield made
    await made.supply.close()
    server.close()
    await listener.close()


async def test_a_manifest_comes_with_its_graph_and_makes_the_model_known(swarm: Swarm) -> None:
    assert await swarm.manifest() == swarm.model.manifest
    graph = swarm.model.manifest.blobs[swarm.model.manifest.graph]
    assert swarm.supply.store.has(graph.sha256)
    assert [entry.model_id for entry in swarm.supply.index.list()] == ["fake-4x16"]
    asked = swarm.server.counters.requests
    assert await swarm.manifest() == swarm.model.manifest
    assert swarm.server.counters.requests == asked


async def test_the_tokenizer_comes_alone(swarm: Swarm) -> None:
    manifest = await swarm.manifest()
    tokenizer = load_tokenizer(await swarm.supply.tokenizer(swarm.model.sha, manifest))
    assert tokenizer.vocab_size == 64
    assert len(swarm.supply.store.blobs()) == 3


async def test_the_units_of_a_stage_come_and_no_others(swarm: Swarm) -> None:
    manifest = await swarm.manifest()
    told: list[float] = []
    await swarm.supply.units(swarm.model.sha, manifest, [(1, 3)], told.append)
    assert told == sorted(told) and told[-1] == pytest.approx(1.0)
    assert swarm.supply.index.holding(manifest) == [(1, 3)]
    (held,) = swarm.supply.holdings()
    assert (held.model, held.model_id, held.model_bytes) == (swarm.model.sha, "fake-4x16", swarm.model.size)
    assert held.ranges == ((1, 3),)
    await swarm.supply.units(swarm.model.sha, manifest, [(0, 6)], told.append)
    assert swarm.supply.index.holding(manifest) == [(0, 6)]


async def test_a_range_is_ready_while_others_are_still_fetched(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = await swarm.manifest()
    last, told, first = manifest.blobs[manifest.units[4].blobs[0]].sha256, list[Units](), asyncio.Event()
    give = swarm.server._give

    async def gated(request: Request, *others: Any) -> None:
        if request.sha == last:
            await first.wait()
        await give(request, *others)

    def ready(units: Units) -> None:
        told.append(units)
        held = swarm.supply.index.holding(manifest)
        assert any(start <= units[0] and units[1] <= end for start, end in held)
        first.set()

    monkeypatch.setattr(swarm.server, "_give", gated)
    ranges = [(1, 2), (3, 5), (3, 5)]
    await asyncio.wait_for(swarm.supply.units(swarm.model.sha, manifest, ranges, lambda _: None, ready), 20)
    assert told == [(1, 2), (3, 5)]
    await swarm.supply.units(swarm.model.sha, manifest, [(2, 4), (4, 5)], lambda _: None, ready)
    assert told[2:] == [(4, 5), (2, 4)]


async def test_what_is_on_disk_is_ready_before_anything_is_fetched(
    fake_home: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply = Supply(fake_home.home.blobs, fake_home.home.models, KEY, ME)
    manifest, told, before = fake_home.manifest, list[Units](), list[list[Units]]()
    last = manifest.blobs[manifest.units[4].blobs[0]]

    async def fetch_all(*_: Any, **__: Any) -> None:
        before.append(list(told))

    monkeypatch.setattr(supply._fetcher, "fetch_all", fetch_all)
    ranges = [(3, 6), (0, 3), (1, 4)]
    await supply.units(fake_home.sha, manifest, ranges, lambda _: None, told.append)
    supply.store.path(last.sha256).write_bytes(bytes(last.size - 1))  # as a power cut leaves it
    await supply.units(fake_home.sha, manifest, ranges, lambda _: None, told.append)
    assert before == [ranges, [*ranges, (0, 3), (1, 4)]] and told == before[1]


async def test_a_device_that_is_named_is_found_if_it_is_up(tmp_path: Path) -> None:
    supply = Supply(tmp_path / "b", tmp_path / "m", KEY, ME)
    assert supply._addresses(ANN) == []
    supply.on_digest(
        digest(view(ANN, port=7, addresses=("a", "b")), view(BOB, liveness="dead"), view(ME, port=4))
    )
    assert [(one.host, one.port) for one in supply._addresses(ANN)] == [("a", 7), ("b", 7)]
    assert supply._addresses(BOB) == [] == supply._addresses(ME) == supply._addresses(CYD)
    await supply.close()


async def test_what_nobody_holds_is_an_error_that_says_so(swarm: Swarm) -> None:
    manifest = await swarm.manifest()
    swarm.holders(units=2)
    with pytest.raises(ModelError, match="on no device"):
        await swarm.supply.units(swarm.model.sha, manifest, [(3, 4)], lambda _: None)
    lonely = Supply(swarm.model.home.path / "b", swarm.model.home.path / "m", KEY, ME)
    with pytest.raises(ModelError, match="on no device"):
        await lonely.manifest(swarm.model.sha, swarm.model.size)


@pytest.mark.parametrize("name", ["", "x" * 64, "../../etc/passwd", "AB" * 32, "ab" * 31 + "\n"])
async def test_a_model_that_is_named_by_no_hash_is_refused(swarm: Swarm, name: str) -> None:
    with pytest.raises(ModelError, match="not a sha256"):
        await swarm.supply.manifest(name, 100)


async def test_a_manifest_that_is_said_to_be_huge_is_not_fetched(swarm: Swarm) -> None:
    with pytest.raises(ModelError, match="too large"):
        await swarm.supply.manifest("ab" * 32, MAX_MANIFEST_BYTES + 1)
    assert swarm.server.counters.requests == 0


async def test_what_has_the_right_name_and_is_no_manifest(swarm: Swarm) -> None:
    store = Supply(swarm.model.home.blobs, swarm.model.home.models, KEY, ANN).store
    for data in (b"no manifest", b"{}"):
        swarm.supply.on_digest(digest(view(ANN, ((sha_of(data), 0, 1),), port=swarm.listener.port)))
        with pytest.raises(ModelError, match="manifest"):
            await swarm.supply.manifest(store.put(data), len(data))
    assert swarm.supply.index.list() == []


def test_odd_files_in_a_home_are_not_offered_and_do_no_harm(fake_home: FakeModel) -> None:
    supply = Supply(fake_home.home.blobs, fake_home.home.models, KEY, ME)
    entry = (fake_home.home.models / "fake-4x16.json").read_text()
    (fake_home.home.models / "copy of it.json").write_text(entry.replace("fake-4x16", "copy of it"))
    (fake_home.home.models / "half.json").write_text(entry[:20])
    lost = entry.replace("fake-4x16", "lost").replace(fake_home.sha, "ab" * 32)
    (fake_home.home.models / "lost.json").write_text(lost)
    assert [held.model_id for held in supply.holdings()] == ["fake-4x16"]


def test_of_many_scattered_units_the_longest_runs_are_told(tmp_path: Path) -> None:
    model = FakeModel.in_home(tmp_path, layers=150)
    for number in range(2, 140, 2):
        (model.home.blobs / model.manifest.blobs[2 + number].sha256).unlink()
    (held,) = Supply(model.home.blobs, model.home.models, KEY, ME).holdings()
    assert len(held.ranges) == 64 and (139, 152) in held.ranges and (0, 2) in held.ranges
    assert list(held.ranges) == sorted(held.ranges)


async def test_who_has_most_is_asked_first_and_who_is_gone_not_at_all(tmp_path: Path) -> None:
    supply = Supply(tmp_path / "b", tmp_path / "m", KEY, ME)
    assert supply._holders("aa", None) == []
    supply.on_digest(
        digest(
            view(ANN, (("aa", 0, 2),), port=1), view(BOB, (("aa", 0, 3), ("aa", 4, 9)), port=2),
            view(CYD, (("bb", 0, 9),), port=3), view(ME, (("aa", 0, 9),), port=4),
            view("55" * 8, (("aa", 0, 9),), port=5, liveness="dead"),
            view("66" * 8, (("aa", 1, 2),), port=6, liveness="suspect", addresses=("a", "b", "c", "d")),
        )
    )  # fmt: skip
    ports = [source.port for source in supply._holders("aa", None)]
    assert ports == [2, 1, 6, 6, 6]
    assert [source.port for source in supply._holders("aa", (1,))] == [2, 1, 6, 6, 6]
    assert [source.port for source in supply._holders("aa", (3, 8))] == [2]
    assert supply._holders("aa", (3,)) == [] == supply._holders("cc", None)
    await supply.close()


@given(st.integers(1, 12), st.booleans())
def test_every_weight_names_the_units_that_need_it(layers: int, tied: bool) -> None:
    manifest = fake.fake_manifest(layers=layers)
    if not tied:
        manifest = replace(manifest, units=(*manifest.units[:-1], replace(manifest.units[-1], blobs=(3,))))
    users = _users(manifest)
    for number, unit in enumerate(manifest.units):
        for index in unit.blobs:
            assert number in users[manifest.blobs[index].sha256]
    assert sum(len(units) for units in users.values()) == sum(len(unit.blobs) for unit in manifest.units)
