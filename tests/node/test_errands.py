"""Errands: each ends in an event, a newer plan cancels an older load, leaving ends them all."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.core.config import DeviceConfig
from swisd.core.effects import (
    GetManifest,
    KeepShards,
    LoadShards,
    MeasureCompute,
    MeasureLinks,
    Notice,
    ProvideModel,
)
from swisd.core.errors import BadInput, ModelError
from swisd.core.events import (
    Event,
    HoldingsChanged,
    KvFailed,
    LinksMeasured,
    LoadFailed,
    LoadProgress,
    ManifestFailed,
    ManifestReady,
    Measured,
    ProvideFailed,
    ProvideProgress,
    ShardsLoaded,
)
from swisd.core.local import Local, capability_of
from swisd.core.rows import KvRows
from swisd.core.types import Profile, Units
from swisd.node import errands as errands_module
from swisd.node.errands import Errands
from swisd.node.profiles import remember
from swisd.node.supply import Supply
from swisd.transport.api import LaneDown, Probe
from tests.node.conftest import Until
from tests.node.fakes import KEY, MIB, FakeModel, Promptly, install_runtime

ME, ANN, BOB = "11" * 8, "22" * 8, "33" * 8


class Office:
    """The errands of a home, with what they posted."""

    def __init__(self, model: FakeModel, *, alone: bool = False) -> None:
        self.model = model
        self.events: list[Event] = []
        self.notices: list[Notice] = []
        config = DeviceConfig(ME, 1, "me", memory_bytes=1 << 30)
        self.local = Local(config, capability_of(config))
        self.supply = Supply(model.home.blobs, model.home.models, KEY, ME)
        self.compute = Promptly(model.home.blobs, model.home.path / "scratch", (1,), self._computed)
        self.errands = Errands(
            self.local, model.home, self.supply, self.compute, self.events.append, self.notices.append,
            alone=alone,
        )  # fmt: skip

    def _computed(self, events: Sequence[Event]) -> None:
        """As the node does."""
        for event in events:
            if isinstance(event, LoadFailed):
                self.errands.on_load_failed(event)
        self.events.extend(events)

    def load(self, epoch: int, *wanted: Units, keep: tuple[Units, ...] = ()) -> LoadShards:
        return LoadShards(epoch, self.model.sha, wanted or ((0, 6),), keep, 128)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def close(self) -> None:
        await self.errands.close()
        await self.supply.close()
        await self.compute.close()


@pytest.fixture
async def office(fake_home: FakeModel, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Office]:
    install_runtime(monkeypatch)
    made = Office(fake_home)
    yield made
    await made.close()


async def test_loading_ends_in_loaded_shards(office: Office, until: Until) -> None:
    office.errands.do(office.load(3))
    await until(lambda: office.of(ShardsLoaded))
    kinds = [type(event) for event in office.events]
    assert kinds.index(HoldingsChanged) < kinds.index(ShardsLoaded)
    assert office.of(LoadProgress)[0].epoch == 3
    assert office.of(ShardsLoaded)[0].epoch == 3


async def test_a_newer_plan_cancels_the_load_of_the_older(
    office: Office, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[asyncio.Future[None]] = []
    units = office.supply.units

    async def slow(*arguments: Any) -> None:
        waits.append(asyncio.get_running_loop().create_future())
        await waits[-1]
        await units(*arguments)

    monkeypatch.setattr(office.supply, "units", slow)
    office.errands.do(office.load(3))
    await until(lambda: len(waits) == 1)
    office.errands.do(office.load(4))
    await until(lambda: len(waits) == 2)
    assert waits[0].cancelled()
    waits[1].set_result(None)
    await until(lambda: office.of(ShardsLoaded))
    assert [event.epoch for event in office.of(ShardsLoaded)] == [4] and not office.of(LoadFailed)

    office.errands.do(office.load(5))
    await until(lambda: len(waits) == 3)
    office.errands.do(KeepShards(((0, 6),)))
    await until(waits[2].cancelled)
    assert len(office.of(ShardsLoaded)) == 1


async def test_a_load_makes_room_at_once_and_fetches_only_what_it_wants(
    office: Office, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.errands.do(office.load(3, (0, 2), (2, 6)))
    await until(lambda: office.of(ShardsLoaded))
    assert office.compute.resident_bytes == 6 * MIB
    office.local.manifests[office.model.sha] = office.model.manifest
    asked: list[Any] = []
    fetch: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def slow(model: str, manifest: Any, ranges: Any, *_: Any) -> None:
        asked.append(ranges)
        await fetch

    monkeypatch.setattr(office.supply, "units", slow)
    office.errands.do(office.load(4, (2, 4), keep=((0, 2),)))
    await until(lambda: office.compute.resident_bytes == 2 * MIB)
    rows = np.ones((1, 3, 32), np.float32)
    office.compute.write_kv(KvRows(4, "ab" * 8, (3, 4), 0, 3, rows))  # before its shard is fetched
    await until(lambda: office.compute.kv_bytes)
    fetch.set_result(None)
    await until(lambda: len(office.of(ShardsLoaded)) == 2)
    assert asked == [((2, 4),)]
    assert office.of(ShardsLoaded)[1] == ShardsLoaded(4, ((0, 2), (2, 4)), 4 * MIB)
    office.errands.do(KeepShards(((2, 4),)))
    await until(lambda: office.compute.resident_bytes == 2 * MIB)
    assert not office.of(KvFailed)


FAILURES = [ModelError("in words"), BadInput("in words"), OSError(28, "in words"), ValueError("in words"),
            KeyError("in words"), RuntimeError("in words")]  # fmt: skip


def failing(error: Exception) -> Callable[..., Any]:
    async def fails(*_: Any, **__: Any) -> Any:
        raise error

    return fails


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_each_errand_that_fails_is_an_event(
    office: Office, until: Until, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(office.supply, "manifest", failing(error))
    monkeypatch.setattr(errands_module, "import_model", failing(error))
    office.errands.do(office.load(3))
    office.errands.do(GetManifest(office.model.sha, office.model.size))
    office.errands.do(ProvideModel("tiny"))
    await until(lambda: len(office.events) == 3)
    (load,), (manifest,), (provide,) = (
        office.of(kind) for kind in (LoadFailed, ManifestFailed, ProvideFailed)
    )
    assert (load.epoch, manifest.model, provide.model_id) == (3, office.model.sha, "tiny")
    for event in (load, manifest, provide):
        assert "in words" in event.reason


async def test_a_manifest_from_disk_is_ready(office: Office, until: Until) -> None:
    office.errands.do(GetManifest(office.model.sha, office.model.size))
    await until(lambda: office.of(ManifestReady))
    assert office.events == [ManifestReady(office.model.sha, office.model.manifest)]


async def test_an_import_tells_how_far_it_is(
    office: Office, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def imports(model_id: str, home: Path, progress: Callable[[str, int, int], None]) -> str:
        for done, total in ((0, 0), (1, 2), (9, 2)):
            progress("units", done, total)
        return model_id

    monkeypatch.setattr(errands_module, "import_model", imports)
    office.errands.do(ProvideModel("tiny"))
    await until(lambda: office.of(HoldingsChanged))
    assert [event.fraction for event in office.of(ProvideProgress)] == [0.0, 0.5, 1.0]
    assert len(office.of(HoldingsChanged)[0].holds) == 1
    assert [notice.level for notice in office.notices] == ["info", "info"]


class Lanes:
    def __init__(self, broken: dict[str, Exception]) -> None:
        self.broken = broken

    async def probe(self, device: str, payload_bytes: int, count: int) -> Probe:
        if device in self.broken:
            raise self.broken[device]
        return Probe(1.5, 1e9)


async def test_links_that_do_not_answer_are_left_out(office: Office, until: Until) -> None:
    office.errands.lanes = Lanes({ANN: LaneDown(ANN, "no way")})  # type: ignore[assignment]
    office.errands.do(MeasureLinks((ANN, BOB)))
    await until(lambda: office.of(LinksMeasured))
    (link,) = office.of(LinksMeasured)[0].links
    assert (link.device, link.rtt_ms, link.mbit_s) == (BOB, 1.5, 1e7)
    office.errands.lanes = Lanes({ANN: OSError("odd")})  # type: ignore[assignment]
    office.errands.do(MeasureLinks((ANN, BOB)))
    await until(lambda: len(office.of(LinksMeasured)) == 2)
    assert office.of(LinksMeasured)[1].links == ()


async def test_measuring_alone_uses_what_is_remembered(
    fake_home: FakeModel, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_runtime(monkeypatch)
    for alone, head_ms, threads, known in (
        (True, 5.0, 1, True), (True, None, 1, False), (True, 5.0, 0, False), (False, 5.0, 1, False),
    ):  # fmt: skip
        office = Office(fake_home, alone=alone)
        office.local.manifests[fake_home.sha] = fake_home.manifest
        remember(fake_home.home, Profile(fake_home.sha, 77.0, 1.0, head_ms, 1.0, 1.0, threads), 1)
        office.errands.do(MeasureCompute(fake_home.sha))
        await until(lambda office=office: office.of(Measured))
        assert (office.of(Measured)[0].profile.layer_ms == 77.0) == known
        await office.close()


async def test_what_cannot_be_remembered_is_no_failure(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise BadInput("no space left")

    monkeypatch.setattr(office.model.home, "write", full)
    office.errands.keep(Profile(office.model.sha, 1.0, 1.0, 1.0, 1.0, 1.0))


async def test_leaving_ends_every_errand(
    office: Office, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[asyncio.Future[None]] = []

    async def forever(*_: Any) -> None:
        started.append(asyncio.get_running_loop().create_future())
        await started[-1]

    monkeypatch.setattr(errands_module, "import_model", forever)
    monkeypatch.setattr(office.supply, "manifest", forever)
    office.errands.do(ProvideModel("tiny"))
    office.errands.do(office.load(3))
    await until(lambda: len(started) == 2)
    await office.errands.close()
    assert all(future.cancelled() for future in started) and office.events == []
