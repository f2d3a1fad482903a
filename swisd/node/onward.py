"""Rows that go to the next device right from the computing thread, before the machine hears of them.

The way through the event loop and the machine and back to a lane takes as long as a layer, and nothing is
decided on it: where rows of a step go was said with the step.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from swisd.core.effects import RunStep
from swisd.core.events import Event, StepDone
from swisd.node.company import companies, joined
from swisd.node.hops import HopTimes, clock
from swisd.node.rows import frame_of
from swisd.transport.api import Lanes, packed


class Onward:
    """`clear` says whether rows for a device wait to be sent: nobody overtakes them."""

    def __init__(self, lanes: Lanes, device: str, clear: Callable[[str], bool], times: HopTimes) -> None:
        self._lanes, self._device, self._clear, self._times = lanes, device, clear, times

    def send(self, effects: Sequence[RunStep], events: Sequence[Event]) -> Sequence[Event]:
        """Send what steps made, if one frame takes it all; the events say whether it is sent.

        Called in the computing thread. What cannot go at once the machine sends as ever, or learns why not.
        """
        ended, device = clock(), effects[0].onward
        if not device or not self._clear(device):
            return events
        rows, done = [], []
        for effect, event in zip(effects, events, strict=True):
            if effect.onward != device or not isinstance(event, StepDone):
                return events
            rows.append(effect.activation.onward(event.rows, event.payload, event.ran_ms))
            done.append(event)
        if len(rows) > 1 and len(companies(rows)) > 1:
            return events
        try:
            buffers, size = packed(frame_of(joined(rows), self._device))
        except (TypeError, ValueError):
            return events
        made = clock()
        if not self._lanes.try_send_threadsafe(device, buffers, size):
            return events
        if len(rows) == rows[0].rows == 1:
            self._times.sent_onward(made - ended)
        return [replace(event, sent=True) for event in done]
