"""A member of the swarm as others are told of it."""

from swisd.core import deadlines
from swisd.core.membership import Entry, Membership
from swisd.core.messages import MemberView
from swisd.core.types import HopParts


def member_view(entry: Entry, model: str) -> MemberView:
    """A device as the digest shows it; `model` is the manifest whose figures and holdings matter."""
    capability, beat = entry.capability, entry.beat
    profile = (
        next((item for item in capability.profiles if item.model == model), None) if capability else None
    )
    return MemberView(
        device=entry.device,
        name=capability.name if capability else entry.device,
        liveness=entry.liveness,
        state=beat.state if beat else "idle",
        addresses=capability.addresses if capability else (),
        port=capability.port if capability else 0,
        rank=capability.rank if capability else (1 << 62),
        broker=capability.broker if capability else False,
        memory_bytes=capability.memory_bytes if capability else 0,
        holds=tuple(
            (holding.model, start, end)
            for holding in sorted(
                capability.holds if capability else (), key=lambda item: item.model != model
            )
            for start, end in holding.ranges
        )[:64],
        layer_ms=profile.layer_ms if profile else 0.0,
        stage_ms=beat.stage_ms if beat else 0.0,
        hop=beat.hop if beat else HopParts(),
        resident_bytes=beat.resident_bytes if beat else 0,
        rtt_ms=min((link.rtt_ms for link in capability.links), default=0.0) if capability else 0.0,
        progress=beat.progress if beat else 0.0,
        sessions=len(beat.sessions) if beat else 0,
        note=beat.note if beat else "",
        warm=beat.warm if beat else (),
        drops=min(sum(beat.drops.values()), 1 << 53) if beat else 0,
    )


def name_of(entry: Entry | None) -> str:
    """What to call a device in words."""
    if entry is None:
        return "an unknown device"
    return entry.capability.name if entry.capability else entry.device


def still_measuring(members: Membership, model: str, now: float) -> bool:
    """Whether a first plan would be made before a newcomer knows its own speed and its links."""
    present = members.present()
    for entry in present:
        capability = entry.capability
        known = capability is not None and any(item.model == model for item in capability.profiles)
        if known and capability is not None and len(present) > 1:
            known = bool(capability.links)
        failed = entry.beat is not None and entry.beat.state == "failed"
        if not known and not failed and now - entry.joined < deadlines.MEASURING:
            return True
    return False
