"""How an asker reaches a swarm: that of this home's `swisd up`, one on the network, or this device alone."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from swisd.bus.api import Bus
from swisd.bus.memory import MemoryBus
from swisd.client.link import Follows, MakeBus, SwarmLink
from swisd.core.errors import NoSwarm
from swisd.node.courier import Courier
from swisd.node.home import Home
from swisd.node.settings import Settings, parse_size

CONNECT_S = 8.0
DIGEST_S = 8.0
AGAIN_S = 2.0  # between two looks for a swarm that is waited for


@asynccontextmanager
async def reach(
    home: Home,
    settings: Settings,
    tell: Callable[[str], None],
    *,
    alone: bool = True,
    patience: float | None = None,
) -> AsyncIterator[SwarmLink]:
    """A link to the swarm of this home.

    A swarm that is away is waited for `patience` seconds. None: not at all; with `alone` allowed, the model
    then runs on this device, and `tell` says so, as it does where no swarm is known. Raises `NoSwarm` or
    `WrongKey`.
    """
    key = home.key()
    async with AsyncExitStack() as stack:
        try:
            if key is None:
                raise Unfound(
                    f"no swarm is known in {home.path}: start one with `swisd up`, or join with "
                    "`swisd up --join`"
                )
            link = await _patiently(stack, home, settings, key, tell, patience)
        except Unfound as missing:
            if not alone or (key is not None and patience is not None):
                raise
            tell(f"{missing}; running on this device alone")
            link = await stack.enter_async_context(_alone(home, settings, tell))
        yield link


class Unfound(NoSwarm):
    """There is no swarm to be seen, in contrast to one that does not answer as it should."""


async def _patiently(
    stack: AsyncExitStack,
    home: Home,
    settings: Settings,
    key: bytes,
    tell: Callable[[str], None],
    patience: float | None,
) -> SwarmLink:
    """Open a link, again and again for `patience` seconds. Raises `NoSwarm` with the last reason."""
    loop = asyncio.get_running_loop()
    until, told = loop.time() + (patience or 0.0), False
    while True:
        try:
            return await stack.enter_async_context(_swarm(home, settings, key, tell))
        except NoSwarm as error:
            left = until - loop.time()
            if left <= 0:
                raise
            if not told:
                told = True
                tell(f"{error}; waiting for it")
        await asyncio.sleep(min(left, AGAIN_S))


@asynccontextmanager
async def _swarm(
    home: Home, settings: Settings, key: bytes, tell: Callable[[str], None]
) -> AsyncIterator[SwarmLink]:
    make_bus, tried = await _find_bus(home, settings, key)
    if make_bus is None:
        raise Unfound("no swarm answers here (tried: " + "; ".join(tried) + ")")
    async with SwarmLink(home, key, make_bus, tell, _following(home)) as link:
        await link.connected(CONNECT_S)
        await link.heard(DIGEST_S)
        yield link


def _following(home: Home) -> Callable[[Bus], Follows | None]:
    """A bus inside the swarm moves when the host does."""

    def follow(bus: Bus) -> Follows | None:
        from swisd.bus.mqtt import MqttBus
        from swisd.client.follow import Follower

        if not isinstance(bus, MqttBus) or not bus.moves:
            return None
        running = home.running()
        here = [(running.host, running.port)] if running is not None else []
        return Follower(bus, list(dict.fromkeys((*home.hosts(), *here))))

    return follow


@asynccontextmanager
async def _alone(home: Home, settings: Settings, tell: Callable[[str], None]) -> AsyncIterator[SwarmLink]:
    from swisd.core.effects import Notice
    from swisd.node.lonely import LonelyDevice
    from swisd.node.node import Observed

    def observe(event: Observed) -> None:
        if isinstance(event, Notice) and event.level == "error":
            tell(event.text)

    key = secrets.token_bytes(16)
    memory = parse_size(settings.device.memory) if settings.device.memory else None
    device = LonelyDevice(home, settings, key, observe, memory)

    def make_bus(courier: Courier, ident: str, on_state: Callable[[bool, str], None]) -> Bus:
        return MemoryBus(device.broker, ident, courier.receive, on_state)

    try:
        await device.start()
        async with SwarmLink(home, key, make_bus, tell) as link:
            await link.connected(CONNECT_S)
            await link.heard(DIGEST_S)
            yield link
    finally:
        await device.stop()


async def _find_bus(home: Home, settings: Settings, key: bytes) -> tuple[MakeBus | None, list[str]]:
    """A way to the bus, or what was tried."""
    from swisd.bus.discovery import Attempts
    from swisd.bus.endpoint import SwarmBroker
    from swisd.bus.mqtt import MqttBus
    from swisd.node.joining import look_for_host, outside_broker

    running = home.running()
    broker = running.broker if running is not None else settings.swarm.broker
    if broker:
        outside = outside_broker(broker, settings)

        def outside_bus(courier: Courier, ident: str, on_state: Callable[[bool, str], None]) -> Bus:
            return MqttBus(outside, ident, courier.receive, on_state)

        return outside_bus, []
    if running is not None:
        host, port = running.host, running.port
    else:
        attempts = Attempts()
        found = await look_for_host(home, settings, key, home.hosts(), attempts)
        if found is None:
            return None, attempts.tried
        host, port = found.host, found.port

    def swarm_bus(courier: Courier, ident: str, on_state: Callable[[bool, str], None]) -> Bus:
        endpoint = SwarmBroker(host, port, key, ident)
        return MqttBus(endpoint, ident, courier.receive, on_state)

    return swarm_bus, []
