"""Bytes and JSON that are almost right: changes of valid samples, drawn from a seed.

Most random bytes die at the first check. What is one lie away from a valid message gets further.
"""

import json
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from random import Random
from typing import Any

NUMBERS = (
    0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, (1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 31,
    (1 << 32) - 1, 1 << 32, 1 << 48, (1 << 48) + 1, 1 << 53, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, "", "ready", "x" * 2000, "\ud800", "\0", "0" * 16, "f" * 16, "F" * 16, "ab" * 32,
    "é" * 40, -1, -(1 << 63), 0.5, -0.0, 1e-320, 1e300, float("inf"), float("nan"), 10**30, [], {}, [[]],
    [None], {"": 0},
    [0] * 5000, *NUMBERS,
)  # fmt: skip


class Mutator:
    """Endless changes of samples; equal seeds give equal changes."""

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self._ways = (
            self._flip, self._flip, self._set, self._number, self._number, self._cut, self._remove,
            self._insert, self._repeat, self._splice, self._swap,
        )  # fmt: skip

    def blob(self, sample: bytes, others: Sequence[bytes] = ()) -> bytes:
        """The bytes with one to four changes; `others` give parts to splice in. Rarely they stay the same."""
        data = bytearray(sample)
        for _ in range(self._few()):
            self.random.choice(self._ways)(data, others)
        return bytes(data)

    def json(self, sample: bytes, others: Sequence[bytes] = ()) -> bytes:
        """A JSON document with one to four values, names or lengths changed; sometimes its bytes instead."""
        if self.random.random() < 0.15:
            return self.blob(sample, others)
        root = [json.loads(sample)]
        for _ in range(self._few()):
            self._change(root, others)
        return json.dumps(root[0], ensure_ascii=self.random.random() < 0.5, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )

    def number(self) -> int:
        """A number at the edge of something."""
        return max(0, self.random.choice(NUMBERS) + self.random.choice((-1, 0, 0, 1)))

    def pieces(self, data: bytes) -> list[bytes]:
        """The same bytes as a network might cut them."""
        cuts = sorted(self.random.randrange(len(data) + 1) for _ in range(self.random.choice((0, 0, 1, 3))))
        ends = [0, *cuts, len(data)]
        return [data[start:end] for start, end in pairwise(ends)]

    def _few(self) -> int:
        return self.random.choice((1, 1, 1, 2, 2, 4))

    def _at(self, data: bytearray) -> int:
        return self.random.randrange(len(data) + 1)

    def _span(self, data: bytes | bytearray) -> tuple[int, int]:
        start = self.random.randrange(len(data) + 1)
        return start, min(len(data), start + self.random.choice((1, 2, 4, 8, 16, 100)))

    # --- changes of bytes --------------------------------------------------------------------------

    def _flip(self, data: bytearray, others: Sequence[bytes]) -> None:
        if data:
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)

    def _set(self, data: bytearray, others: Sequence[bytes]) -> None:
        if data:
            data[self.random.randrange(len(data))] = self.random.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x7B))

    def _number(self, data: bytearray, others: Sequence[bytes]) -> None:
        """A length or a count that lies, wherever one may be."""
        size, order = self.random.choice((1, 2, 4, 8)), self.random.choice(("little", "big"))
        if len(data) >= size:
            at = self.random.randrange(len(data) - size + 1)
            value = self.number() % (1 << (8 * size))
            data[at : at + size] = value.to_bytes(size, order)  # type: ignore[arg-type]

    def _cut(self, data: bytearray, others: Sequence[bytes]) -> None:
        del data[self._at(data) :]

    def _remove(self, data: bytearray, others: Sequence[bytes]) -> None:
        start, end = self._span(data)
        del data[start:end]

    def _insert(self, data: bytearray, others: Sequence[bytes]) -> None:
        at = self._at(data)
        data[at:at] = self.random.randbytes(self.random.choice((1, 2, 8, 64)))

    def _repeat(self, data: bytearray, others: Sequence[bytes]) -> None:
        start, end = self._span(data)
        data[start:start] = data[start:end] * self.random.choice((1, 1, 2, 20))

    def _splice(self, data: bytearray, others: Sequence[bytes]) -> None:
        if others:
            other = self.random.choice(others)
            start, end = self._span(other)
            at = self._at(data)
            data[at : at + self.random.choice((0, end - start))] = other[start:end]

    def _swap(self, data: bytearray, others: Sequence[bytes]) -> None:
        start, end = self._span(data)
        part = data[start:end]
        del data[start:end]
        at = self._at(data)
        data[at:at] = part

    # --- changes of JSON ---------------------------------------------------------------------------

    def _change(self, root: list[Any], others: Sequence[bytes]) -> None:
        """One change somewhere below `root`, which holds the document as its only item."""
        places: list[tuple[Any, Any]] = []
        _places(root, places)
        holder, key = self.random.choice(places)
        old = holder[key]
        match self.random.randrange(8):
            case 0:
                holder[key] = self._near(old)
            case 1 if isinstance(holder, dict):
                del holder[key]
            case 2 if isinstance(holder, dict):
                holder[self.random.choice(("", "x", "__class__", key + "s", "\ud800"))] = holder.pop(key)
            case 3 if isinstance(old, list):
                holder[key] = deepcopy(old * self.random.choice((0, 2, 50)) + old[:1])
            case 4 if isinstance(old, list):
                self.random.shuffle(old)
            case 5:
                other_holder, other_key = self.random.choice(places)
                if isinstance(old, (int, float, str)) and other_holder is not root:
                    holder[key] = deepcopy(other_holder[other_key])  # it may hold this very place
            case 6 if others:
                holder[key] = self._from_another(self.random.choice(others), old)
            case _:
                holder[key] = deepcopy(self.random.choice(VALUES))

    def _near(self, old: Any) -> Any:
        """A value of the same type that is a little off."""
        if isinstance(old, bool):
            return not old
        if isinstance(old, (int, float)):
            return self.random.choice((old + 1, old - 1, -old, old * 2, float(old), self.number()))
        if isinstance(old, str):
            return self.random.choice((old.upper(), old + "0", old[:-1], " " + old, old * 100))
        return [old]

    def _from_another(self, other: bytes, old: Any) -> Any:
        """A value that another sample has."""
        places: list[tuple[Any, Any]] = []
        _places([json.loads(other)], places)
        alike = [holder[key] for holder, key in places if type(holder[key]) is type(old)]
        return self.random.choice(alike) if alike else old


def _places(holder: Any, out: list[tuple[Any, Any]]) -> None:
    """Every (container, key or index) below a container."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        out.append((holder, key))
        if isinstance(holder[key], (dict, list)):
            _places(holder[key], out)
