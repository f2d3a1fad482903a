"""The devices that a host plans with: who is left out for a while, who is at work, what is wrong."""

from collections.abc import Collection

from swisd.core import deadlines
from swisd.core.bans import Bans
from swisd.core.failover import devices_of, ranges_of
from swisd.core.membership import Membership
from swisd.core.messages import Beat
from swisd.core.model import Manifest
from swisd.core.placement import Placement
from swisd.core.replan import broken
from swisd.core.roster import name_of
from swisd.core.shards import memory_of
from swisd.core.types import Capability, Plan, Verdict


class Crew:
    """The members as a plan sees them; decides nothing."""

    def __init__(self, members: Membership) -> None:
        self.members = members
        self.bans = Bans()
        self.names: dict[str, str] = {}  # of devices that the host before knew
        self._sessions_at = -deadlines.DEAD  # when sessions were known of by other words than heartbeats

    def devices(self) -> list[Capability]:
        """Capabilities of the devices that a plan may use, by id."""
        return [item for item in self.members.usable() if item.device not in self.bans]

    # --- sessions ----------------------------------------------------------------------------------

    def note_sessions(self, now: float) -> None:
        """Somebody says that sessions run."""
        self._sessions_at = now

    def busy(self) -> bool:
        """Whether sessions run."""
        return any(entry.beat is not None and entry.beat.sessions for entry in self.members.present())

    def lately_busy(self, now: float) -> bool:
        """Whether sessions run, or ran on a device that was lost since."""
        beats = [entry.beat for entry in self.members.entries.values() if now - entry.seen < deadlines.DEAD]
        return now - self._sessions_at < deadlines.DEAD or any(beat and beat.sessions for beat in beats)

    # --- what is wrong with a plan, in words; empty if nothing is -----------------------------------

    def broken(self, plan: Plan) -> str:
        """Why a plan can no longer run, with the devices' names."""
        here = [entry.device for entry in self.members.present()]
        reason = broken(plan, here, self.bans)
        for device in devices_of(plan.pipelines):
            reason = reason.replace(f"device {device}", self.name_of(device))
        return reason

    def failed(self, plan: Plan) -> str:
        """Which device of a plan says that it cannot take its part."""
        for entry in self.members.present():
            beat = entry.beat
            if beat is not None and beat.state == "failed" and beat.device in devices_of(plan.pipelines):
                return f"{self.name_of(beat.device)} cannot run its part ({beat.note})"
        return ""

    def begun_anew(self, plan: Plan) -> str:
        """Which device of an active plan has nothing loaded for it and knows of no plan."""
        for entry in self.members.present():
            beat = entry.beat
            if beat is not None and plan.active and beat.state == "idle" and lacks(plan, beat):
                return f"{self.name_of(beat.device)} began anew"
        return ""

    def unfit(self, plan: Plan, manifest: Manifest, min_context: int) -> str:
        """Which device of a plan offers less memory by now than it needs."""
        for device, ranges in ranges_of(plan.pipelines).items():
            entry = self.members.entries.get(device)
            capability = entry.capability if entry else None
            if capability is not None and capability.memory_bytes < memory_of(
                manifest, set(ranges), min(plan.context, min_context)
            ):
                return f"{name_of(entry)} offers too little memory by now"
        return ""

    # --- what a plan says of devices ---------------------------------------------------------------

    def problem(self, found: Placement) -> str:
        """Why there is no pipeline; devices that are left out for a while may be the reason."""
        if found.pipelines or not self.bans:
            return found.problem[:500]
        notes = self.bans.words(self.name_of)
        said = [found.problem] if found.verdicts else []  # without a device left it says nothing of use
        return "; ".join((*said, *notes))[:500]

    def verdicts(self, found: Placement) -> tuple[Verdict, ...]:
        """Those of a placement, and of the devices that it was not told of."""
        return (*found.verdicts, *self.bans.verdicts())

    def name_of(self, device: str) -> str:
        """A device's name as it says itself, else as the host before knew it, else its id."""
        entry = self.members.entries.get(device)
        return name_of(entry) if entry is not None else self.names.get(device, device)

    def names_of(self, devices: Collection[str]) -> str:
        return ", ".join(self.name_of(device) for device in sorted(devices))


def lacks(plan: Plan, beat: Beat) -> bool:
    """Whether a device has in memory less than a plan gives it."""
    return not set(ranges_of(plan.pipelines).get(beat.device, ())) <= set(beat.warm)
