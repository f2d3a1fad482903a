"""The one thread that computes: runs steps, samples, measures; and a second one that loads meanwhile."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median

from swisd.core.effects import ForkKv, GiveUp, LoadShards, ReadKv, RunStep
from swisd.core.events import (
    Event,
    KvFailed,
    KvRead,
    Measured,
    MeasureFailed,
    StepDone,
)
from swisd.core.expected import Coming
from swisd.core.model import MAX_UNITS, Manifest
from swisd.core.rows import KvRows
from swisd.core.types import Profile, Units
from swisd.node.hand import Hand, Job
from swisd.node.hops import HopTimes, clock
from swisd.node.listening import Heard, Listening
from swisd.node.onward import Onward
from swisd.node.shards import Shards
from swisd.node.stepping import Stepping, reason_of
from swisd.transport.ear import Ear

log = logging.getLogger(__name__)
TURNS, TURN_S = 50, 2.0
CLOSE_S = 5.0  # for a step or a load that runs when the device leaves


class Compute:
    """Runs one thing at a time off the event loop: steps as `Steps` says, all else in order with them.

    `post` is called in the event loop, with events that came about together; with none, if what waits to be
    heard has no time to lose.
    """

    def __init__(
        self, blobs: Path, scratch: Path, counts: Sequence[int], post: Callable[[Sequence[Event]], None]
    ) -> None:
        """`counts`: numbers of threads to choose from, the greatest first."""
        self._blobs, self._scratch, self._counts = blobs, scratch, counts
        self._post = post
        self._computing = Hand("compute", waits=True)
        self._loading, self._telling = Hand("load"), Hand("tell")
        self._shards = Shards(blobs, counts[0], self._aside, self._back, self._tell)
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.times = HopTimes()
        self._stepping = Stepping(self._shards, self.times, self._tell_steps)
        self._listening = Listening(self._computing, self._stepping, self.times, self._in_loop_always)
        self._fresh: list[RunStep] = []  # not yet in line: what comes with them may share their pass
        self._part = 0  # of the line of steps

    def send_onward(self, onward: Onward) -> None:
        """From now on rows may be sent on before they are told of."""
        self._stepping.onward = onward

    def make_room(self, effect: LoadShards, manifest: Manifest | None) -> None:
        """Close what a load neither wants nor keeps, and give up an earlier load; `ready` and `load` follow.

        With the manifest, keys and values for what it wants are taken from now on.
        """
        self._submit(lambda: self._shards.make_room(effect, manifest), None)  # what is wrong, `load` tells

    def ready(self, effect: LoadShards, manifest: Manifest, units: Units) -> None:
        """Load these of the wanted units, whose blobs are on disk, while others are fetched."""
        self._submit(
            lambda: self._shards.ready(effect, manifest, (units,)),
            lambda reason: self._shards.give_up(effect, reason),
        )

    def load(self, effect: LoadShards, manifest: Manifest) -> None:
        """Load what is still missing of what is wanted: all its blobs are on disk."""
        self._submit(
            lambda: self._shards.load(effect, manifest), lambda reason: self._shards.give_up(effect, reason)
        )

    def give_up_load(self, effect: LoadShards, reason: str) -> None:
        """Close what a load brought so far, and tell why it failed, unless it ended or was replaced."""
        self._submit(lambda: self._shards.give_up(effect, reason), None)

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
        """Run a step, once `flush` says that no more come with it."""
        self._fresh.append(effect)

    def begin(self, effect: RunStep) -> None:
        """Run a step that is about to be asked for."""
        if not self._closed:
            self._stepping.submitted = clock()
            self._stepping.coming = effect
            self._computing.submit(self._begin)

    def listen(self, ear: Ear, coming: Coming, heard: Heard) -> None:
        """Wait for a row behind what was asked for, and run it at once; `heard` is called in any case."""
        self._computing.submit(partial(self._listening.listen, ear, coming, heard))

    def flush(self) -> None:
        """Begin with the steps that were asked for."""
        fresh, self._fresh = self._fresh, []
        if self._closed or not fresh:
            return
        self._stepping.submitted = clock()
        self._stepping.coming = None
        for effect in fresh:
            self._stepping.line.add(effect, self._part)
        for _ in fresh:
            self._computing.submit(partial(self._take, self._part))

    def give_up(self, effect: GiveUp) -> None:
        """Steps that still wait and are given up by this do not run."""
        self.flush()
        self._stepping.line.give_up(effect)

    def drop(self, session: str) -> None:
        self._submit(lambda: self._drop(session), None)

    def read_kv(self, effect: ReadKv) -> None:
        """Copy rows out of the caches; rows that are not here are no event."""
        self._submit(lambda: KvRead(effect.device, self._shards.read(effect)), _not_here)

    def write_kv(self, kv: KvRows) -> None:
        """Put rows into the caches."""
        self._submit(lambda: self._shards.write(kv), lambda reason: KvFailed(kv.session, kv.units, reason))

    def fork_kv(self, effect: ForkKv) -> None:
        """Give a session the rows of another one that ended."""
        units = 0, MAX_UNITS
        self._submit(
            lambda: self._shards.fork(effect), lambda reason: KvFailed(effect.session, units, reason)
        )

    def measure(self, manifest: Manifest, model: str, memory_limit: int) -> None:
        """Measure this device with the model's shard graph."""
        self._submit(
            lambda: self._measure(manifest, model, memory_limit), lambda reason: MeasureFailed(model, reason)
        )

    def use_threads(self, count: int) -> None:
        """Load shards with so many threads from now on; it was measured before that this is the best."""
        self._submit(lambda: self._shards.use_threads(count), None)

    def _drop(self, session: str) -> None:
        self._stepping.line.forget(session)
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
                await self._last(self._telling, lambda: None).wait()
        except TimeoutError:
            log.warning("a computation does not end; it is left to itself")

    def _free(self) -> None:
        self._shards.keep(())

    def _last(self, hand: Hand, job: Job) -> asyncio.Event:
        """The last job of a thread; the event is set when it is done."""
        done = asyncio.Event()

        def work() -> None:
            try:
                job()
            except Exception as error:  # the device ends all the same, and says why
                log.warning("freeing memory failed", exc_info=error)
            self._wake(done.set)

        hand.submit(work)
        hand.end()
        return done

    def _aside(self, job: Job) -> None:
        """Run a job in the loader's thread. Called in the compute thread."""
        if not self._closed:
            self._loading.submit(job)

    def _back(self, job: Job) -> None:
        """Run a job in the compute thread, after what waits there. Called in the loader's thread."""
        self._hand_over(job, None)

    def _submit(self, work: Callable[[], Event | None], failed: Callable[[str], Event | None] | None) -> None:
        """Have something done after steps that were asked for before, and before those asked for later."""
        if self._closed:
            return
        self.flush()
        self._part += 1
        self._hand_over(work, failed)

    def _hand_over(
        self, work: Callable[[], Event | None], failed: Callable[[str], Event | None] | None
    ) -> None:
        def guarded() -> None:
            if self._closed:
                return
            self._stepping.interrupt()
            try:
                event = work()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told and logged
                reason = reason_of(error)
                event = failed(reason) if failed else None
            if event is not None:
                self._tell(event)

        self._computing.submit(guarded)

    def _tell(self, *events: Event) -> None:
        self._in_loop(self._post, events)

    def _tell_steps(self, *events: Event) -> None:
        self._in_loop(self._steps_told, events, clock())

    def _in_loop(self, action: Callable[..., None], *arguments: object) -> None:
        """Have the event loop do something; any thread may ask."""
        if not self._closed:
            self._in_loop_always(action, *arguments)

    def _in_loop_always(self, action: Callable[..., None], *arguments: object) -> None:
        """The same, even if the device leaves.

        Not from the thread that asks: whoever wakes the loop lets go of Python's lock for that, and would get
        it back when the loop has done what it was woken for. A pass that is about to begin does not wait so.
        """
        self._telling.submit(partial(self._wake, action, *arguments))

    def _wake(self, action: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has ended without a word
            self._loop.call_soon_threadsafe(action, *arguments)

    def _steps_told(self, events: Sequence[Event], ended: float) -> None:
        first = events[0]
        if len(events) == 1 and isinstance(first, StepDone) and first.rows == 1 and not first.sent:
            self.times.computed(ended)
        try:
            self._post(events)
        finally:
            self._stepping.heard += 1

    def _begin(self) -> None:
        if not self._closed and not self._stepping.begin():
            self._in_loop(self._post, ())  # rows wait: the machine hears now at the latest

    def _take(self, part: int) -> None:
        if not self._closed:
            self._stepping.take(part)

    def _measure(self, manifest: Manifest, model: str, memory_limit: int) -> Event:
        from swisd.runtime.probe import probe

        result = probe(
            manifest, self._blobs, threads=self._counts, memory_limit=memory_limit, scratch=self._scratch
        )
        self._shards.use_threads(result.threads)
        self._stepping.turn_ms = self._measure_turn()
        return Measured(
            Profile(
                model=model,
                layer_ms=result.layer_ms,
                layer_row_ms=result.layer_row_ms,
                head_ms=result.head_ms,
                embed_ms=result.embed_ms,
                run_ms=result.run_ms + self._stepping.turn_ms,
                threads=result.threads,
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
