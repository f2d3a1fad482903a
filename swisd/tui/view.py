"""The dashboard's state: a pure fold of what the node reports. No clock, no Textual."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from swisd.core.types import Plan
from swisd.tui import words
from swisd.tui.changes import Change, digest_changes, plan_changes
from swisd.tui.cover import CoverRow, cover_rows
from swisd.tui.rows import (
    DeviceRow,
    EventRow,
    Level,
    SegmentRow,
    SessionRow,
    Totals,
    device_rows,
    segment_rows,
    session_rows,
    slots,
    spans_of,
    totals,
)
from swisd.wire.messages import Digest

MAX_EVENTS = 200
MAX_HISTORY = 60
# A host that was silent this long and comes back with lower numbers has started over.
STARTED_OVER_S = 15.0


@dataclass(frozen=True, slots=True)
class NoticeSeen:
    """Something that this device wants its owner to know. `at`: seconds since 1970."""

    at: float
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Identity:
    """This device and its swarm."""

    device: str
    name: str
    join_code: str
    swarm_id: str
    home: str


@dataclass(frozen=True, slots=True)
class BusState:
    """Whether this device is connected to the swarm; `reason` says why not, or to whom."""

    connected: bool
    reason: str


SwarmEvent = Digest | Plan | NoticeSeen | Identity | BusState


@dataclass(frozen=True)
class SwarmView:
    """All that the widgets draw."""

    identity: Identity | None = None
    bus: BusState | None = None
    digest: Digest | None = None
    digest_at: float = 0.0
    plan: Plan | None = None
    letters: Mapping[str, int] = field(default_factory=dict)
    histories: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    devices: tuple[DeviceRow, ...] = ()
    segments: tuple[SegmentRow, ...] = ()
    cover: tuple[CoverRow, ...] = ()
    totals: Totals = field(default_factory=Totals)
    sessions: tuple[SessionRow, ...] = ()
    events: tuple[EventRow, ...] = ()  # oldest first

    @property
    def you(self) -> str:
        return self.identity.device if self.identity else ""

    @property
    def sessions_here(self) -> int:
        """Sessions that would have to be moved if this device left now."""
        return len(self.sessions) if self.you in spans_of(self.plan) else 0


def fold(view: SwarmView, event: SwarmEvent, now: float) -> SwarmView:
    """The view after one event; `now` is in seconds since 1970. Returns `view` itself if nothing changed."""
    match event:
        case Digest():
            return _digest(view, event, now)
        case Plan():
            return _plan(view, event, now)
        case NoticeSeen():
            return _log(view, [(event.level, words.clean(event.text))], event.at)
        case Identity():
            return _draw(replace(view, identity=event)) if event != view.identity else view
        case BusState():
            # The node gives notice of it; here it only changes the first line and the hint.
            return replace(view, bus=BusState(event.connected, words.clean(event.reason)))


def _digest(view: SwarmView, digest: Digest, now: float) -> SwarmView:
    last = view.digest
    if last is not None and _is_old(last, digest):
        if now - view.digest_at < STARTED_OVER_S:
            return view
        if view.plan is not None and view.plan.epoch > digest.epoch:
            view = replace(view, plan=None)
    view = _log(view, digest_changes(last, digest, digest.host == view.you), now)
    histories = {
        s.session: (*view.histories.get(s.session, ()), s.tokens_per_s)[-MAX_HISTORY:]
        for s in digest.sessions
    }
    return _draw(replace(view, digest=digest, digest_at=now, histories=histories))


def _is_old(last: Digest, digest: Digest) -> bool:
    """Out of order from the same host, or from a host whose epoch has been fenced by another one."""
    if digest.epoch != last.epoch:
        return digest.epoch < last.epoch
    return digest.host == last.host and digest.seq <= last.seq


def _plan(view: SwarmView, plan: Plan, now: float) -> SwarmView:
    last = view.plan
    if last is not None and (plan.epoch < last.epoch or plan == last):
        return view
    if plan.host != view.you:
        view = _log(view, plan_changes(last, plan), now)
    return _draw(replace(view, plan=plan))


def _draw(view: SwarmView) -> SwarmView:
    """The rows again from what is known now."""
    digest, plan = view.digest, view.plan
    letters = slots(digest, plan, view.you, view.letters) if digest else view.letters
    devices = device_rows(digest, plan, view.you, letters)
    return replace(
        view,
        letters=letters,
        devices=devices,
        segments=segment_rows(plan, devices, letters),
        cover=cover_rows(plan, digest),
        totals=totals(digest, plan),
        sessions=session_rows(digest, view.histories),
    )


def _log(view: SwarmView, lines: Iterable[Change], at: float) -> SwarmView:
    """Add lines to the events; a line said again is counted, so that a storm does not push all else out."""
    events = list(view.events)
    for level, text in lines:
        if events and (events[-1].level, events[-1].text) == (level, text):
            events[-1] = replace(events[-1], at=at, times=events[-1].times + 1)
        else:
            events.append(EventRow(at, level, text))
    return replace(view, events=tuple(events[-MAX_EVENTS:])) if events else view


def devices_hint(view: SwarmView) -> str:
    """What to do or wait for next, when there is not much to see yet; empty if all is well."""
    if view.bus is not None and not view.bus.connected:
        return f"Not connected to the swarm ({view.bus.reason or 'no answer'}). Trying again."
    if view.digest is None:
        return "Waiting for the first report of the swarm's host."
    if len(view.devices) < 2:
        return "No other device yet: press j for the join code."
    return ""


def plan_hint(view: SwarmView) -> str:
    """Why no session can start yet; empty while a plan is active."""
    plan, rows = view.plan, view.devices
    if plan is not None and plan.active and plan.pipelines:
        gone = sorted(
            {s.name: s.trouble for s in view.segments if s.trouble in ("lost", "failed", "left")}.items()
        )
        if not gone:
            return ""
        who = ", ".join(f"{name} ({state})" for name, state in gone)
        stopped = sorted({s.pipeline for s in view.segments if s.trouble in ("lost", "failed", "left")})
        if len(stopped) < len(plan.pipelines):
            numbers = ", ".join(str(number + 1) for number in stopped)
            what = "Pipeline" if len(stopped) == 1 else "Pipelines"
            return f"{what} {numbers} of plan {plan.epoch} cannot go on without {who}, the others go on."
        return f"Plan {plan.epoch} cannot go on without {who}; the host makes another."
    fetching = [row for row in rows if row.state.startswith("fetching")]
    if fetching:
        slowest = min(fetching, key=lambda row: row.progress)
        who = "" if slowest.you and len(rows) == 1 else f" by {slowest.name}"
        return f"Model is being fetched{who}: {words.percent(slowest.progress)}"
    if plan is not None and plan.pipelines:
        used = set(spans_of(plan))
        ready = sum(row.device in used and row.state == "ready" for row in rows)
        return f"Plan {plan.epoch} is being loaded: {ready} of {words.count(len(used), 'device')} ready."
    if view.digest is not None and view.digest.note:
        return words.clean(view.digest.note)
    if plan is not None and plan.problem:
        return f"No plan: {words.clean(plan.problem)}"
    if any(row.state == "measuring" for row in rows):
        return "No plan yet: devices are being measured."
    failed = [row.name for row in rows if row.state == "failed"]
    if failed:
        return f"No plan: {', '.join(failed)} failed, see the note."
    return "No plan yet."


SESSIONS_HINT = 'No session is running. On any device of the swarm: swisd ask "your question"'
