"""How a device comes into a swarm: it makes one, finds its host, or is told where the host is."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swisd.bus.discovery import Attempts, Found, find
from swisd.bus.endpoint import OutsideBroker, parse_broker_url
from swisd.core.errors import NoSwarm, WrongKey
from swisd.node.home import Home
from swisd.node.settings import Settings
from swisd.wire.joincode import JoinCode
from swisd.wire.topics import swarm_id

LOOK_AROUND_S = 1.5


@dataclass(frozen=True, slots=True)
class Way:
    """Where the bus is. Neither host nor broker: this device starts the broker itself."""

    key: bytes
    host: str = ""
    port: int = 0
    outside: OutsideBroker | None = None
    said: str = ""  # how it was found, for the log


async def find_way(home: Home, settings: Settings, code: JoinCode | None) -> Way:
    """Decide how to join. Makes the swarm key if this is a new swarm.

    Raises `NoSwarm` if a join code leads nowhere (with what was tried), `WrongKey`, `BadInput`.
    """
    home.must_be_free()  # before its key is touched
    key = code.key if code is not None else home.key()
    if settings.swarm.broker:
        outside = outside_broker(settings.swarm.broker, settings)
        key = _keep(home, key)
        return Way(key, outside=outside, said=f"external broker {outside.host}:{outside.port}")
    if key is None:
        return Way(_keep(home, None), said=await _new_swarm(home, settings))
    hints = [(code.host, code.port)] if code is not None and code.host and code.port else []
    attempts = Attempts()
    known = home.hosts() if home.key() == key else ()
    found = await look_for_host(home, settings, key, [*hints, *known], attempts)
    if found is not None:
        _keep(home, key)
        return Way(key, found.host, found.port, said=f"found by {found.how}")
    if code is None:
        return Way(key, said="no other device of this swarm answers: " + "; ".join(attempts.tried[:3]))
    tried = "; ".join(attempts.tried)
    if attempts.wrong_key:
        raise WrongKey(
            f"the device at {code.host}:{code.port} belongs to another swarm than this join code: "
            "copy the code again from `swisd code` there"
        )
    raise NoSwarm(
        f"no device of swarm {swarm_id(key)} answers; is `swisd up` running there, and is this device on the "
        f"same network? tried: {tried or 'nothing'}"
    )


async def look_for_host(
    home: Home,
    settings: Settings,
    key: bytes,
    hints: Iterable[tuple[str, int]],
    attempts: Attempts | None = None,
) -> Found | None:
    """Search as this device's settings say, the `hints` first. `attempts` is filled as it goes."""
    return await find(
        key,
        home.identity().device,
        hints=hints,
        timeout=settings.swarm.find_seconds,
        zeroconf=settings.swarm.multicast,
        extra_ports=settings.swarm.probe_ports,
        attempts=attempts,
    )


def outside_broker(url: str, settings: Settings) -> OutsideBroker:
    """An external broker and the certificate that the settings name for it. Raises `BadInput`."""
    ca_file = settings.swarm.broker_ca
    return parse_broker_url(url, Path(ca_file).expanduser() if ca_file else None)


async def _new_swarm(home: Home, settings: Settings) -> str:
    """What to say of a new swarm: perhaps its owner meant to join the one next door."""
    attempts = Attempts()
    if settings.swarm.multicast and not settings.device.address:
        nobody = secrets.token_bytes(16)
        await find(nobody, home.identity().device, timeout=LOOK_AROUND_S, attempts=attempts)
    if not attempts.others:
        return "a new swarm"
    names = ", ".join(sorted(attempts.others))
    return (
        f"a new swarm; on this network there is also swarm {names}: to join it instead, stop this and run "
        "`swisd up --join CODE` with the code that `swisd code` shows there"
    )


def _keep(home: Home, key: bytes | None) -> bytes:
    if key is None:
        return home.key() or home.make_key()
    home.set_key(key)
    return key
