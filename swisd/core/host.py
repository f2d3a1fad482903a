"""A device as host: keeps the membership, has the plan made, says both to everyone."""

from dataclasses import replace

from swisd.core import deadlines
from swisd.core.awaited import Awaited
from swisd.core.crew import Crew
from swisd.core.effects import Knock, Notice, Publish
from swisd.core.events import ProvideFailed, ProvideProgress
from swisd.core.local import Effects, Local
from swisd.core.membership import Membership
from swisd.core.messages import Beat, Call, Digest, Gone, MemberView
from swisd.core.planning import Planning
from swisd.core.provision import Provision
from swisd.core.rollout import Rollout
from swisd.core.roster import member_view, name_of
from swisd.core.types import Beyond, Capability, Plan

NOT_RUNNING = "its swisd is no longer running"


class Host:
    """The host's state; idle unless this device leads."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.members = Membership()
        self.crew = Crew(self.members)
        self.rollout = Rollout(local, self.crew)
        self.planning = Planning(local, self.crew, self.rollout)
        self.provision = Provision(local)
        self._awaited = Awaited(local.device, self.members)
        self._seq = 0
        self._news = False  # something that a person watches changed since the last digest
        self._said_at = -1e9
        self._broken: dict[str, dict[str, float]] = {}  # device -> what broke, and until when that counts
        self._knocked: dict[str, object] = {}  # device -> which start of it was in doubt, and where

    @property
    def plan(self) -> Plan | None:
        return self.rollout.plan

    @property
    def epoch(self) -> int:
        """The highest epoch this host has made or heard of."""
        return self.rollout.epoch

    @property
    def followed(self) -> bool:
        """Whether another device is here, alive."""
        me = self._local.device
        return any(entry.liveness == "alive" and entry.device != me for entry in self.members.present())

    def begin(self, now: float, out: Effects) -> None:
        """Become host: continue above every epoch that was ever heard."""
        self.members.clear()
        self._broken, self._knocked = {}, {}
        self._awaited.begin(now)
        self.planning.begin(now)
        before = self._local.digest
        if before is not None and before.host != self._local.device:
            self._follow(before, now)
        self.provision.begin(now)
        out.extend(knock for device in self._awaited for knock in self._knock(device))
        out.append(Notice("info", "this device is the host: it plans for the swarm"))
        self._say(now, out)

    def _follow(self, before: Digest, now: float) -> None:
        """Take up what the lost host had: its epoch, its model, its devices."""
        self.planning.fence(before.epoch, now)
        self.rollout.next_epoch()
        self.crew.note_sessions(now)  # the lost host may have been their driver
        self.provision.model_id = before.model_id or self.provision.model_id
        self.crew.names = {item.device: item.name for item in before.members}
        self._awaited.expect(before)

    def stood_still(self, seconds: float, now: float) -> None:
        """This process was stopped for a while: nobody else is late, but another may have taken over."""
        for entry in self.members.entries.values():
            entry.seen += seconds
        self._awaited.hold(now + deadlines.SEEK_WAIT)

    def outrank(self, epoch: int, now: float) -> None:
        """Another host gives way to this one: its plan, too, is overtaken."""
        if self.plan is not None and epoch >= self.plan.epoch:
            self.planning.renew("another host made a plan", now)
        self.planning.fence(epoch, now)

    def give_way(
        self, to: str, where: tuple[tuple[str, int], ...], rank: int, epoch: int, out: Effects
    ) -> None:
        """The last word of a host: its clients find the bus on that device from now on.

        Two plans of one epoch must not meet: this host's ends with an empty one, which the other outranks.
        """
        if self.plan is not None and self.plan.epoch >= epoch and self.followed:
            self.rollout.empty(out)
        digest = self._digest()
        if where and not any(member.device == to and member.port for member in digest.members):
            there = MemberView(
                to, to, "alive", "idle", tuple(address for address, _ in where), where[0][1], rank, True, 0
            )
            members = (*(member for member in digest.members if member.device != to), there)
            digest = replace(digest, members=members)
        members = tuple(
            replace(item, liveness="alive") if item.device == to else item for item in digest.members
        )
        out.append(Publish(replace(digest, members=members, successor=to)))

    # --- what is heard -----------------------------------------------------------------------------

    def on_beat(self, beat: Beat, now: float, out: Effects) -> None:
        planning, rollout = self.planning, self.rollout
        known = self.members.entries.get(beat.device)
        before = known.beat if known is not None and known.boot == beat.boot else None
        new = before is None
        self._news = self._news or new or (before is not None and before.state != beat.state)
        self._broken.pop(beat.device, None)
        if self.members.on_beat(beat, now) or new:
            planning.touch(now)
        planning.fence(beat.epoch, now, beat)
        if new and rollout.lacks(beat):
            planning.on_reborn(beat.device, name_of(known), now)
        rollout.on_progress(beat.device, beat.progress, now)
        if beat.state in ("ready", "failed") and (before is None or before.epoch != beat.epoch):
            planning.follow_loading(now, out)

    def on_capability(self, capability: Capability, now: float) -> None:
        if self.members.on_capability(capability, now):
            self.planning.touch(now)

    def on_gone(self, gone: Gone, now: float, out: Effects) -> None:
        entry = self.members.entries.get(gone.device)
        if self.members.on_gone(gone):
            out.append(Notice("info", f"{name_of(entry)} left"))
            self.planning.touch(now)
            self._plan(now, out)
        elif not gone.proper and entry is not None and entry.boot == gone.boot:
            self._evidence(gone.device, "its bus connection broke", now, out)

    def on_rival(self, digest: Digest, now: float) -> None:
        """Another host speaks, who will step down: its plans must not outrank this one's."""
        if self.plan is not None and digest.epoch == self.plan.epoch:
            self.planning.renew("another host made a plan", now)
        self.planning.fence(digest.epoch, now)

    def on_call(self, call: Call, now: float, out: Effects) -> None:
        provision, planning, rollout = self.provision, self.planning, self.rollout
        current = self.plan is not None and call.epoch == self.plan.epoch
        about = self.members.entries.get(call.about)
        if call.op == "model" and call.model_id and call.model_id != provision.model_id:
            out.append(Notice("info", f"model {call.model_id} was asked for"))
            provision.wish(call.model_id, now)
        if call.op in ("model", "replan"):
            planning.touch(now)
        elif not current or not rollout.uses(call.about) or call.about == self._local.device:
            self._local.drop("word about a device that the plan does not need")
        elif about is not None and about.liveness == "left":
            return  # it said so itself
        elif call.op == "broken":
            self.crew.note_sessions(now)
            self._evidence(call.about, "its lane broke", now, out)
        elif call.op == "suspect":
            self.crew.note_sessions(now)
            self._lose(call.about, "it does not answer", now, out)
        elif rollout.can_do_without(call.about):
            planning.ban(call.about, "was late again and again", now)

    def on_port_closed(self, device: str, now: float, out: Effects) -> None:
        """Nothing listens on a device's port: it is lost if there is doubt of it already, and not waited for.

        A device that since began anew, or is elsewhere, is another one. That it was heard means nothing: its
        broker passes on what it said, and that its connection broke, in any order.
        """
        entry = self.members.entries.get(device)
        silent = entry is None or entry.beat is None
        if silent and (view := self._awaited.give_up(device)) is not None:
            self._broken.pop(device, None)
            out.append(Notice("warning", f"{view.name} is lost: {NOT_RUNNING}"))
            self._news = True
            self._plan(now, out)
        elif self._knocked.pop(device, None) == self._at(device):
            why = " and ".join([*self._broken.get(device, ()), NOT_RUNNING])
            self._lose(device, why, now, out, deaf_until=now + deadlines.EVIDENCE)

    def on_provided(self, now: float) -> None:
        self.provision.on_provided()
        self.planning.touch(now)

    def on_provide_progress(self, event: ProvideProgress) -> None:
        self.provision.on_progress(event)
        self._news = True

    def on_provide_failed(self, event: ProvideFailed, now: float, out: Effects) -> None:
        self.provision.on_failed(event, now, out)
        self._news = True

    def on_manifest(self, now: float) -> None:
        self.provision.on_manifest()
        self._news = True
        self.planning.touch(now)

    def on_manifest_failed(self, now: float) -> None:
        self.provision.on_manifest_failed(now)

    def tick(self, now: float, out: Effects) -> None:
        """Deadlines, plan, digest. Called every `HOST_TICK` seconds while leading."""
        if mine := self.members.entries.get(self._local.device):
            mine.seen = now  # after a freeze its own heartbeats are late too
        for entry, before in self.members.sweep(now):
            out.append(Notice("warning", f"{name_of(entry)}: {before} -> {entry.liveness}"))
            if entry.liveness in ("dead", "left"):
                self.planning.touch(now)
        for device, signs in list(self._broken.items()):
            if any(until <= now for until in signs.values()):
                self._lose(device, next(iter(signs)), now, out)
        self.planning.sweep(now)
        self.planning.follow_loading(now, out)
        self._plan(now, out)
        every = deadlines.DIGEST_BUSY if self.crew.busy() else deadlines.DIGEST
        if self._news or now - self._said_at >= every:
            self._say(now, out)

    # --- devices that are lost ---------------------------------------------------------------------

    def _evidence(self, device: str, what: str, now: float, out: Effects) -> None:
        """Two signs, as connections that broke, and a device is lost. One: unless it is heard soon."""
        signs = self._broken.setdefault(device, {})
        if not signs:
            out.extend(self._knock(device))
            self._knocked[device] = self._at(device)
        signs.setdefault(what, now + deadlines.EVIDENCE)
        if len(signs) > 1:
            self._lose(device, " and ".join(signs), now, out)

    def _knock(self, device: str) -> list[Knock]:
        """See whether a device's process still runs, if it is known where."""
        entry, view = self.members.entries.get(device), self._awaited.get(device)
        if entry is not None and (capability := entry.capability) is not None:
            return [Knock(device, tuple((item, capability.port) for item in capability.addresses))]
        return [Knock(device, tuple((item, view.port) for item in view.addresses))] if view else []

    def _at(self, device: str) -> object:
        """Which start of a device is known, and where."""
        entry = self.members.entries.get(device)
        return (entry.boot, entry.capability and entry.capability.addresses) if entry is not None else ()

    def _lose(self, device: str, why: str, now: float, out: Effects, *, deaf_until: float = 0.0) -> None:
        """Do without a device until it is heard again."""
        self._broken.pop(device, None)
        entry = self.members.entries.get(device)
        if entry is None or not self.members.lose(device, deaf_until):
            return
        out.append(Notice("warning", f"{name_of(entry)} is lost: {why}"))
        self._news = True
        self.planning.touch(now)
        self._plan(now, out)

    def _plan(self, now: float, out: Effects) -> None:
        provision, planning = self.provision, self.planning
        early = self._awaited.too_early(now)
        present = [entry.capability for entry in self.members.present() if entry.device != self._local.device]
        others = [item for item in present if item is not None]
        model = provision.model(others, bool(self._awaited), now, out)
        if model is None:
            if not self._awaited:
                self.rollout.withdraw(out)
            return
        if early:
            return
        sha, manifest = model
        planning.consider(sha, (provision.model_id, provision.model_bytes), manifest, now, out)
        self.rollout.cover(manifest, now, out)

    # --- the digest --------------------------------------------------------------------------------

    def _say(self, now: float, out: Effects) -> None:
        self._said_at, self._news = now, False
        out.append(Publish(self._digest()))

    def _digest(self) -> Digest:
        self._seq += 1
        entries = sorted(self.members.entries.values(), key=lambda entry: entry.device)
        sha = self.plan.model if self.plan else self.provision.known()
        beats = [entry.beat for entry in entries if entry.beat and entry.liveness in ("alive", "suspect")]
        drivers = self.plan.drivers if self.plan else ()
        driving = [beat for beat in beats if beat.device in drivers]
        slowest = max(driving, key=lambda beat: beat.token_ms, default=None)
        return Digest(
            host=self._local.device,
            epoch=self.epoch,
            seq=self._seq,
            members=self._awaited.beside([member_view(entry, sha) for entry in entries]),
            sessions=tuple(view for beat in beats for view in beat.sessions)[:256],
            token_ms=slowest.token_ms if slowest else 0.0,
            beyond=slowest.beyond if slowest else Beyond(),
            note=self.provision.note[:500],
            uncovered=self.rollout.uncovered[:64],
            model=sha,
            model_id=self.provision.model_id,
            model_bytes=self.provision.model_bytes,
        )
