"""What this device says of itself, from its home, settings and system."""

import os
import platform
import sys
import time
from collections.abc import Sequence

from swisd.bus.broker import available as broker_available
from swisd.core.config import Claims, DeviceConfig
from swisd.node.home import Home, default_name
from swisd.node.importing import can_import
from swisd.node.memory import JOURNAL_MOST
from swisd.node.settings import DEFAULT_MODEL, Settings
from swisd.store.disk import BlobStore
from swisd.store.models import ModelIndex


def describe_device(
    home: Home,
    settings: Settings,
    *,
    claims: Claims,
    memory_bytes: int,
    journal_bytes: int = JOURNAL_MOST,
    port: int = 0,
    addresses: tuple[str, ...] = (),
) -> DeviceConfig:
    """The configuration of this device's machine. `memory_bytes` is offered beside `journal_bytes`."""
    from swisd import __version__

    identity = home.identity()
    return DeviceConfig(
        device=identity.device,
        boot=int(time.time() * 1000),
        name=settings.device.name or default_name(),
        port=port,
        addresses=addresses,
        memory_bytes=memory_bytes,
        threads=threads_of(settings),
        fewer=not settings.device.threads,
        platform=f"{sys.platform} {platform.machine()}"[:64],
        version=__version__,
        broker=broker_available(),
        forge=can_import(),
        rank=identity.since,
        claims=claims,
        model_id=model_of(home, settings),
        objective=settings.model.objective,
        context=settings.model.context,
        min_context=min(settings.model.min_context, settings.model.context),
        journal_bytes=journal_bytes,
        speculation=settings.device.speculation,
        drafter=settings.device.drafter if settings.device.speculation else "",
        spares=settings.model.spares,
    )


def model_of(home: Home, settings: Settings) -> str:
    """The model to serve: the one that is set, or of those that are whole here the default or the last added.

    With none here it is the default. A small model that guesses for another one is not meant.
    """
    return settings.model.id or best_of(models_in(home, settings))


def models_in(home: Home, settings: Settings) -> list[str]:
    """The models that are whole here and that this device may serve, the last added last."""
    index = ModelIndex(home.models, BlobStore(home.blobs))
    return [name for name in index.whole() if name != settings.device.drafter]


def best_of(models: Sequence[str]) -> str:
    """The default if it is there, or if nothing is; else the last one."""
    return models[-1] if models and DEFAULT_MODEL not in models else DEFAULT_MODEL


def threads_of(settings: Settings) -> int:
    """Threads to compute with, at most: as many as are set, else one for each core."""
    return settings.device.threads or min(len(_usable_cores()), 1024)


def counts_of(most: int) -> tuple[int, ...]:
    """Numbers of threads worth a try: all, then half as many at a time.

    Half of the cores may be twins of the others, or slow ones made to save power, and a container may get
    less of them than it sees. All threads of a pass wait for the slowest.
    """
    return tuple(dict.fromkeys(max(most >> halved, 1) for halved in range(most.bit_length())))


def _usable_cores() -> set[int]:
    """The cores this process may use; a container may have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
