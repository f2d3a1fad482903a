"""Rows that go to the next device right from the computing thread, before the machine hears of them.

The way through the event loop and the machine and back to a lane takes as long as a layer, and nothing is
decided on it: where rows of a step go was said with the step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from swisd.core.effects import RunStep
from swisd.core.events import Event, StepDone
from swisd.core.types import Slot
from swisd.node.company import companies, joined
from swisd.node.hops import HopTimes, clock
from swisd.node.rows import frame_of, template_of
from swisd.transport.api import Lanes, packed
from swisd.wire.template import Template


@dataclass(frozen=True, slots=True)
class _Ready:
    """The frame of a step's row, but for its values. Who runs the step has the very same slots."""

    slots: tuple[Slot, ...]
    template: Template


class Onward:
    """`clear` says whether rows for a device wait to be sent: nobody overtakes them."""

    def __init__(self, lanes: Lanes, device: str, clear: Callable[[str], bool], times: HopTimes) -> None:
        self._lanes, self._device, self._clear, self._times = lanes, device, clear, times
        self._ready: _Ready | None = None

    def prepare(self, asked: RunStep, width: int) -> None:
        """Make what can be made of the frame of one row of so many values, before they are here."""
        if asked.onward:
            row = asked.activation
            template = template_of(row.onward(1, b"", 0.0), self._device, width)
            self._ready = _Ready(row.slots, template)

    def send(self, effects: Sequence[RunStep], events: Sequence[Event]) -> Sequence[Event]:
        """Send what steps made, if one frame takes it all; the events say whether it is sent.

        Called in the computing thread. What cannot go at once the machine sends as ever, or learns why not.
        """
        ended, device = clock(), effects[0].onward
        if not device or not self._clear(device):
            return events
        try:
            frame = self._frame(effects, events)
        except (TypeError, ValueError):
            return events
        made = clock()
        if frame is None or not self._lanes.try_send_threadsafe(device, *frame):
            return events
        first = events[0]
        if len(events) == 1 and isinstance(first, StepDone) and first.rows == 1:
            self._times.sent_onward(made - ended)
        return [replace(event, sent=True) if isinstance(event, StepDone) else event for event in events]

    def _frame(
        self, effects: Sequence[RunStep], events: Sequence[Event]
    ) -> tuple[list[memoryview], int] | None:
        """One frame with all that steps made, as buffers and their size; None if one does not do.

        Raises `TypeError` and `ValueError` for rows that make no frame.
        """
        ready, self._ready = self._ready, None
        if ready is not None and len(effects) == 1 and effects[0].activation.slots is ready.slots:
            event, row = events[0], effects[0].activation
            if isinstance(event, StepDone) and event.rows == 1:
                values = memoryview(event.payload).cast("B")
                return ready.template.fill(values, row.spent_ms + event.ran_ms)
        rows = []
        for effect, event in zip(effects, events, strict=True):
            if effect.onward != effects[0].onward or not isinstance(event, StepDone):
                return None
            rows.append(effect.activation.onward(event.rows, event.payload, event.ran_ms))
        if len(rows) > 1 and len(companies(rows)) > 1:
            return None
        return packed(frame_of(joined(rows), self._device))
