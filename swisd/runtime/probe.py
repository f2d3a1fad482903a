"""How fast is this device with this model, and with how many threads: measured with the real shard graphs.

Random weights stand in for the real ones, so a device can be measured before it has fetched anything but the
manifest and the graph. They differ from layer to layer, since ONNX Runtime keeps equal weights once, which
then stay in the cache: a model of zeros runs in 0.6 of the time.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from swisd.core.errors import DoesNotFit, ModelError, SwisdError
from swisd.core.model import Manifest
from swisd.runtime.kv import KvStore
from swisd.runtime.shard import Shard
from swisd.runtime.slots import Slot

PREFILL_ROWS = 64
CONTEXT = 128
# A shard much larger than the cache behaves like one of any size; measuring more only takes longer.
ENOUGH_BYTES = 160 << 20
CACHE_BYTES = 48 << 20
PATTERN_BYTES = 1 << 20
SECONDS = 0.3  # for each of the four figures
FASTER = 1.05  # fewer threads must be that much faster: prompts gain from each


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Medians in milliseconds, with so many `threads`.

    A shard of n layers takes `run_ms + n * layer_ms` for one token, and for r rows of a prompt
    `run_ms + r * n * layer_row_ms`; `head_ms` (one row; None if the head does not fit) and `embed_ms` are
    added where a shard has them.
    """

    layer_ms: float
    layer_row_ms: float
    head_ms: float | None
    embed_ms: float
    run_ms: float
    threads: int


def probe(
    manifest: Manifest, blobs: Path, *, threads: Sequence[int], memory_limit: int, scratch: Path
) -> ProbeResult:
    """Measure, in about two seconds for a small model. `memory_limit` in bytes bounds what is loaded.

    Of several numbers of `threads`, each less than the one before, the first is taken than which the next
    one is not clearly faster with one token.

    Needs the graph blob in `blobs`; works in a directory of its own under `scratch`, which it removes.
    Raises `DoesNotFit` if not even one layer fits, `ModelError` if the graph blob is missing, `SwisdError` if
    the disk has no room for the stand-ins.
    """
    layer = manifest.units[1]
    each = layer.resident_bytes + layer.kv_bytes_per_token * 256
    most = min(manifest.n_layers, min(memory_limit, max(ENOUGH_BYTES, 2 * each)) // max(each, 1))
    if most < 1:
        raise DoesNotFit(
            f"one layer of {manifest.model_id} takes {each >> 20} MiB, {memory_limit >> 20} MiB are offered"
        )
    head = [manifest.n_units - 1] if manifest.units[-1].resident_bytes <= memory_limit else []
    units = [*range(1 + most), *head]
    scratch.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="probe-", dir=scratch))
    try:
        _stand_in(manifest, blobs, directory, units)
        return _Probe(manifest, directory, threads, memory_limit).measure(most)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _stand_in(manifest: Manifest, blobs: Path, directory: Path, units: list[int]) -> None:
    """Files as long as the weights of `units`, and the graph, which must be here."""
    graph = manifest.blobs[manifest.graph]
    try:
        shutil.copyfile(blobs / graph.sha256, directory / graph.sha256)
    except FileNotFoundError:
        raise ModelError(f"the graph of {manifest.model_id} is not here yet: nothing to measure") from None
    indices = {index for unit in units for index in manifest.units[unit].blobs}
    wanted, free = sum(manifest.blobs[index].size for index in indices), shutil.disk_usage(directory).free
    if wanted > free:
        raise SwisdError(
            f"the disk is full: measuring takes {wanted / 2**20:.0f} MiB for a moment, "
            f"{free / 2**20:.0f} MiB are free in {directory.parent}; free some space"
        )
    random = np.random.default_rng(0)
    pattern = random.integers(0, 256, PATTERN_BYTES, np.uint8)
    pattern[3::4] = 0x3C  # as floats all weights are harmless: from 0.008 to 0.03
    for index in indices:
        blob = manifest.blobs[index]
        with (directory / blob.sha256).open("wb") as file:
            if index != manifest.config.get("rope_blob"):  # zero angles: the pattern gives subnormal numbers
                piece = np.roll(pattern, 4 * int(random.integers(1 << 20))).tobytes()
                for _ in range(blob.size // PATTERN_BYTES + 1):
                    file.write(piece)
            file.truncate(blob.size)


class _Probe:
    def __init__(self, manifest: Manifest, directory: Path, counts: Sequence[int], memory_limit: int) -> None:
        self.manifest, self.directory, self.counts = manifest, directory, counts
        self.memory_limit = memory_limit
        self.threads = counts[0]
        # Between two visits of a layer the rest of the model passes through the cache: so does this.
        whole = manifest.resident_bytes(0, manifest.n_units)
        self._sweep = np.ones(min(CACHE_BYTES, whole) // 8)

    def measure(self, layers: int) -> ProbeResult:
        self._choose_threads(layers)
        one = self._layers(1)[0] if layers > 1 else 0.0
        many, prefill = self._layers(layers)
        layer_ms = (many - one) / (layers - 1) if layers > 1 else many
        # On a busy machine the difference of two figures can come out as nonsense.
        layer_ms = min(max(layer_ms, 0.5 * many / layers), many / layers)
        run_ms = max(many - layers * layer_ms, 0.0)
        row_ms = max(prefill - run_ms, 0.0) / (layers * PREFILL_ROWS)
        n_units = self.manifest.n_units
        head = self.manifest.units[-1].resident_bytes
        head_ms = self._flat(n_units - 1, n_units) if head <= self.memory_limit else None
        return ProbeResult(layer_ms, row_ms, head_ms, self._flat(0, 1), run_ms, self.threads)

    def _choose_threads(self, layers: int) -> None:
        best = inf
        for count in self.counts if len(self.counts) > 1 else ():
            shard = self._load(1, 1 + layers, count)
            try:
                token = self._token(shard, 0)
            finally:
                shard.close()
            if token * FASTER > best:
                break
            self.threads, best = count, token

    def _layers(self, count: int) -> tuple[float, float]:
        """Milliseconds for one token and for a pass of `PREFILL_ROWS`, over `count` layers."""
        shard = self._load(1, 1 + count, self.threads)
        x = self._made_up(PREFILL_ROWS)
        try:
            passes = _median(lambda: shard.run([Slot("probe", 0, PREFILL_ROWS, 0)], x), 0.5 * SECONDS)
            token = self._token(shard, PREFILL_ROWS)
            self._try(shard)
        finally:
            shard.close()
        return token, passes

    def _token(self, shard: Shard, position: int) -> float:
        x = self._made_up(1)
        return _median(lambda: shard.run([Slot("probe", position, 1, 1)], x), SECONDS, self._flush)

    def _made_up(self, rows: int) -> NDArray[np.float32]:
        return np.random.default_rng(1).standard_normal((rows, self.manifest.hidden), np.float32)

    def _flat(self, start: int, end: int) -> float:
        shard = self._load(start, end, self.threads)
        x = np.zeros(1, np.int64) if start == 0 else np.ones((1, self.manifest.hidden), np.float32)
        try:
            self._try(shard)
            return _median(lambda: shard.run([Slot("probe", 0, 1, 1)], x), 0.5 * SECONDS, self._flush)
        finally:
            shard.close()

    def _load(self, start: int, end: int, threads: int) -> Shard:
        store = KvStore(self.manifest, CONTEXT)
        return Shard.load(self.manifest, start, end, self.directory, threads=threads, store=store)

    def _try(self, shard: Shard) -> None:
        """Find out now what would hold up a first answer later: whether passes may serve several steps."""
        _ = shard.batches and shard.mirrors

    def _flush(self) -> None:
        self._sweep.sum()


def _median(run: Callable[[], object], seconds: float, before: Callable[[], object] | None = None) -> float:
    """Median milliseconds of `run`, after two unmeasured runs; at least three runs are measured."""
    for _ in range(2):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 50):
        if before:
            before()
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) * 1000)
    return median(times)
