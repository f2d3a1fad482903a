"""What happened between two digests or two plans, as lines for the events log.

Only the host's node speaks of plans and of devices that leave, and only on its own screen: `here` says that
this device is the host, where those lines would come twice.
"""

from collections.abc import Iterator, Mapping

from swisd.core.types import Plan
from swisd.tui.rows import Level, name_of, names_of, spans_of
from swisd.tui.words import clean, count, millis
from swisd.wire.messages import Digest, MemberView

Change = tuple[Level, str]


def digest_changes(before: Digest | None, after: Digest, here: bool) -> Iterator[Change]:
    """Devices that came, went or failed, another host, sessions that began or ended."""
    if before is None:
        alive = sum(member.liveness in ("alive", "suspect") for member in after.members)
        yield "info", f"{count(alive, 'device')} in the swarm"
        for member in after.members:
            if member.state == "failed" and member.liveness == "alive":
                yield _failed(member)
        return
    names = names_of(before) | names_of(after)
    if before.host != after.host and not here:
        yield "warning", f"{name_of(after.host, names)} is now the host"
    known = {member.device: member for member in before.members}
    for member in after.members:
        yield from _member_changes(known.get(member.device), member, here)
    alive = sum(member.liveness in ("alive", "suspect") for member in after.members)
    for device in after.uncovered if alive > 1 else ():
        if device not in before.uncovered:
            name = name_of(device, names)
            yield "warning", f"nobody has room to stand in for {name}: if it is lost, its part is loaded anew"
    yield from _session_changes(before, after, names)


def _member_changes(before: MemberView | None, after: MemberView, here: bool) -> Iterator[Change]:
    name = clean(after.name) or after.device[:8]
    was = before.liveness if before else None
    if after.liveness in ("alive", "suspect") and was in (None, "left"):
        yield "info", f"{name} joined"
    elif after.liveness == "alive" and was == "dead":
        yield "info", f"{name} is back"
    elif after.liveness == "dead" and was in ("alive", "suspect"):
        yield "error", f"{name} is lost: it no longer answers"
    elif after.liveness == "left" and was in ("alive", "suspect") and not here:
        yield "info", f"{name} left"
    if after.state == "failed" and after.liveness == "alive" and (before is None or before.state != "failed"):
        yield _failed(after)


def _failed(member: MemberView) -> Change:
    name, note = clean(member.name) or member.device[:8], clean(member.note)
    return "error", f"{name} failed: {note}" if note else f"{name} failed"


def _session_changes(before: Digest, after: Digest, names: Mapping[str, str]) -> Iterator[Change]:
    old, new = {s.session: s for s in before.sessions}, {s.session: s for s in after.sessions}
    for key, session in new.items():
        if key not in old:
            prompt = count(session.prompt_tokens, "prompt token")
            yield "info", f"session {clean(key[:6])} of {name_of(session.asker, names)}: {prompt}"
    for key, session in old.items():
        if key not in new:
            yield "info", f"session {clean(key[:6])} ended after {count(session.tokens, 'token')}"


def plan_changes(before: Plan | None, after: Plan) -> Iterator[Change]:
    """A new plan, its devices loaded, or why there is none."""
    if after.problem and (before is None or before.problem != after.problem or before.epoch != after.epoch):
        yield "warning", f"no plan: {clean(after.problem)}"
    new = before is None or before.epoch != after.epoch
    if not after.pipelines or not (new or (after.active and before is not None and not before.active)):
        return
    verb = "is active" if after.active else "is being loaded"
    devices = count(len(spans_of(after)), "device")
    if len(after.pipelines) > 1:
        devices = f"{devices} in {len(after.pipelines)} pipelines"
    predicted = millis(after.prediction.token_ms)
    yield "info", f"plan {after.epoch} {verb}: {devices}, {predicted} ms/token predicted"
