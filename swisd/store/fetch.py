"""Gets blobs from the devices that have them: resumes, checks, turns to another source, and always ends.

Room is left for one blob from several holders at once (`pull` takes an offset) and for giving blobs on while
loading (a part's length is known); neither is done yet.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from swisd.core.errors import ModelError
from swisd.core.model import Blob
from swisd.store.client import BlobClient, Dial, Source, SourceFailed, Why
from swisd.store.disk import BlobStore, CorruptBlob, Part, StoreFull
from swisd.store.parts import amount

Progress = Callable[[int], None]
"""Called with the number of bytes of the blob that came to the disk; negative when bad ones are thrown away,
so that the sum is always what is there."""

STEP_BYTES = 1 << 20  # what a round of asking must bring to count as progress
BUFFER_BYTES = 1 << 20  # one trip to the disk and the hash for each so many bytes


@dataclass(slots=True)
class _Job:
    """One blob being fetched, for everyone who waits for it."""

    task: asyncio.Task[None] | None = None
    have: int = 0
    watchers: list[Progress] = field(default_factory=list)

    def add(self, count: int) -> None:
        self.have += count
        if count:
            for watcher in self.watchers:
                watcher(count)


class Fetcher:
    """Fetches blobs into `store`.

    A source that gives no byte for `stall_s` seconds, or on the average less than `min_rate` bytes/s, is
    left for the next; all are asked again while that brings a blob forward, and `attempts` times when it
    does not, with `pause_s` seconds between rounds. So every call ends.
    """

    def __init__(
        self,
        store: BlobStore,
        dial: Dial,
        *,
        dial_s: float = 5.0,
        stall_s: float = 10.0,
        min_rate: float = 16 << 10,
        attempts: int = 3,
        pause_s: float = 0.5,
    ) -> None:
        self._store = store
        self._client = BlobClient(dial, dial_s=dial_s, stall_s=stall_s)
        self._slack_s, self._min_rate = dial_s + 2 * stall_s, min_rate
        self._attempts, self._pause_s = attempts, pause_s
        self._jobs: dict[str, _Job] = {}

    async def fetch(
        self, sha: str, size: int, sources: Sequence[Source], progress: Progress | None = None
    ) -> None:
        """Have blob `sha` of `size` bytes in the store, asking `sources` in their order.

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
    ) -> None:
        """Have all `blobs`, `parallel` at a time, each starting at another source so that the load spreads.

        The first failure ends all. Raises as `fetch`.
        """
        await self._check_room(blobs)
        waiting = list(enumerate(dict.fromkeys(blobs)))[::-1]

        async def work() -> None:
            while waiting:
                number, blob = waiting.pop()
                sources = list(sources_of(blob.sha256))
                turn = number % len(sources) if sources else 0
                await self.fetch(blob.sha256, blob.size, sources[turn:] + sources[:turn], progress)

        workers = [asyncio.create_task(work()) for _ in range(max(1, min(parallel, len(waiting))))]
        try:
            await asyncio.gather(*workers)  # each fetch has its deadlines
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers, timeout=5)
            self._client.close()  # kept connections cost the others a place

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
            part = await asyncio.to_thread(self._store.part, sha, size)
            job.add(part.size)
            await self._from_any(job, part, size, sources)
        except OSError as error:
            raise ModelError(
                f"blob {sha[:12]} cannot be written to {self._store.root}: {error.strerror or error}"
            ) from error
        finally:
            self._jobs.pop(sha, None)
            if part is not None:
                part.close()

    async def _from_any(self, job: _Job, part: Part, size: int, sources: Sequence[Source]) -> None:
        said: dict[str, str] = {}  # what each device did, for the error
        out: set[str] = set()  # devices not to be asked again
        givers: set[str] = {"an earlier transfer"} if part.size else set()
        mixing = True  # whether one blob may be put together from several devices
        idle_rounds = 0  # rounds without real progress: a link that breaks now and then is put up with
        while idle_rounds < self._attempts:
            at_start = part.size
            for source in sources:
                if source.device in out:
                    continue
                if not mixing and part.size and givers != {source.device}:
                    await self._restart(job, part, givers)
                try:
                    before = part.size
                    try:
                        if part.size < size:
                            await self._pull(job, part, size, source)
                    finally:
                        if part.size > before:
                            givers.add(source.device)
                    await asyncio.to_thread(part.commit)
                    return
                except SourceFailed as failure:
                    said[source.device] = str(failure)
                    if failure.why in (Why.MISSING, Why.WRONG):
                        out.add(source.device)
                except CorruptBlob:
                    # With one giver the culprit is known. With several, or a part from before a restart of
                    # this program, it is not: then the blob is fetched whole from one device at a time.
                    job.add(-job.have)
                    if givers == {source.device}:
                        out.add(source.device)
                        said[source.device] = "gave bad bytes"
                    else:
                        said[source.device] = "gave a rest that does not fit what others gave"
                    mixing = False
                    givers.clear()
            if all(source.device in out for source in sources):
                break
            if part.size < at_start + STEP_BYTES:
                idle_rounds += 1
            await asyncio.sleep(self._pause_s * max(idle_rounds, 1))
        raise _failure(part.sha, size, sources, said)

    async def _restart(self, job: _Job, part: Part, givers: set[str]) -> None:
        await asyncio.to_thread(part.restart)
        job.add(-job.have)
        givers.clear()

    async def _pull(self, job: _Job, part: Part, size: int, source: Source) -> None:
        """Append what a source gives. Raises `SourceFailed`, `StoreFull`; what came until then is kept."""
        buffer: list[bytes] = []
        held = 0
        writing: asyncio.Task[None] | None = None
        pieces = self._client.pull(source, part.sha, part.size, size)
        try:
            async with asyncio.timeout(self._slack_s + (size - part.size) / self._min_rate), aclosing(pieces):
                async for piece in pieces:
                    buffer.append(piece)
                    held += len(piece)
                    if held >= BUFFER_BYTES:
                        if writing is not None:
                            await writing
                        # Written and hashed in a thread while the next bytes arrive.
                        writing = asyncio.create_task(self._write(job, part, buffer))
                        buffer, held = [], 0
        except TimeoutError:
            raise SourceFailed(Why.LOST, "too slow") from None
        finally:
            if writing is not None:
                await asyncio.wait([writing])  # a write to the disk ends by itself
                if writing.cancelled() or writing.exception() is not None:
                    buffer.clear()
            await self._write(job, part, buffer)
            if writing is not None:
                await writing

    async def _write(self, job: _Job, part: Part, pieces: list[bytes]) -> None:
        if pieces:
            before = part.size
            try:
                await asyncio.to_thread(part.write, pieces)
            finally:
                job.add(part.size - before)


def _failure(sha: str, size: int, sources: Sequence[Source], said: dict[str, str]) -> ModelError:
    what = f"blob {sha[:12]} ({amount(size)})"
    if not sources:
        return ModelError(f"{what} is on no device that is up; start the one that imported the model")
    told = "; ".join(f"{source.device} {said.get(source.device, 'was not asked')}" for source in sources[:8])
    return ModelError(f"{what} could not be fetched: {told}")


def _ignore(_count: int) -> None:
    return
