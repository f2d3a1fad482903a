"""Gets what a device needs from the others: manifests, graphs, tokenizers, weights of its units."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from swisd.core.errors import ModelError, SwisdError
from swisd.core.messages import Digest, MemberView
from swisd.core.model import MAX_MANIFEST_BYTES, SHA256, Blob, Manifest
from swisd.core.types import Holding, Units
from swisd.net.secure import dial
from swisd.store.client import Source
from swisd.store.disk import BlobStore
from swisd.store.fetch import Fetcher
from swisd.store.models import ModelIndex
from swisd.wire.handshake import Purpose

log = logging.getLogger(__name__)
PARALLEL = 2
MAX_RANGES = 64  # of a model's units that are told to others, as `Holding` has room for


class Supply:
    """The blobs of this home, and where the others have theirs."""

    def __init__(self, blobs: Path, models: Path, key: bytes, device: str) -> None:
        self.store = BlobStore(blobs)
        self.index = ModelIndex(models, self.store)
        self._device = device
        self._digest: Digest | None = None

        async def connect(host: str, port: int):  # type: ignore[no-untyped-def]
            return await dial(host, port, key, device, Purpose.STORE)

        self._fetcher = Fetcher(self.store, connect, self._addresses)

    def on_digest(self, digest: Digest) -> None:
        self._digest = digest

    async def manifest(self, model: str, size: int) -> Manifest:
        """The manifest and its graph, from disk or from whoever has them. Raises `ModelError`."""
        if not SHA256.fullmatch(model):
            raise ModelError(f"the swarm names its model {model[:80]!r}, which is not a sha256")
        if size > MAX_MANIFEST_BYTES:
            raise ModelError(f"the manifest of this model is said to have {size} bytes, which is too large")
        if not self.store.has(model):
            await self._fetcher.fetch(model, size, self._holders(model, None))
        manifest = Manifest.from_bytes(self.store.read(model))
        graph = manifest.blobs[manifest.graph]
        await self._fetcher.fetch(graph.sha256, graph.size, self._holders(model, None))
        if not any(entry.manifest == model for entry in self.index.list()):
            self.index.add(model)
        return manifest

    async def tokenizer(self, model: str, manifest: Manifest) -> bytes:
        """The tokenizer blob. Raises `ModelError`."""
        blob = manifest.blobs[manifest.tokenizer]
        await self._fetcher.fetch(blob.sha256, blob.size, self._holders(model, None))
        return self.store.read(blob.sha256)

    async def units(
        self,
        model: str,
        manifest: Manifest,
        ranges: Sequence[Units],
        progress: Callable[[float], None],
        ready: Callable[[Units], None] | None = None,
    ) -> None:
        """Have the weights of these ranges of units on disk, those of the first range first.

        `progress` gets the fraction that is there. `ready` gets each range once, as soon as all of it is on
        disk, so that its shard can be loaded while others are fetched. Raises `ModelError`, `StoreFull`.
        """
        wanted = {units: manifest.blob_indices(*units) for units in ranges}
        indices = dict.fromkeys(index for needed in wanted.values() for index in needed)
        missing = {index for index in indices if not self._has(manifest.blobs[index])}
        lacking = {units: missing & set(needed) for units, needed in wanted.items()}
        # The tokenizer is small, and whoever asks on this device will want it.
        blobs = [manifest.blobs[index] for index in [*indices, manifest.tokenizer]]
        total = sum(blob.size for blob in blobs) or 1
        done = 0

        def count(amount: int) -> None:
            nonlocal done
            done += amount
            progress(done / total)

        def tell() -> None:
            for units in [units for units, indices in lacking.items() if not indices]:
                del lacking[units]
                if ready is not None:
                    ready(units)

        def have(blob: Blob) -> None:
            for indices in lacking.values():
                indices -= {index for index in indices if manifest.blobs[index] == blob}
            tell()

        tell()
        users = _users(manifest)
        await self._fetcher.fetch_all(
            blobs,
            lambda sha: self._holders(model, users.get(sha)),
            parallel=PARALLEL,
            progress=count,
            done=have,
        )

    def holdings(self) -> tuple[Holding, ...]:
        """Everything in this home that others may fetch."""
        found = []
        for entry in self.index.list():
            try:
                manifest = self.index.manifest(entry.model_id)
                size = self.store.size(entry.manifest)
            except (SwisdError, OSError) as error:
                log.warning("%s is not offered to others: %s", entry.model_id, error)
                continue
            # After many changes of the plan a device may hold scattered units: the longest runs are told.
            longest = sorted(self.index.holding(manifest), key=lambda units: units[0] - units[1])
            ranges = tuple(sorted(longest[:MAX_RANGES]))
            found.append(Holding(entry.manifest, entry.model_id, size, ranges))
        return tuple(found[:64])

    async def close(self) -> None:
        await self._fetcher.close()

    def _has(self, blob: Blob) -> bool:
        return self.store.has(blob.sha256) and self.store.size(blob.sha256) == blob.size

    def _holders(self, model: str, units: tuple[int, ...] | None) -> list[Source]:
        """Devices that say they have one of these units (None: any of the model), first those with most."""
        digest = self._digest
        if digest is None:
            return []
        found: list[tuple[int, MemberView]] = []
        for member in digest.members:
            if not self._up(member, member.device):
                continue
            ranges = [(start, end) for sha, start, end in member.holds if sha == model]
            has = ranges and (
                units is None or any(start <= unit < end for start, end in ranges for unit in units)
            )
            if has:
                found.append((-sum(end - start for start, end in ranges), member))
        found.sort(key=lambda item: (item[0], item[1].device))
        return [source for _, member in found for source in _sources(member)]

    def _addresses(self, device: str) -> list[Source]:
        """Where a device is that another one named."""
        members = self._digest.members if self._digest else ()
        return [source for member in members if self._up(member, device) for source in _sources(member)]

    def _up(self, member: MemberView, device: str) -> bool:
        return member.device == device != self._device and member.liveness in ("alive", "suspect")


def _sources(member: MemberView) -> list[Source]:
    return [Source(member.device, address, member.port) for address in member.addresses[:3]]


def _users(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Which units need each weight blob."""
    users: dict[str, tuple[int, ...]] = {}
    for number, unit in enumerate(manifest.units):
        for index in unit.blobs:
            sha = manifest.blobs[index].sha256
            users[sha] = (*users.get(sha, ()), number)
    return users
