"""What one device knows of itself, of the swarm and of models; shared by the parts of its machine."""

from dataclasses import dataclass, field, replace

from swisd.core.config import DeviceConfig
from swisd.core.effects import Effect
from swisd.core.messages import Digest
from swisd.core.model import Manifest
from swisd.core.types import Capability, DeviceState, Plan, Units

Effects = list[Effect]


@dataclass(slots=True)
class Local:
    """The device's own state; `drops` counts what was refused, by reason."""

    config: DeviceConfig
    capability: Capability
    state: DeviceState = "idle"
    progress: float = 0.0
    note: str = ""
    ready_epoch: int = 0
    connected: bool = False
    stopping: bool = False
    free_bytes: int = 0
    resident_bytes: int = 0
    plan: Plan | None = None  # in service: the newest that was active, else the newest
    coming: Plan | None = None  # a newer one that is prepared meanwhile
    loaded: tuple[Units, ...] = ()  # shards in memory
    digest: Digest | None = None
    manifests: dict[str, Manifest] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)

    @property
    def device(self) -> str:
        return self.config.device

    @property
    def newest(self) -> Plan | None:
        return self.coming or self.plan

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the plan's model, once known."""
        return self.manifests.get(self.plan.model) if self.plan else None

    def name_of(self, device: str) -> str:
        """A device's name as the digest has it, else its id."""
        members = self.digest.members if self.digest is not None else ()
        return next((member.name for member in members if member.device == device), device)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count a refused message. At most 32 reasons are told apart."""
        if reason not in self.drops and len(self.drops) >= 31:
            reason = "other"
        self.drops[reason] = self.drops.get(reason, 0) + count

    def enter(self, state: DeviceState, progress: float = 0.0, note: str = "") -> bool:
        """Change what the next heartbeat says; True if it differs enough to be said at once."""
        changed = self.state != state or self.note != note
        self.state, self.progress, self.note = state, progress, note[:500]
        return changed


def capability_of(config: DeviceConfig) -> Capability:
    """What a device offers before it has measured anything."""
    return Capability(
        device=config.device,
        boot=config.boot,
        name=config.name,
        addresses=config.addresses,
        port=config.port,
        memory_bytes=config.memory_bytes,
        threads=config.threads,
        platform=config.platform,
        version=config.version,
        broker=config.broker,
        forge=config.forge,
        rank=config.rank,
    )


def update_capability(local: Local, **changes: object) -> bool:
    """Change the capability; True if it is different and should be published."""
    updated = replace(local.capability, **changes)  # type: ignore[arg-type]
    if updated == local.capability:
        return False
    local.capability = updated
    return True
