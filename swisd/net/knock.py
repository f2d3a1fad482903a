"""Whether a device's process runs: a machine whose port nobody listens on refuses connections at once.

One that is off, cut off or behind a firewall says nothing, and nothing follows from that.
"""

import asyncio
from collections.abc import Sequence

from swisd.core import deadlines


async def port_closed(
    addresses: Sequence[tuple[str, int]],
    *,
    times: Sequence[float] = deadlines.KNOCKS,
    timeout: float = deadlines.KNOCK,
) -> bool:
    """Try a device's addresses at each of `times` (seconds from now), until they refuse. True if they do.

    A process that is killed closes its connections and its port one after the other, and the one may be seen
    before the other: hence more than one try. Raises nothing where a device cannot be reached.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    for after in times:
        await asyncio.sleep(max(0.0, began + after - loop.time()))
        if await _refused(addresses, timeout):
            return True
    return False


def loops(address: str) -> bool:
    """Whether an address is one of the loopback: every machine's own."""
    return address.startswith("127.")


def telling(addresses: Sequence[tuple[str, int]], *, near: bool) -> list[tuple[str, int]]:
    """The addresses of a device whose refusal tells of that device.

    Another machine's address of the loopback is this machine's own: that it refuses means nothing, unless the
    device is known to be `near`, on this machine.
    """
    return [where for where in addresses if near or not loops(where[0])]


async def _refused(addresses: Sequence[tuple[str, int]], timeout: float) -> bool:
    """Whether some address refuses and none accepts. Those that do not answer within `timeout` do not count:
    a device has addresses on networks that this one is not in."""
    attempts = [asyncio.ensure_future(_accepts(host, port, timeout)) for host, port in addresses]
    answers: list[bool | None] = []
    try:
        for attempt in asyncio.as_completed(attempts):
            answers.append(await attempt)
            if answers[-1]:
                return False
    finally:
        for task in attempts:
            task.cancel()
    return False in answers


async def _accepts(host: str, port: int, timeout: float) -> bool | None:
    """True if somebody listens there, False if the connection is refused, None if neither is known."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    except (OSError, ValueError):  # TimeoutError is an OSError; a port or name that cannot be is a ValueError
        return None
    writer.transport.abort()  # without a word: the other side does not count it among its strangers
    return True
