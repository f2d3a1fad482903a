"""A device as host: keeps the membership, makes the plan, says both to everyone."""

from dataclasses import replace

from swisd.core import deadlines
from swisd.core.costmodel import Unpriced, predict
from swisd.core.effects import GetManifest, Notice, ProvideModel, Publish
from swisd.core.events import ProvideFailed, ProvideProgress
from swisd.core.local import Effects, Local
from swisd.core.membership import Membership
from swisd.core.messages import Beat, Call, Digest, Gone, MemberView
from swisd.core.model import Manifest
from swisd.core.placement import Placement, Wish, place
from swisd.core.replan import broken, devices_of, worthwhile
from swisd.core.roster import member_view, name_of
from swisd.core.types import Capability, Plan, Prediction, Verdict

NOTHING = Prediction(0.0, 0.0, (), ())


class Host:
    """The scheduler's state; idle unless this device leads."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.members = Membership()
        self.model_id = local.config.model_id
        self.plan: Plan | None = None
        self._epoch = 0
        self._seq = 0
        self._dirty_since: float | None = None
        self._news = False  # something that a person watches changed since the last digest
        self._said_at = -1e9
        self._providing: str | None = None
        self._provide_note = ""
        self._fetching: str | None = None
        self._fetch_at = 0.0  # not before: fetching the manifest, providing the model
        self._provide_at = 0.0
        self._model_bytes = 0
        self._bans: dict[str, tuple[float, str]] = {}
        self._renew = ""  # why the plan must be made anew although none of its devices is gone
        self._told_at = 0.0  # when the plan was last published for the devices that load it
        self._progress: dict[str, tuple[float, float]] = {}  # device -> (progress, when it last moved)
        self._expected: dict[str, MemberView] = {}  # devices that the lost host knew, until they are here
        self._began = 0.0
        self._hold_until = 0.0  # no plan before: another host may be about

    @property
    def epoch(self) -> int:
        """The highest epoch this host has made or heard of."""
        return self._epoch

    @property
    def followed(self) -> bool:
        """Whether another device is here, alive."""
        me = self._local.device
        return any(entry.liveness == "alive" and entry.device != me for entry in self.members.present())

    def begin(self, now: float, out: Effects) -> None:
        """Become host: continue above every epoch that was ever heard."""
        self.members = Membership()
        self.plan, self._renew = None, ""
        self._began, self._expected = now, {}
        before = self._local.digest
        if before is not None and before.host != self._local.device:
            self._follow(before)
        if self._local.plan is not None:
            self._epoch = max(self._epoch, self._local.plan.epoch)
        self._dirty_since = now
        # Others that come at the same time may hold the model: importing it again would be a waste.
        self._provide_at = now + deadlines.PROVIDE
        out.append(Notice("info", "this device is the host: it plans for the swarm"))
        self._say(now, out)

    def _follow(self, before: Digest) -> None:
        """Take up what the lost host had: its epoch, its model, its devices."""
        self._epoch = max(self._epoch, before.epoch) + 1
        self.model_id = before.model_id or self.model_id
        gone = before.host
        self._expected = {
            item.device: item for item in before.members if item.liveness == "alive" and item.device != gone
        }

    def stood_still(self, seconds: float, now: float) -> None:
        """This process was stopped for a while: nobody else is late, but another may have taken over."""
        for entry in self.members.entries.values():
            entry.seen += seconds
        self._hold_until = now + deadlines.SEEK_WAIT

    def forget(self) -> None:
        """Nobody ever saw this host's plans: their epochs need not be outranked."""
        self.plan, self._epoch = None, 0

    def outrank(self, epoch: int, now: float) -> None:
        """Another host gives way to this one: its plan, too, is overtaken."""
        if self.plan is not None and epoch >= self.plan.epoch:
            self._renew = "another host made a plan"
            self._touch(now)
        self._fence(epoch, now)

    def give_way(
        self, to: str, where: tuple[tuple[str, int], ...], rank: int, epoch: int, out: Effects
    ) -> None:
        """The last word of a host: its clients find the bus on that device from now on.

        Two plans of one epoch must not meet: this host's ends with an empty one, which the other outranks.
        """
        if self.plan is not None and self.plan.epoch >= epoch and self.followed:
            self._epoch += 1
            out.append(
                Publish(replace(
                    self.plan, epoch=self._epoch, pipelines=(), prediction=NOTHING, verdicts=(), active=False,
                    problem="",
                ))
            )  # fmt: skip
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

    def on_beat(self, beat: Beat, now: float) -> None:
        known = self.members.entries.get(beat.device)
        new = known is None or known.beat is None or known.boot != beat.boot
        self._news = self._news or new or (known and known.beat and known.beat.state) != beat.state
        if self.members.on_beat(beat, now) or new:
            self._touch(now)
        self._fence(beat.epoch, now)
        if new and self.plan is not None and beat.device in devices_of(self.plan.pipelines):
            self._renew = f"device {beat.device} began anew"
        before = self._progress.get(beat.device)
        if before is None or before[0] != beat.progress:
            self._progress[beat.device] = (beat.progress, now)

    def on_capability(self, capability: Capability, now: float) -> None:
        if self.members.on_capability(capability, now):
            self._touch(now)

    def on_gone(self, gone: Gone, now: float, out: Effects) -> None:
        entry = self.members.entries.get(gone.device)
        if self.members.on_gone(gone):
            out.append(Notice("info", f"{name_of(entry)} left"))
            self._touch(now)

    def on_rival(self, digest: Digest, now: float) -> None:
        """Another host speaks, who will step down: its plans must not outrank this one's."""
        if self.plan is not None and digest.epoch == self.plan.epoch:
            self._renew = "another host made a plan"
            self._touch(now)
        self._fence(digest.epoch, now)

    def on_call(self, call: Call, now: float, out: Effects) -> None:
        if call.op == "model" and call.model_id and call.model_id != self.model_id:
            out.append(Notice("info", f"model {call.model_id} was asked for"))
            self.model_id = call.model_id
            self._providing, self._provide_note, self._fetch_at, self._provide_at = None, "", now, now
        self._touch(now)

    def on_provided(self, now: float) -> None:
        self._providing, self._provide_note = None, ""
        self._touch(now)

    def on_provide_progress(self, event: ProvideProgress) -> None:
        self._provide_note, self._news = event.note, True

    def on_provide_failed(self, event: ProvideFailed, now: float, out: Effects) -> None:
        self._providing, self._provide_note = None, event.reason
        self._provide_at, self._news = now + 6 * deadlines.RETRY, True
        out.append(Notice("error", event.reason))

    def on_manifest(self, now: float) -> None:
        self._fetching, self._news = None, True
        self._touch(now)

    def on_manifest_failed(self, now: float) -> None:
        self._fetching, self._fetch_at = None, now + deadlines.RETRY

    def tick(self, now: float, out: Effects) -> None:
        """Deadlines, plan, digest. Called every `HOST_TICK` seconds while leading."""
        if mine := self.members.entries.get(self._local.device):
            mine.seen = now  # after a freeze its own heartbeats are late too
        for entry, before in self.members.sweep(now):
            out.append(Notice("warning", f"{name_of(entry)}: {before} -> {entry.liveness}"))
            if entry.liveness in ("dead", "left"):
                self._touch(now)
        for device in [device for device, ban in self._bans.items() if ban[0] <= now]:
            del self._bans[device]
            self._touch(now)
        self._follow_loading(now, out)
        self._consider(now, out)
        if self._news or now - self._said_at >= deadlines.DIGEST:
            self._say(now, out)

    def _broken(self, plan: Plan) -> str:
        """Why a plan can no longer run, with the devices' names; empty while it can."""
        reason = broken(plan, [entry.device for entry in self.members.present()], list(self._bans))
        for device in devices_of(plan.pipelines):
            reason = reason.replace(f"device {device}", name_of(self.members.entries.get(device)))
        return reason

    def _fence(self, epoch: int, now: float) -> None:
        """Stay above every epoch that is about; a plan that was overtaken is made anew."""
        self._epoch = max(self._epoch, epoch)
        if self.plan is not None and epoch > self.plan.epoch:
            self._renew = "another host made a plan"
            self._touch(now)

    def _touch(self, now: float) -> None:
        if self._dirty_since is None:
            self._dirty_since = now

    # --- the model ---------------------------------------------------------------------------------

    def _model(self, now: float, out: Effects) -> tuple[str, Manifest] | None:
        """The model to run and its manifest; asks for what is missing."""
        others = [entry.capability for entry in self.members.present() if entry.device != self._local.device]
        holdings = [
            holding
            for capability in (self._local.capability, *others)  # its own is known before the bus returns it
            if capability is not None
            for holding in capability.holds
            if holding.model_id == self.model_id
        ]
        holders = [(holding.model, holding.model_bytes) for holding in holdings]
        lack = ""
        if holders:
            sha, self._model_bytes = max(sorted(set(holders)), key=holders.count)
            if sha not in self._local.manifests:
                if self._fetching is None and now >= self._fetch_at:
                    self._fetching = sha
                    out.append(GetManifest(sha, self._model_bytes))
                return None
            manifest = self._local.manifests[sha]
            ranges = [units for holding in holdings if holding.model == sha for units in holding.ranges]
            if all(any(start <= unit < end for start, end in ranges) for unit in range(manifest.n_units)):
                return sha, manifest
            if self._expected:
                return None  # whoever is about to come may have the rest
            lack = "all of "  # the only one that had some of it is gone
        if self._providing is None and now >= self._provide_at and self.model_id:
            if self._local.config.forge:
                self._providing = self.model_id
                out.append(ProvideModel(self.model_id))
            else:
                command = f"swisd models pull {self.model_id}"
                self._provide_note = (
                    f"no device holds {lack}{self.model_id}: run `{command}` on a laptop of the swarm"
                )
        return None

    # --- the plan ----------------------------------------------------------------------------------

    def _consider(self, now: float, out: Effects) -> None:
        """Make a new plan if there is none, it broke, or a better one is worth it."""
        early = self._too_early(now)
        model = self._model(now, out)
        if model is None and not self._expected:
            self._withdraw(out)
        if model is None or self._dirty_since is None or early:
            return
        sha, manifest = model
        devices = [item for item in self.members.usable() if item.device not in self._bans]
        current = self.plan if self.plan is not None and self.plan.model == sha else None
        if current is not None and current.pipelines:
            reason = self._broken(current) or self._renew
            if not reason and any(entry.liveness == "suspect" for entry in self.members.present()):
                return  # wait for the deadline to tell
        else:
            reason = "first plan"
            if self._still_measuring(sha, now):
                return
        self._dirty_since = None
        config = self._local.config
        wish = Wish(
            objective=config.objective,
            context=min(manifest.context, config.context),
            min_context=config.min_context,
        )
        found = place(manifest, sha, devices, config.device, wish)
        if not reason and current is not None:
            if not found.pipelines:
                return
            try:
                priced = predict(manifest, sha, devices, config.device, current.pipelines)
            except Unpriced:  # a capability from before it measured itself came late
                priced = current.prediction
            reason = worthwhile(priced, current, found.prediction, found.pipelines, found.context)
            if not reason or self._busy():
                if reason:
                    self._dirty_since = now  # look again when the sessions are done
                self._update_verdicts(current, found, out)
                return
        self._publish_plan(sha, found, reason, now, out)

    def _too_early(self, now: float) -> bool:
        """Whether more devices are about to come: those that the lost host knew, or any after a change."""
        if now < self._hold_until:
            return True
        if self._expected:
            here = {capability.device for capability in self.members.usable()}
            if self._expected.keys() <= here:
                self._expected = {}
                return False
            apart = not self._expected.keys() & here - {self._local.device}
            if now - self._began < (deadlines.APART if apart else deadlines.GATHER):
                return True
            self._expected = {}
        return self._dirty_since is None or now - self._dirty_since < deadlines.SETTLE

    def _publish_plan(self, sha: str, found: Placement, reason: str, now: float, out: Effects) -> None:
        config = self._local.config
        if not found.pipelines and self._already_said(found) and not self._renew:
            return
        self._renew = ""
        self._epoch += 1
        self.plan = Plan(
            epoch=self._epoch,
            host=config.device,
            model=sha,
            model_id=self.model_id,
            model_bytes=self._model_bytes,
            context=found.context,
            objective=config.objective,
            pipelines=found.pipelines,
            prediction=found.prediction,
            verdicts=self._verdicts(found),
            problem=self._problem(found),
        )
        self._progress = dict.fromkeys(self._progress, (-1.0, now))
        self._told_at = now
        out.append(Publish(self.plan))
        if found.pipelines:
            text = f"plan {self._epoch} ({reason}): {len(devices_of(found.pipelines))} device(s)"
            out.append(Notice("info", f"{text}, {found.prediction.token_ms:.1f} ms/token predicted"))
        else:
            out.append(Notice("warning", f"no plan: {self.plan.problem}"))

    def _withdraw(self, out: Effects) -> None:
        """End a plan that broke while no device holds the model, so that nobody waits for it."""
        plan = self.plan or self._local.plan  # perhaps the lost host's, which askers still rely on
        if plan is None or not plan.pipelines:
            return
        if reason := self._broken(plan):
            self._epoch += 1
            problem = f"{reason}, and no device holds {self.model_id}"
            self.plan = replace(
                plan, epoch=self._epoch, host=self._local.device, pipelines=(), prediction=NOTHING,
                verdicts=(), active=False, problem=problem[:500],
            )  # fmt: skip
            out.append(Publish(self.plan))
            out.append(Notice("warning", f"no plan: {problem}"))

    def _already_said(self, found: Placement) -> bool:
        plan = self.plan
        if plan is None or plan.pipelines:
            return False
        return plan.problem == self._problem(found) and plan.verdicts == self._verdicts(found)

    def _problem(self, found: Placement) -> str:
        """Why there is no pipeline; devices that are left out for a while may be the reason."""
        if found.pipelines or not self._bans:
            return found.problem[:500]
        notes = [
            f"{name_of(self.members.entries.get(device))} {reason}"
            for device, (_, reason) in sorted(self._bans.items())
        ]
        said = [found.problem] if found.verdicts else []  # without a device left it says nothing of use
        return "; ".join((*said, *notes))[:500]

    def _update_verdicts(self, current: Plan, found: Placement, out: Effects) -> None:
        """Keep the plan, but tell newcomers why they are not in it."""
        known = {verdict.device for verdict in current.verdicts}
        used = devices_of(current.pipelines)
        news = tuple(
            replace(verdict, used=False)
            for verdict in self._verdicts(found)
            if verdict.device not in known and verdict.device not in used
        )
        if news:
            kept = tuple(
                replace(verdict, reason="left out: joined after the plan was made, which stays as it is")
                if verdict.reason.startswith("runs")
                else verdict
                for verdict in news
            )
            self.plan = replace(current, verdicts=(*current.verdicts, *kept))
            out.append(Publish(self.plan))

    def _verdicts(self, found: Placement) -> tuple[Verdict, ...]:
        banned = tuple(
            Verdict(device, False, f"left out: {reason}"[:500])
            for device, (_, reason) in sorted(self._bans.items())
        )
        return (*found.verdicts, *banned)

    def _follow_loading(self, now: float, out: Effects) -> None:
        """Make the plan active once every stage is loaded; give up on a device that fails or stalls."""
        plan = self.plan
        if plan is None or plan.active or not plan.pipelines:
            return
        waiting = unheard = False
        for device in sorted(devices_of(plan.pipelines)):
            entry = self.members.entries.get(device)
            beat = entry.beat if entry else None
            if beat is not None and beat.epoch == plan.epoch and beat.state == "ready":
                continue
            waiting = True
            unheard = unheard or beat is None or beat.epoch != plan.epoch
            failed = beat is not None and beat.epoch == plan.epoch and beat.state == "failed"
            moved = self._progress.setdefault(device, (0.0, now))[1]
            if failed or now - moved > deadlines.LOAD_STALL:
                note = beat.note if failed and beat else f"no progress for {deadlines.LOAD_STALL:.0f} s"
                self._bans[device] = (now + deadlines.BAN, f"could not load its shard: {note}")
                self._touch(now)
        if unheard and now - self._told_at >= deadlines.RETRY:  # the message was lost, or refused as corrupt
            self._told_at = now
            out.append(Publish(plan))
        if not waiting:
            self.plan = replace(plan, active=True)
            out.append(Publish(self.plan))
            out.append(Notice("info", f"plan {plan.epoch} is active"))

    def _still_measuring(self, model: str, now: float) -> bool:
        """Whether a first plan would be made before a newcomer knows its own speed and its links."""
        present = self.members.present()
        for entry in present:
            capability = entry.capability
            known = capability is not None and any(item.model == model for item in capability.profiles)
            if known and capability is not None and len(present) > 1:
                known = bool(capability.links)
            if (
                not known
                and now - entry.joined < deadlines.MEASURING
                and (entry.beat is None or entry.beat.state != "failed")
            ):
                return True
        return False

    def _busy(self) -> bool:
        return any(entry.beat is not None and entry.beat.sessions for entry in self.members.present())

    # --- the digest --------------------------------------------------------------------------------

    def _say(self, now: float, out: Effects) -> None:
        self._said_at, self._news = now, False
        out.append(Publish(self._digest()))

    def _digest(self) -> Digest:
        self._seq += 1
        entries = sorted(self.members.entries.values(), key=lambda entry: entry.device)
        sha = self.plan.model if self.plan else self._known_model()
        beats = [entry.beat for entry in entries if entry.beat and entry.liveness in ("alive", "suspect")]
        driver = self.plan.pipelines[0].driver if self.plan and self.plan.pipelines else ""
        members = [member_view(entry, sha) for entry in entries]
        ready = {entry.device for entry in entries if entry.beat is not None and entry.capability is not None}
        # Others find their neighbours, and their next host, in the digest: whoever is about to come is in it.
        awaited = [view for device, view in self._expected.items() if device not in ready]
        members = [view for view in members if view.device in ready or view.device not in self._expected]
        return Digest(
            host=self._local.device,
            epoch=self._epoch,
            seq=self._seq,
            members=(*members, *awaited),
            sessions=tuple(view for beat in beats for view in beat.sessions)[:256],
            token_ms=next((beat.token_ms for beat in beats if beat.device == driver), 0.0),
            note=self._provide_note[:500],
            model=sha,
            model_id=self.model_id,
            model_bytes=self._model_bytes,
        )

    def _known_model(self) -> str:
        for sha, manifest in self._local.manifests.items():
            if manifest.model_id == self.model_id:
                return sha
        return ""
