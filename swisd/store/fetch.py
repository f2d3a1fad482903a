"""Gets blobs from the devices that have them: resumes, checks, turns to another source, and always ends."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from swisd.core.errors import ModelError
from swisd.core.model import Blob
from swisd.store.client import BlobClient, Dial, Source
from swisd.store.disk import BlobStore, CorruptBlob, Part, StoreFull
from swisd.store.gather import Gathering, Holder, Manners, Patience
from swisd.store.parts import amount

Progress = Callable[[int], None]
"""Called with the number of bytes of the blob that came to the disk; negative when bad ones are thrown away,
so that the sum is always what is there."""

STEP_BYTES = 1 << 20  # what a round of asking must bring to count as progress
MAX_WAITING = 8  # blobs that wait until another device has them, while others are fetched


def _nobody(_device: str) -> Sequence[Source]:
    return ()


@dataclass(slots=True)
class _Job:
    """One blob being fetched, for everyone who waits for it."""

    task: asyncio.Task[None] | None = None
    have: int = 0
    watchers: list[Progress] = field(default_factory=list)
    waits: asyncio.Event = field(default_factory=asyncio.Event)  # another device must have the blob first

    def add(self, count: int) -> None:
        self.have += count
        if count:
            for watcher in self.watchers:
                watcher(count)


class Fetcher:
    """Fetches blobs into `store`. `book` knows the addresses of devices that sources name.

    A source that gives no byte for `stall_s` seconds, or on the average less than `min_rate` bytes/s, is
    left for the next; all are asked again while that brings a blob forward, and `attempts` times when it
    does not, with `pause_s` seconds between rounds. So every call ends. A device that has too many clients,
    or not yet what it is asked for, is asked every `poll_s` seconds.
    """

    def __init__(
        self,
        store: BlobStore,
        dial: Dial,
        book: Callable[[str], Sequence[Source]] = _nobody,
        *,
        dial_s: float = 5.0,
        stall_s: float = 10.0,
        min_rate: float = 16 << 10,
        attempts: int = 3,
        pause_s: float = 0.5,
        poll_s: float = 0.1,
    ) -> None:
        self._store = store
        self._client = BlobClient(dial, dial_s=dial_s, stall_s=stall_s)
        patience = Patience(stall_s, 6 * stall_s, dial_s + 2 * stall_s, min_rate, poll_s)
        self._manners = Manners(self._client, book, patience)
        self._attempts, self._pause_s = attempts, pause_s
        self._jobs: dict[str, _Job] = {}

    async def fetch(
        self, sha: str, size: int, sources: Sequence[Source], progress: Progress | None = None
    ) -> None:
        """Have blob `sha` of `size` bytes in the store, asking `sources`, the first first.

        A second call for a blob under way waits for the first. Raises `ModelError` naming the blob and what
        each device did, `StoreFull`.
        """
        if self._store.has(sha):
            if self._store.size(sha) == size:
                if progress is not None:
                    progress(size)
                return
            self._store.remove(sha)  # a power cut can shorten a file
        job = self._jobs.get(sha)
        if job is None:
            job = self._jobs[sha] = _Job()
            job.task = asyncio.create_task(self._run(job, sha, size, sources), name=f"fetch {sha[:12]}")
        watcher = progress or _ignore
        watcher(job.have)
        job.watchers.append(watcher)
        assert job.task is not None
        try:
            await asyncio.shield(job.task)
        finally:
            job.watchers.remove(watcher)
            if not job.watchers and not job.task.done():  # the last one who wanted it gave up
                job.task.cancel()
                await asyncio.wait([job.task], timeout=5)

    async def fetch_all(
        self,
        blobs: Sequence[Blob],
        sources_of: Callable[[str], Sequence[Source]],
        parallel: int = 2,
        progress: Progress | None = None,
        done: Callable[[Blob], None] | None = None,
    ) -> None:
        """Have all `blobs`, beginning with the first; `done` is called for each that is there.

        `parallel` at a time are fetched, each starting at another source so that the load spreads; one that
        another device must have first is waited for aside. The first failure ends all. Raises as `fetch`.
        """
        await self._check_room(blobs)
        waiting = list(enumerate(dict.fromkeys(blobs)))[::-1]
        aside: set[asyncio.Task[None]] = set()

        async def get(number: int, blob: Blob) -> None:
            sources = list(sources_of(blob.sha256))
            turn = number % len(sources) if sources else 0
            await self.fetch(blob.sha256, blob.size, sources[turn:] + sources[:turn], progress)
            if done is not None:
                done(blob)

        async def work() -> None:
            while waiting:
                number, blob = waiting.pop()
                task = asyncio.create_task(get(number, blob))
                aside.add(task)
                await self._until_aside(task, blob.sha256)
                if task.done():
                    aside.discard(task)
                    task.result()
                elif len(aside) > MAX_WAITING:
                    await asyncio.wait(aside, return_when=asyncio.FIRST_COMPLETED)
                for ended in [one for one in aside if one.done()]:
                    aside.discard(ended)
                    ended.result()

        workers = [asyncio.create_task(work()) for _ in range(max(1, min(parallel, len(waiting))))]
        try:
            await asyncio.gather(*workers)  # each fetch has its deadlines
            await asyncio.gather(*aside)
        finally:
            for task in (*workers, *aside):
                task.cancel()
            await asyncio.wait([*workers, *aside], timeout=5)
            self._client.close()  # kept connections cost the others a place

    async def _until_aside(self, task: asyncio.Task[None], sha: str) -> None:
        """Wait until the fetch of a blob ends, or waits for another device."""
        await asyncio.sleep(0)  # it makes its job
        job = self._jobs.get(sha)
        if job is None:
            await asyncio.wait([task])
            return
        waits = asyncio.create_task(job.waits.wait())
        try:
            await asyncio.wait([task, waits], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waits.cancel()

    async def close(self) -> None:
        """Stop all transfers (they resume later from where they are) and close kept connections."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        self._client.close()

    async def _check_room(self, blobs: Sequence[Blob]) -> None:
        """Better no transfer at all than ten that end at a full disk."""
        missing = {blob for blob in blobs if not self._store.has(blob.sha256)}
        wanted = sum(max(blob.size - self._store.part_bytes(blob.sha256), 0) for blob in missing)
        free = await asyncio.to_thread(self._store.free_bytes)
        if wanted > free:
            raise StoreFull(
                f"not enough room for {len(missing)} blobs: {amount(wanted)} needed, {amount(free)} free in "
                f"{self._store.root}, {amount(wanted - free)} missing; free some space"
            )

    async def _run(self, job: _Job, sha: str, size: int, sources: Sequence[Source]) -> None:
        part = None
        try:
            part = self._store.coming[sha] = await asyncio.to_thread(self._store.part, sha, size)
            job.add(part.size)
            await self._from_any(job, part, size, sources)
        except OSError as error:
            raise ModelError(
                f"blob {sha[:12]} cannot be written to {self._store.root}: {error.strerror or error}"
            ) from error
        finally:
            self._jobs.pop(sha, None)
            self._store.coming.pop(sha, None)
            if part is not None:
                part.close()

    async def _from_any(self, job: _Job, part: Part, size: int, sources: Sequence[Source]) -> None:
        """Put the blob together from whoever gives a piece of it."""
        holders = _by_device(sources)
        gathering = Gathering(self._manners, part, size, job.add, job.waits.set)
        idle_rounds = 0  # rounds without real progress: a link that breaks now and then is put up with
        while idle_rounds < self._attempts:
            at_start = part.size
            if await gathering.round(holders):
                try:
                    await asyncio.to_thread(part.commit)
                    return
                except CorruptBlob:
                    job.add(-job.have)
                    await self._from_one(job, part, size, holders, gathering.givers)
                    return
            if all(device in gathering.out for device, _ in holders):
                break
            idle_rounds += part.size < at_start + STEP_BYTES
            await asyncio.sleep(self._pause_s * max(idle_rounds, 1))
        raise _failure(part.sha, size, holders, gathering.said)

    async def _from_one(
        self, job: _Job, part: Part, size: int, holders: Sequence[Holder], suspects: set[str]
    ) -> None:
        """Have the blob whole from one device at a time, as bytes of several were bad together.

        Who gave bad bytes cannot be known: it may have had them from another, or before a restart of this
        program. Here the culprit is known. Those who had no part in it are asked first.
        """
        left = sorted(holders, key=lambda holder: holder[0] in suspects)
        said: dict[str, str] = {}
        giver = ""
        idle_rounds = 0
        while left and idle_rounds < self._attempts:
            at_start = part.size
            for holder in list(left):
                if part.size and giver != holder[0]:
                    await asyncio.to_thread(part.restart)
                    job.add(-job.have)
                giver = holder[0]
                gathering = Gathering(self._manners, part, size, job.add, job.waits.set, whole=True)
                try:
                    if await gathering.round([holder]):
                        await asyncio.to_thread(part.commit)
                        return
                    said |= gathering.said
                    if giver in gathering.out:
                        left.remove(holder)
                except CorruptBlob:
                    job.add(-job.have)
                    left.remove(holder)
                    said[giver] = "gave bad bytes"
            idle_rounds += len(left) > 1 or part.size < at_start + STEP_BYTES
            await asyncio.sleep(self._pause_s * max(idle_rounds, 1))
        raise _failure(part.sha, size, holders, said)


def _by_device(sources: Sequence[Source]) -> list[Holder]:
    """Each device once, with all its addresses."""
    found: dict[str, list[Source]] = {}
    for source in sources:
        found.setdefault(source.device, []).append(source)
    return [(device, tuple(addresses)) for device, addresses in found.items()]


def _failure(sha: str, size: int, holders: Sequence[Holder], said: dict[str, str]) -> ModelError:
    what = f"blob {sha[:12]} ({amount(size)})"
    if not holders:
        return ModelError(f"{what} is on no device that is up; start the one that imported the model")
    told = "; ".join(f"{device} {said.get(device, 'was not asked')}" for device, _ in holders[:8])
    return ModelError(f"{what} could not be fetched: {told}")


def _ignore(_count: int) -> None:
    return
