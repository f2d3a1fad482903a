"""How a swarm stands at one moment, as its host tells it, and what changed between two moments."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from swisd.chaos.cast import Part, cast
from swisd.chaos.report import TakenOver
from swisd.core.messages import Digest
from swisd.core.types import Plan


@dataclass(frozen=True, slots=True)
class Standing:
    """Digest and plan of one moment."""

    digest: Digest
    plan: Plan

    @property
    def host(self) -> str:
        """The name of the device that leads."""
        return self.name(self.digest.host)

    @property
    def driver(self) -> str:
        """The name of the device that drives, or of the first that does; empty without a plan."""
        return next((self.name(driver) for driver in self.plan.drivers), "")

    @property
    def parts(self) -> dict[str, Part]:
        """Every living device by name."""
        return cast(self.plan, self.digest)

    def name(self, device: str) -> str:
        found = (member.name for member in self.digest.members if member.device == device)
        return next(found, device)

    def runs(self, unit: int) -> list[str]:
        """Who runs a unit."""
        stages = [stage for pipeline in self.plan.pipelines for stage in pipeline.stages]
        return [self.name(stage.device) for stage in stages if stage.start <= unit < stage.end]

    def lacks(self, names: Iterable[str], without: Collection[str] = ()) -> str:
        """Why the swarm is not ready, in words; empty if it is.

        All of `names` have to be alive and measured; none of `without` may lead or be in the plan.
        """
        if not self.plan.active:
            return self.plan.problem or f"plan {self.plan.epoch} is not in force"
        if self.plan.epoch != self.digest.epoch:
            return f"plan {self.digest.epoch} is on its way"
        alive = [member for member in self.digest.members if member.liveness == "alive"]
        ready = {member.name for member in alive if member.layer_ms}
        away = [name for name in names if name not in ready]
        if away:
            return f"{' and '.join(away)} not back"
        if self.host in without:
            return f"{self.host} still leads"
        still = [name for name, part in self.parts.items() if name in without and part.units]
        return f"{' and '.join(still)} still in the plan" if still else ""

    def spares_to_load(self) -> int:
        """Spares of the plan that are not in memory yet."""
        warm = {member.device: member.warm for member in self.digest.members}
        return sum(
            not any(start <= spare.start and spare.end <= end for start, end in warm.get(spare.device, ()))
            for spare in self.plan.spares
        )

    def __str__(self) -> str:
        words = [f"{part.name} ({_units(part)})" for part in self.parts.values()]
        return f"plan {self.plan.epoch} on {', '.join(words)}"


def _units(part: Part) -> str:
    spans = ", ".join(f"units {start} to {end - 1}" for start, end in part.units)
    return f"{part.role}: {spans}" if part.units else "no units"


def taken_over(victims: Sequence[Part], before: Standing, after: Standing) -> tuple[TakenOver, ...]:
    """Who leads, drives and runs the units now that were those of the victims."""
    found: list[TakenOver] = []
    names = {part.name for part in victims}
    if before.host in names and after.host != before.host:
        found.append(TakenOver("host", (after.host,)))
    if before.driver in names and after.driver not in ("", before.driver):
        found.append(TakenOver("driver", (after.driver,)))
    for part in victims:
        for start, end in part.units:
            by = dict.fromkeys(name for unit in range(start, end) for name in after.runs(unit))
            if tuple(by) != (part.name,):
                found.append(TakenOver("units", tuple(by), (start, end)))
    return tuple(found)
