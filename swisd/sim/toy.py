"""A toy model for simulations: every unit mixes in its index, the position and all rows before.

A wrong order, a lost or repeated row or a stale cache changes every token after it, and so does a row that
ran alone where it ran together with others at first: equal tokens mean equal histories. Integers only: the
same on every machine.

Half of its tokens are said in an order, most of the time, so that they can be guessed: a state carries the
token of its row in its lowest bits.
"""

from dataclasses import dataclass, field

from swisd.core.history import together
from swisd.core.model import Blob, Manifest, Unit
from swisd.core.rows import Activation, Sample, Score
from swisd.core.types import Scores, Units

MIX = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
TOKEN_BITS = 16
JUMP = 8  # every so many tokens, on average, comes out of order
MODEL = "70" * 32
MODEL_ID = "toy"


def toy_manifest(layers: int = 6, layer_bytes: int = 10 << 20, vocab: int = 64) -> Manifest:
    """A manifest of `layers` equal layers; the head is tied to the embedding and weighs two layers."""
    blobs = tuple(Blob(f"{number:064x}", 1000) for number in range(layers + 3))
    units = (
        Unit("embed", (0,), (0, 1), 1 << 20, 0, 1 << 10),
        *(
            Unit("layer", (number,), (0, 1), layer_bytes, 1 << 10, layer_bytes)
            for number in range(1, layers + 1)
        ),
        Unit("head", (0,), (0, 1), 2 * layer_bytes, 0, 2 * layer_bytes),
    )
    return Manifest(MODEL_ID, "toy", "none", "00" * 32, 16, vocab, 4096, blobs, units, layers + 1, layers + 2)


def _mix(*values: int) -> int:
    state = 0x243F6A8885A308D3
    for value in values:
        state = ((state ^ (value & MASK)) * MIX) & MASK
        state ^= state >> 29
    return state


@dataclass(slots=True)
class ToyShard:
    """Runs units of the toy model; `caches[(session, unit)]` holds one state per position."""

    manifest: Manifest
    caches: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def run(
        self, units: Units, activation: Activation, sample: Sample | None, score: Score | None
    ) -> tuple[int, tuple[int, ...], int | None, Scores | None]:
        """Rows in, `(rows, payload, token, scores)` out, as a real shard does it."""
        start, end = units
        slot = activation.slots[0]
        rows: list[int] = list(activation.payload)
        head = self.manifest.n_units - 1
        for unit in range(start, min(end, head)):
            kind = min(len(rows), 2)
            rows = [
                self._unit(unit, slot.session, slot.position + at, row, kind) for at, row in enumerate(rows)
            ]
        if end >= head and start < head:
            rows = rows[len(rows) - slot.logits :] if slot.logits else []
        if end <= head:
            return len(rows), tuple(rows), None, None
        token = _said(rows[-1], self.manifest.vocab) if rows and sample else None
        scores = _scores(rows, score, self.manifest.vocab) if score else None
        return len(rows), (), token, scores

    def read(
        self, session: str, units: Units, position: int, rows: int
    ) -> tuple[tuple[int, ...], ...] | None:
        """States of some positions, one row of them for each layer; None if there are fewer."""
        found = [self.caches.get((session, unit), [])[position : position + rows] for unit in range(*units)]
        return tuple(tuple(item) for item in found) if all(len(item) == rows for item in found) else None

    def write(self, session: str, units: Units, position: int, states: tuple[tuple[int, ...], ...]) -> bool:
        """Put states at a position and forget what lies behind; False if that would leave a gap."""
        if any(len(self.caches.get((session, unit), [])) < position for unit in range(*units)):
            return False
        for unit, row in zip(range(*units), states, strict=True):
            cache = self.caches.setdefault((session, unit), [])
            cache[position:] = row
        return True

    def fork(self, source: str, session: str, end: int, *, keep: bool) -> bool:
        """Give a session the first states of another one in all layers; False if there are fewer."""
        found = [(unit, cache) for (key, unit), cache in self.caches.items() if key == source]
        if not found or any(len(cache) < end for _, cache in found):
            return False
        for unit, cache in found:
            self.caches[session, unit] = cache[:end]
        if not keep:
            self.drop(source)
        return True

    def drop(self, session: str) -> None:
        for key in [key for key in self.caches if key[0] == session]:
            del self.caches[key]

    def _unit(self, unit: int, session: str, position: int, row: int, kind: int) -> int:
        if unit == 0:
            return _carrying(_mix(row, 7), row)
        cache = self.caches.setdefault((session, unit), [])
        if position > len(cache):
            raise ValueError(f"row at {position} but the cache of {session} holds {len(cache)}")
        del cache[position:]
        cache.append(_carrying(_mix(unit, position, row, cache[-1] if cache else 0, kind), row))
        return cache[-1]


def _carrying(state: int, row: int) -> int:
    """A state with the token of the row that it comes of."""
    low = (1 << TOKEN_BITS) - 1
    return (state & (MASK ^ low)) | (row & low)


def _said(state: int, vocab: int) -> int:
    """The token that the head answers a state with."""
    drawn, last, ordered = _mix(state, 1), state & ((1 << TOKEN_BITS) - 1), vocab // 2
    if last >= ordered or drawn % JUMP == 0:
        return (drawn >> 8) % vocab
    return _in_order(last, vocab)


def _in_order(last: int, vocab: int) -> int:
    return (5 * last + 3) % (vocab // 2)


def toy_guess(ids: tuple[int, ...], count: int, vocab: int) -> tuple[int, ...]:
    """What a small model says comes next: it knows the order, and nothing else."""
    said: list[int] = []
    while len(said) < count:
        said.append(_in_order((*ids, *said)[-1], vocab))
    return tuple(said)


def _scores(rows: list[int], score: Score, vocab: int) -> Scores:
    ids = tuple(tuple(_mix(row, rank) % vocab for rank in range(score.top)) for row in rows)
    logprobs = tuple(tuple(-0.5 * (rank + 1) for rank in range(score.top)) for _ in rows)
    return Scores(ids, logprobs, tuple(-1.0 if token is not None else None for token in score.next_ids))


def toy_tokens(
    manifest: Manifest, prompt: tuple[int, ...], count: int, alone: tuple[Units, ...] = ()
) -> list[int]:
    """The tokens that one undisturbed device gives: what every simulated stream is compared with.

    `alone` are spans of the prompt that run one by one, as answers do.
    """
    shard, ids, tokens = ToyShard(manifest), list(prompt), []
    spans = together(len(prompt), alone)
    kinds = [2 if any(start <= at < end for start, end in spans) else 1 for at in range(len(prompt))]
    position = 0
    for _ in range(count):
        states = ids[position:]
        for unit in range(manifest.n_units - 1):
            states = [
                shard._unit(unit, "solo", position + at, row, kinds[position + at])
                for at, row in enumerate(states)
            ]
        position = len(ids)
        tokens.append(_said(states[-1], manifest.vocab))
        ids.append(tokens[-1])
        kinds.append(1)
    return tokens
