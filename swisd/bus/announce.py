"""Announcing the host over multicast DNS, and listening for announcements.

zeroconf is optional: a phone has none, and asks over UDP instead (probing.py).
"""

import asyncio
import importlib.util
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swisd.core.checked import Malformed
from swisd.net.interfaces import Interface, local_addresses
from swisd.wire.topics import IDENT

if TYPE_CHECKING:
    from zeroconf import ServiceInfo
    from zeroconf.asyncio import AsyncZeroconf

log = logging.getLogger(__name__)

SERVICE = "_swisd._tcp.local."
_RESOLVE_MS = 2000


@dataclass(frozen=True, slots=True)
class Announced:
    """A swarm's host as somebody announced it; nothing of it is proved."""

    swarm: str
    device: str
    addresses: tuple[str, ...]
    port: int


def available() -> bool:
    """Whether this device can speak multicast DNS."""
    return importlib.util.find_spec("zeroconf") is not None


class Announcer:
    """Announces this device as the host of a swarm, on its usable interfaces only."""

    def __init__(self, swarm: str, device: str, version: str, port: int) -> None:
        self._swarm, self._device, self._version, self._port = swarm, device, version, port
        self._zeroconf: AsyncZeroconf | None = None
        self._on: list[Interface] = []

    async def publish(self, *, timeout: float = 5.0) -> bool:
        """Announce, or announce anew where the addresses have changed. False (and logged) where it cannot."""
        interfaces = local_addresses()
        if self._zeroconf is not None and interfaces == self._on:
            return True
        await self.withdraw()
        if not available() or not interfaces:
            return False
        from zeroconf import Error, ServiceInfo

        info = ServiceInfo(
            SERVICE,
            f"{self._device}.{SERVICE}",
            port=self._port,
            properties={"id": self._swarm, "v": self._version, "d": self._device},
            server=f"swisd-{self._device}.local.",
            parsed_addresses=[each.address for each in interfaces],
        )
        try:
            async with asyncio.timeout(timeout):
                self._zeroconf = _open(interfaces)
                await (await self._zeroconf.async_register_service(info, allow_name_change=True))
        except (OSError, Error) as error:
            log.warning("cannot announce this swarm over multicast: %s", error or type(error).__name__)
            await self.withdraw()
            return False
        self._on = interfaces
        return True

    async def withdraw(self, *, timeout: float = 2.0) -> None:
        """Say goodbye, so that others stop offering this host."""
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is None:
            return
        from zeroconf import Error

        with suppress(OSError, Error):
            async with asyncio.timeout(timeout):
                await zeroconf.async_unregister_all_services()
        with suppress(OSError, Error):
            async with asyncio.timeout(timeout):
                await zeroconf.async_close()


async def listen(interfaces: list[Interface], heard: Callable[[Announced], None]) -> None:
    """Tell of every announcement heard, until cancelled. Raises `OSError` where multicast cannot be used."""
    from zeroconf import Error, ServiceStateChange
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo

    zeroconf = _open(interfaces)
    tasks: set[asyncio.Task[None]] = set()

    async def resolve(name: str) -> None:
        info = AsyncServiceInfo(SERVICE, name)
        if await info.async_request(zeroconf.zeroconf, _RESOLVE_MS):
            with suppress(Malformed):
                heard(read_announcement(info))

    def changed(*, name: str, state_change: ServiceStateChange, **_: object) -> None:
        if state_change is not ServiceStateChange.Removed and len(tasks) < 64:
            task = asyncio.get_running_loop().create_task(resolve(name))
            tasks.add(task)
            task.add_done_callback(_done)

    def _done(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("an announcement could not be read: %s", error)

    browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[changed])
    try:
        await asyncio.get_running_loop().create_future()  # until cancelled; the caller holds the deadline
    finally:
        for task in tasks:
            task.cancel()
        with suppress(OSError, Error):
            async with asyncio.timeout(1.0):
                await browser.async_cancel()
                await zeroconf.async_close()


def read_announcement(info: "ServiceInfo") -> Announced:
    """Check what an announcement says. Raises `Malformed`."""
    texts = {
        key.decode("ascii", "replace"): (value or b"").decode("ascii", "replace")
        for key, value in list(info.properties.items())[:16]
    }
    swarm, device, port = texts.get("id", ""), texts.get("d", ""), info.port or 0
    if not IDENT.fullmatch(swarm) or not IDENT.fullmatch(device) or not 1 <= port <= 65535:
        raise Malformed("an announcement of _swisd._tcp without a swarm and a device")
    return Announced(swarm, device, tuple(info.parsed_addresses()[:8]), port)


def _open(interfaces: list[Interface]) -> "AsyncZeroconf":
    from zeroconf import IPVersion
    from zeroconf.asyncio import AsyncZeroconf

    return AsyncZeroconf(interfaces=[each.address for each in interfaces], ip_version=IPVersion.V4Only)
