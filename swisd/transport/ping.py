"""Pings, the same on every lane: answering them, and measuring a link with them."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from statistics import median

from swisd.transport.api import LaneDown, Probe
from swisd.wire.frames import Frame, FrameKind

Send = Callable[[str, Frame], Awaitable[None]]


def pong(me: str, ping: Frame) -> Frame:
    """The answer to a ping: its number and its bytes."""
    return Frame(FrameKind.PONG, ping.epoch, me, payload=ping.payload)


class Pinger:
    """Pings under way. A ping carries its number in the field `epoch`, which means nothing else there."""

    def __init__(
        self, me: str, drops: Counter[str], *, answer_s: float = 5.0, clock: Callable[[], float] | None = None
    ) -> None:
        self._me, self._drops, self._answer_s = me, drops, answer_s
        self._clock = clock or time.perf_counter
        self._number = 0
        self._waiting: dict[tuple[str, int], asyncio.Future[int]] = {}

    def arrived(self, device: str, frame: Frame) -> None:
        """A PONG came from `device`."""
        future = self._waiting.get((device, frame.epoch))
        if future is None or future.done():
            self._drops["pong nobody waits for"] += 1
        else:
            future.set_result(len(frame.payload))

    def lost(self, device: str, reason: str) -> None:
        """The link to `device` broke: its pings need not be waited for."""
        for (whom, _), future in self._waiting.items():
            if whom == device and not future.done():
                future.set_exception(LaneDown(device, reason))

    async def ping(self, send: Send, device: str, payload: bytes) -> float:
        """Milliseconds until a ping with `payload` came back. Raises `LaneDown`."""
        self._number += 1
        ticket = device, self._number
        self._waiting[ticket] = asyncio.get_running_loop().create_future()
        begin = self._clock()
        try:
            async with asyncio.timeout(self._answer_s):
                await send(device, Frame(FrameKind.PING, self._number, self._me, payload=payload))
                echoed = await self._waiting[ticket]
        except TimeoutError:
            raise LaneDown(device, f"no answer to a ping within {self._answer_s:g} s") from None
        finally:
            future = self._waiting.pop(ticket)
            future.cancel()
        if echoed != len(payload):
            raise LaneDown(device, "its answer to a ping has another length")
        return (self._clock() - begin) * 1000

    async def probe(self, send: Send, device: str, payload_bytes: int, count: int) -> Probe:
        """See `Lanes.probe`. The payload travels both ways; what the small ping takes is subtracted."""
        payload = bytes(payload_bytes)
        small = [await self.ping(send, device, b"") for _ in range(max(1, count))]
        large = [await self.ping(send, device, payload) for _ in range(max(1, count))]
        rtt = median(small)
        # The best of the large ones: what slows a transfer down is other traffic, not the link.
        both_ways_ms = max(min(large) - rtt, 1e-3)
        return Probe(rtt, 2 * 8 * payload_bytes / both_ways_ms / 1000)
