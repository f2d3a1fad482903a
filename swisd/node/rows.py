"""Rows as frames, and frames as rows: activations, and keys and values of one session."""

from typing import Any

from swisd.core.events import FrameArrived, KvArrived
from swisd.core.model import MAX_UNITS
from swisd.core.rows import TO_THE_END, Activation, KvRows
from swisd.core.types import Slot
from swisd.node.company import parted
from swisd.wire.frames import MAX_ROWS, Dtype, Frame, FrameKind
from swisd.wire.template import Template


def frame_of(rows: Activation | KvRows, sender: str) -> Frame:
    """Rows as a frame; an array's memory is sent as it lies, without a copy.

    Raises `TypeError` or `ValueError` for rows that make no frame.
    """
    return _kv_frame(rows, sender) if isinstance(rows, KvRows) else _activation_frame(rows, sender)


def template_of(row: Activation, sender: str, width: int) -> Template:
    """The frame of one row of so many values, which are yet to come."""
    return Template(_frame(row, sender, b"", width))


def _activation_frame(activation: Activation, sender: str) -> Frame:
    payload, width = flat(activation.payload, activation.rows) if activation.rows else (b"", 0)
    return _frame(activation, sender, payload, width)


def _frame(activation: Activation, sender: str, payload: Any, width: int) -> Frame:
    return Frame(
        FrameKind.ACTIVATION, activation.epoch, sender, activation.pipeline, activation.stage,
        activation.slots, Dtype.FLOAT32, width, activation.rows, payload, activation.until,
        activation.spent_ms,
    )  # fmt: skip


def _kv_frame(kv: KvRows, sender: str) -> Frame:
    start, end = kv.units
    rows = kv.rows * (end - start)
    if not 1 <= rows <= MAX_ROWS:
        raise ValueError(f"{kv.rows} positions of {end - start} units make no frame")
    payload, width = flat(kv.payload, rows)
    return Frame(
        FrameKind.KV, kv.epoch, sender, 0, start, (Slot(kv.session, 0, kv.position, kv.rows, 0),),
        Dtype.FLOAT32, width, rows, payload, end,
    )  # fmt: skip


def flat(payload: Any, rows: int) -> tuple[Any, int]:
    """The bytes of so many rows, and values per row."""
    if isinstance(payload, bytes | bytearray | memoryview):
        return payload, len(payload) // (4 * rows)
    return memoryview(payload).cast("B"), payload.shape[-1]


def activation_of(frame: Frame) -> Activation:
    """A frame's rows; the payload stays bytes until the compute thread reads it."""
    return Activation(
        frame.epoch, frame.pipeline, frame.stage, frame.slots, frame.rows, frame.payload, frame.until,
        frame.spent_ms,
    )  # fmt: skip


def kv_of(frame: Frame) -> KvRows:
    """A frame's keys and values; the payload stays bytes until the compute thread reads it."""
    slot = frame.slots[0]
    return KvRows(
        frame.epoch, slot.session, (frame.stage, frame.until), slot.position, slot.rows, frame.payload
    )


def arrived(device: str, frame: Frame) -> list[FrameArrived] | list[KvArrived]:
    """What a checked frame from a device means; nothing at all if it means nothing."""
    if frame.dtype is not Dtype.FLOAT32 or not frame.slots:
        return []
    if frame.kind is FrameKind.ACTIVATION and frame.stage <= frame.until <= TO_THE_END:
        return [FrameArrived(device, part) for part in parted(activation_of(frame))]
    if frame.kind is FrameKind.KV and _is_kv(frame):
        return [KvArrived(device, kv_of(frame))]
    return []


def _is_kv(frame: Frame) -> bool:
    units = frame.until - frame.stage
    return (
        len(frame.slots) == 1
        and units >= 1
        and frame.until <= MAX_UNITS
        and frame.rows == frame.slots[0].rows * units
        and frame.width >= 2
        and frame.width % 2 == 0
    )
