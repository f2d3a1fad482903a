"""Rows of several steps in one frame: joined where they leave, parted where they arrive.

They are of several sessions that go on, or of one that is brought back. Between devices they are one frame;
to the machines they are steps of their own.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from swisd.core.rows import Activation, KvRows
from swisd.wire.frames import MAX_SLOTS

Sent = Activation | KvRows


def companies(rows: Sequence[Sent]) -> list[list[Sent]]:
    """Rows for one device in their order, those side by side that can share a frame."""
    found: list[list[Sent]] = []
    for key, items in groupby(rows, _way):
        together = list(items)
        most = MAX_SLOTS if key is not None else 1
        found.extend(together[at : at + most] for at in range(0, len(together), most))
    return found


def _way(rows: Sent) -> tuple[int, ...] | None:
    """Equal for rows that go the same way; None for those that travel alone."""
    if isinstance(rows, KvRows) or not hasattr(rows.payload, "shape"):
        return None
    if len(rows.slots) != 1 or rows.rows != 1 or rows.slots[0].rows != 1:
        return None
    return rows.epoch, rows.pipeline, rows.stage, rows.until


def joined(rows: Sequence[Sent]) -> Sent:
    """The rows of one company as one."""
    first = rows[0]
    if len(rows) == 1 or isinstance(first, KvRows):
        return first
    import numpy as np

    parts = [item for item in rows if isinstance(item, Activation)]
    slots = tuple(slot for item in parts for slot in item.slots)
    payload = np.concatenate([item.payload for item in parts])
    return replace(first, slots=slots, rows=len(slots), payload=payload)


def parted(activation: Activation) -> list[Activation]:
    """Each step's rows; empty if they are not those that its slots name."""
    slots = activation.slots
    if len(slots) == 1:
        return [activation]
    if sum(slot.rows for slot in slots) != activation.rows:
        return []
    width = len(activation.payload) // activation.rows
    found: list[Activation] = []
    at = 0
    for slot in slots:
        part: Any = activation.payload[at * width : (at + slot.rows) * width]
        found.append(replace(activation, slots=(slot,), rows=slot.rows, payload=part))
        at += slot.rows
    return found
