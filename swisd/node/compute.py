"""The one thread that computes: runs steps, samples, measures; and a second one that loads meanwhile."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from swisd.core.effects import Activation, GiveUp, KvRows, LoadShards, ReadKv, RunStep, given_up
from swisd.core.errors import SwisdError
from swisd.core.events import (
    Event,
    KvFailed,
    KvRead,
    LoadFailed,
    Measured,
    MeasureFailed,
    StepDone,
    StepFailed,
)
from swisd.core.model import Manifest
from swisd.core.types import Profile, Scores, Units
from swisd.node.hand import Hand
from swisd.node.hops import HopTimes, clock
from swisd.node.shards import Job, Shards

if TYPE_CHECKING:
    from swisd.runtime.shard import Shard

log = logging.getLogger(__name__)
TURNS, TURN_S = 50, 2.0
CLOSE_S = 5.0  # for a step or a load that runs when the device leaves


class Compute:
    """Runs one thing at a time, in order, off the event loop. `post` is called in the event loop."""

    def __init__(self, blobs: Path, scratch: Path, threads: int, post: Callable[[Event], None]) -> None:
        self._blobs, self._scratch, self._threads = blobs, scratch, threads
        self._post = post
        self._computing, self._loading = Hand("compute"), Hand("load")
        self._shards = Shards(blobs, threads, self._aside, self._back, self._tell)
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._given_up: dict[str, GiveUp] = {}  # by session; read in the compute thread
        self.times = HopTimes()
        self._ended = 0.0  # when the last step was computed
        self._turn_ms = 0.0  # what handing work to this thread and the result back costs

    def make_room(self, effect: LoadShards, manifest: Manifest | None) -> None:
        """Close what a load neither wants nor keeps, and give up an earlier load; `load` follows.

        With the manifest, keys and values for what it wants are taken from now on.
        """
        self._submit(lambda: self._shards.make_room(effect, manifest), None)  # what is wrong, `load` tells

    def load(self, effect: LoadShards, manifest: Manifest) -> None:
        """Load what is wanted and missing, whose blobs must be on disk, while steps go on."""
        self._submit(
            lambda: self._shards.load(effect, manifest), lambda reason: LoadFailed(effect.epoch, reason)
        )

    def keep(self, units: Sequence[Units]) -> None:
        """Close every shard but these, give up loading, free the KV rows of all other units."""
        self._submit(lambda: self._shards.keep(units), None)

    @property
    def kv_bytes(self) -> int:
        """Memory of the sessions' caches."""
        return self._shards.kv_bytes

    @property
    def resident_bytes(self) -> int:
        """Memory of the loaded shards."""
        return self._shards.resident_bytes

    def run(self, effect: RunStep) -> None:
        submitted = clock()
        self._submit(lambda: self._run(effect, submitted), lambda reason: StepFailed(effect.work, reason))

    def give_up(self, effect: GiveUp) -> None:
        """Steps that still wait and are given up by this do not run."""
        self._given_up[effect.session] = effect

    def drop(self, session: str) -> None:
        self._submit(lambda: self._drop(session), None)

    def read_kv(self, effect: ReadKv) -> None:
        """Copy rows out of the caches; rows that are not here are no event."""
        self._submit(lambda: KvRead(effect.device, self._shards.read(effect)), _not_here)

    def write_kv(self, kv: KvRows) -> None:
        """Put rows into the caches."""
        self._submit(lambda: self._shards.write(kv), lambda reason: KvFailed(kv.session, kv.units, reason))

    def measure(self, manifest: Manifest, model: str, memory_limit: int) -> None:
        """Measure this device with the model's shard graph."""
        self._submit(
            lambda: self._measure(manifest, model, memory_limit), lambda reason: MeasureFailed(model, reason)
        )

    def _drop(self, session: str) -> None:
        self._given_up.pop(session, None)
        self._shards.drop(session)

    async def close(self) -> None:
        """Free everything; steps that still wait are dropped. What runs is waited for, `CLOSE_S` at most."""
        if self._closed:
            return
        self._closed = True
        last = (self._last(self._loading, lambda: None), self._last(self._computing, self._free))
        try:
            async with asyncio.timeout(CLOSE_S):
                for done in last:
                    await done.wait()
        except TimeoutError:
            log.warning("a computation does not end; it is left to itself")

    def _free(self) -> None:
        self._shards.keep(())

    def _last(self, hand: Hand, job: Callable[[], None]) -> asyncio.Event:
        """The last job of a thread; the event is set when it is done."""
        done = asyncio.Event()

        def work() -> None:
            try:
                job()
            except Exception as error:  # the device ends all the same, and says why
                log.warning("freeing memory failed", exc_info=error)
            with suppress(RuntimeError):  # the loop did not wait
                self._loop.call_soon_threadsafe(done.set)

        hand.submit(work)
        hand.end()
        return done

    def _aside(self, job: Job) -> None:
        """Run a job in the loader's thread. Called in the compute thread."""
        if not self._closed:
            self._loading.submit(job)

    def _back(self, job: Job) -> None:
        """Run a job in the compute thread, after what waits there. Called in the loader's thread."""
        self._submit(job, None)

    def _submit(self, work: Callable[[], Event | None], failed: Callable[[str], Event | None] | None) -> None:
        if self._closed:
            return

        def guarded() -> None:
            if self._closed:
                return
            try:
                event = work()
            except SwisdError as error:
                event = failed(str(error)) if failed else None
            except Exception as error:
                log.warning("computing failed", exc_info=error)
                event = failed(f"{type(error).__name__}: {error}") if failed else None
            if event is not None:
                self._tell(event)

        self._computing.submit(guarded)

    def _tell(self, event: Event) -> None:
        if not self._closed:
            with suppress(RuntimeError):  # the loop has ended without a word
                if isinstance(event, StepDone):
                    self._loop.call_soon_threadsafe(self._stepped, event, self._ended)
                else:
                    self._loop.call_soon_threadsafe(self._post, event)

    def _stepped(self, event: StepDone, ended: float) -> None:
        if event.rows == 1:
            self.times.computed(ended)
        self._post(event)

    def _run(self, effect: RunStep, submitted: float) -> Event | None:
        floor = self._given_up.get(effect.work.session)
        if floor is not None and given_up(effect.work, floor):
            return None
        shard = self._shards.get(effect.units)
        if shard is None:
            start, end = effect.units
            return StepFailed(effect.work, f"units {start} to {end} are not loaded")
        if effect.activation.rows == 1:
            self.times.started(submitted)
        began = clock()
        result = shard.run(effect.activation.slots, _rows(effect.activation, shard))
        token, scores = self._answer(effect, result) if shard.has_head else (None, None)
        self._ended = clock()
        ran = (self._ended - began) * 1000.0
        rows = None if shard.has_head else result
        return StepDone(effect.work, len(result), rows, ran + self._turn_ms, token, scores, ran)

    def _answer(self, effect: RunStep, logits: Any) -> tuple[int | None, Scores | None]:
        """What the head's rows mean: a token, scores, or (a prompt chunk) nothing."""
        from swisd.runtime.sampling import sample
        from swisd.runtime.scoring import score

        wanted, scoring = effect.sample, effect.score
        if wanted is not None and len(logits):
            token = sample(
                logits[-1], wanted.params, seed=wanted.seed, position=wanted.position, history=wanted.history
            )
            return token, None
        if scoring is not None and len(logits):
            return None, score(logits, scoring.next_ids, scoring.top)
        return None, None

    def _measure(self, manifest: Manifest, model: str, memory_limit: int) -> Event:
        from swisd.runtime.probe import probe

        result = probe(
            manifest, self._blobs, threads=self._threads, memory_limit=memory_limit, scratch=self._scratch
        )
        self._turn_ms = self._measure_turn()
        return Measured(
            Profile(
                model=model,
                layer_ms=result.layer_ms,
                layer_row_ms=result.layer_row_ms,
                head_ms=result.head_ms,
                embed_ms=result.embed_ms,
                run_ms=result.run_ms + self._turn_ms,
            )
        )

    def _measure_turn(self) -> float:
        """Median milliseconds from this thread to the event loop and back, which every step pays once."""
        answered = threading.Event()
        times: list[float] = []
        for _ in range(TURNS):
            answered.clear()
            began = time.perf_counter()
            self._loop.call_soon_threadsafe(answered.set)
            if not answered.wait(TURN_S):
                break
            times.append((time.perf_counter() - began) * 1000.0)
        return median(times) if times else 0.0


def _not_here(reason: str) -> None:
    log.info("keys and values are not sent: %s", reason)


def _rows(activation: Activation, shard: "Shard") -> Any:
    """The rows as the shard takes them: int64 ids, or float32 [rows, hidden] from a frame's bytes."""
    import numpy as np

    payload = activation.payload
    if isinstance(payload, np.ndarray):
        return payload
    if shard.start == 0:
        return np.array(payload, np.int64)
    rows = np.frombuffer(payload, "<f4")
    if rows.size != activation.rows * shard.manifest.hidden:
        raise ValueError(f"{rows.size} values for {activation.rows} rows of {shard.manifest.hidden}")
    return rows.reshape(activation.rows, shard.manifest.hidden)
