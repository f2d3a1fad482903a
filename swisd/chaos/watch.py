"""Waits for a swarm to stand as it should, asking it from a home that runs no device."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from swisd.chaos.standing import Standing
from swisd.client import AsyncClient
from swisd.core.errors import NoSwarm, SessionFailed, SwisdError

WHOLE_S = 90.0
SETTLED_S = 30.0
SPARES_S = 20.0  # spares are a help, not a condition
POLL_S = 0.2


class Watch:
    """`names`: the devices that a whole swarm has."""

    def __init__(self, home: Path, names: Sequence[str]) -> None:
        self._client, self._names = AsyncClient(home), names

    async def now(self) -> Standing:
        """How it stands. Raises `NoSwarm`, and `SessionFailed` if there is no plan at all."""
        digest, plan = await self._client.status()
        if plan is None:
            raise SessionFailed("the swarm has no plan")
        return Standing(digest, plan)

    async def host(self) -> str:
        """The name of the device that leads; empty if nobody says so."""
        with suppress(SwisdError):
            return (await self.now()).host
        return ""

    async def settled(self, without: Collection[str] = (), *, within: float = SETTLED_S) -> Standing:
        """Wait for a plan in force without these devices. Raises `SessionFailed` with what is missing."""
        return await self._until(lambda standing: standing.lacks((), without), within, list, digests=1)

    async def whole(self, ended: Callable[[], list[str]] = list) -> Standing:
        """Wait until everybody is there, and then a while for spares that are still loading.

        `ended` tells which processes have ended meanwhile. Raises `SessionFailed` with what is missing.
        """
        standing = await self._until(lambda standing: standing.lacks(self._names), WHOLE_S, ended)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SPARES_S
        while standing.spares_to_load() and loop.time() < deadline:
            await asyncio.sleep(POLL_S)
            standing = await self._until(lambda standing: standing.lacks(self._names), WHOLE_S, ended)
        return standing

    async def _until(
        self,
        lacks: Callable[[Standing], str],
        within: float,
        ended: Callable[[], list[str]],
        *,
        digests: int = 2,
    ) -> Standing:
        """Until so many digests of one host say so in a row: the first may be from before a change."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        seen: list[Standing] = []
        while True:
            if gone := ended():
                raise SessionFailed(f"the process of {' and '.join(gone)} has ended")
            standing: Standing | None = None
            try:
                standing = await self.now()
                why = lacks(standing)
            except (NoSwarm, SessionFailed) as error:
                why = str(error)
            if standing is None or why or (seen and seen[-1].digest.host != standing.digest.host):
                seen = []
            elif not seen or standing.digest.seq > seen[-1].digest.seq:
                seen.append(standing)
                if len(seen) >= digests:
                    return standing
            if loop.time() > deadline:
                raise SessionFailed(why or "the host tells nothing new")
            await asyncio.sleep(POLL_S)
