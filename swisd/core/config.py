"""What a device is told at start and never changes while it runs."""

from dataclasses import dataclass
from typing import Literal

from swisd.core.types import Objective

Claims = Literal["at once", "when silent", "never"]


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """Identity, offer and wishes of one device.

    `claims` says when it makes itself host: at once (it runs the swarm's broker), when no host is heard (an
    external broker), or never (it joined another device's broker). `boot` is in ms since 1970.
    """

    device: str
    boot: int
    name: str
    port: int = 0
    addresses: tuple[str, ...] = ()
    memory_bytes: int = 0
    threads: int = 1
    fewer: bool = False  # it computes with fewer threads if it measures that these are faster
    platform: str = ""
    version: str = ""
    broker: bool = False
    forge: bool = False
    rank: int = 0
    claims: Claims = "at once"
    model_id: str = ""
    objective: Objective = "latency"
    context: int = 4096
    min_context: int = 512
    journal_bytes: int = 32 << 20  # for what it sent on, so that a lost device's caches can be rebuilt
    speculation: bool = True  # as driver: run rows of tokens that may come next with that of the last one
    drafter: str = ""  # a small model that is ready here, to say which tokens may come next
    spares: bool = True  # as host: let devices with room to spare keep others' units loaded
