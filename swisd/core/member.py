"""A device as a member: heartbeats, capability, and measuring itself and its links."""

from dataclasses import replace

from swisd.core import deadlines
from swisd.core.effects import GetManifest, MeasureCompute, MeasureLinks, Notice, Publish, SetTimer
from swisd.core.events import LinksMeasured, Measured, MeasureFailed, OfferChanged
from swisd.core.local import Effects, Local, update_capability
from swisd.core.messages import Beat, Digest, Gone, SessionView
from swisd.core.types import Beyond, Holding, HopParts, PeerLink, Profile

MAX_LINKS = 8
OFFER_STEP = 0.1  # a change of the offer below this fraction is not worth a new capability


class Member:
    """Publishes what this device is and how it is."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._seq = 0
        self._wanted: str | None = None  # manifest being fetched
        self._measuring: str | None = None
        self._turn_since: float | None = None  # when it could first have measured itself
        self._measure_at = 0.0  # not before
        self._linked: tuple[str, ...] = ()
        self._links: dict[str, tuple[PeerLink | None, float]] = {}  # None: did not answer
        self._repeated_at = -deadlines.RETRY
        self.sessions: tuple[SessionView, ...] = ()
        self.stage_ms = 0.0
        self.token_ms = 0.0
        self.hop = HopParts()
        self.beyond = Beyond()

    def connected(self, now: float, out: Effects) -> None:
        out.append(Publish(self._local.capability))
        self.beat(now, out)

    def beat(self, now: float, out: Effects) -> Beat | None:
        """Say that this device lives, and ask for the next heartbeat. Returns what was said."""
        local = self._local
        if local.stopping:  # a farewell is the last word
            return None
        self._seq += 1
        newest = local.newest
        beat = Beat(
            device=local.device,
            boot=local.config.boot,
            seq=self._seq,
            state=local.state,
            epoch=local.ready_epoch if local.state == "ready" else (newest.epoch if newest else 0),
            planner=newest.host if newest else None,
            planner_boot=newest.boot if newest else None,
            progress=round(local.progress, 3),
            note=local.note,
            free_bytes=local.free_bytes,
            resident_bytes=local.resident_bytes,
            stage_ms=round(self.stage_ms, 3),
            token_ms=round(self.token_ms, 3),
            sessions=self.sessions,
            drops=dict(local.drops),
            warm=local.loaded[:32],
            hop=self.hop,
            beyond=self.beyond,
        )
        out.extend((Publish(beat), SetTimer("beat", now + deadlines.BEAT)))
        return beat

    def farewell(self, out: Effects) -> None:
        out.append(Publish(Gone(self._local.device, self._local.config.boot, proper=True)))

    def on_digest(self, digest: Digest, now: float, out: Effects) -> None:
        """Learn the model to measure, and the peers to measure links to."""
        self._repeat(digest, now, out)
        if digest.model:
            self._learn(digest, now, out)
        peers = tuple(
            sorted(
                member.device
                for member in digest.members
                if member.liveness == "alive" and member.device != self._local.device
            )
        )
        if peers != self._linked:
            self._linked = peers
            self._links = {device: known for device, known in self._links.items() if device in peers}
            out.append(SetTimer("links", now + self._links_turn()))

    def on_links_timer(self, now: float, out: Effects) -> None:
        """Measure what is not known of a bounded number of links, while the swarm has nothing better to do.

        Measuring costs air time that all devices share: a link is measured once and again when it is old,
        the devices begin one after the other, and running answers go first.
        """
        digest = self._local.digest
        busy = digest is not None and (
            bool(digest.sessions) or any(member.state == "measuring" for member in digest.members)
        )
        if busy or self._local.state in ("measuring", "fetching", "loading"):
            out.append(SetTimer("links", now + self._links_turn()))
            return
        host = digest.host if digest else ""
        wanted = tuple(device for device in self._neighbours(host) if self._is_due(device, now))
        for device in wanted:
            self._links[device] = (None, now)
        if wanted:
            out.append(MeasureLinks(wanted))
        out.append(SetTimer("links", now + deadlines.LINKS_LOOK))

    def on_links(self, event: LinksMeasured, now: float, out: Effects) -> None:
        for link in event.links:
            if link.device in self._linked:
                self._links[link.device] = (link, now)
        known = tuple(link for _, (link, _) in sorted(self._links.items()) if link is not None)
        if update_capability(self._local, links=known[:MAX_LINKS]):
            out.append(Publish(self._local.capability))

    def _neighbours(self, host: str) -> list[str]:
        """The host, and the devices that follow this one in the order of ids: at most `MAX_LINKS`."""
        me, peers = self._local.device, list(self._linked)
        following = [peer for peer in peers if peer > me] + [peer for peer in peers if peer < me]
        first = [host] if host in peers else []
        return [*first, *(peer for peer in following if peer != host)][:MAX_LINKS]

    def _is_due(self, device: str, now: float) -> bool:
        link, at = self._links.get(device, (None, -1e9))
        return now - at >= (deadlines.LINKS_AGAIN if link is None else deadlines.LINKS_EVERY)

    def _links_turn(self) -> float:
        """Seconds to wait, other for each device, so that they do not measure one another's measuring."""
        place = sum(1 for peer in self._linked if peer < self._local.device)
        return deadlines.LINKS_SETTLE + deadlines.LINKS_APART * (place % (MAX_LINKS + 1))

    def on_retry_timer(self, now: float, out: Effects) -> None:
        self._wanted = None
        digest = self._local.digest
        if digest is not None and digest.model:
            self._learn(digest, now, out)

    def on_manifest(self, model: str, now: float, out: Effects) -> None:
        if self._wanted == model:
            self._wanted = None
        digest = self._local.digest
        if digest is not None and digest.model == model:
            self._learn(digest, now, out)

    def on_manifest_failed(self, now: float, out: Effects) -> None:
        out.append(SetTimer("member-retry", now + deadlines.RETRY))

    def on_measured(self, event: Measured, now: float, out: Effects) -> None:
        self._measuring = None
        profile = event.profile
        head = (
            f", {profile.head_ms:.1f} ms for the head"
            if profile.head_ms is not None
            else ", no room for the head"
        )
        with_threads = f", {profile.threads} thread(s)" if profile.threads else ""
        out.append(Notice("info", f"measured {profile.layer_ms:.2f} ms a layer{head}{with_threads}"))
        self.set_profile(profile, out)
        if self._local.state == "measuring":
            self._local.enter("idle")
        self.beat(now, out)

    def on_measure_failed(self, event: MeasureFailed, now: float, out: Effects) -> None:
        self._measuring, self._measure_at = None, now + deadlines.MEASURE_AGAIN
        self._local.enter("failed", note=event.reason)
        self.beat(now, out)

    def set_profile(self, profile: Profile, out: Effects) -> None:
        others = tuple(item for item in self._local.capability.profiles if item.model != profile.model)
        threads = profile.threads or self._local.capability.threads
        if update_capability(self._local, profiles=(profile, *others)[:8], threads=threads):
            out.append(Publish(self._local.capability))

    def profile(self, model: str) -> Profile | None:
        return next((item for item in self._local.capability.profiles if item.model == model), None)

    def refine(self, model: str, factor: float, out: Effects) -> None:
        """Correct the profile by what real steps took: the device heated up, or something else runs on it."""
        profile = self.profile(model)
        if profile is None:
            return
        self.set_profile(
            replace(
                profile,
                layer_ms=profile.layer_ms * factor,
                layer_row_ms=profile.layer_row_ms * factor,
                head_ms=profile.head_ms * factor if profile.head_ms is not None else None,
                embed_ms=profile.embed_ms * factor,
                run_ms=profile.run_ms * factor,
            ),
            out,
        )

    def on_holdings(self, holds: tuple[Holding, ...], out: Effects) -> None:
        if update_capability(self._local, holds=holds[:64]):
            out.append(Publish(self._local.capability))

    def on_offer(self, event: OfferChanged, out: Effects) -> None:
        local = self._local
        local.free_bytes, local.resident_bytes = event.free_bytes, event.resident_bytes
        before = local.capability.memory_bytes
        if abs(event.memory_bytes - before) > OFFER_STEP * max(before, 1):
            update_capability(local, memory_bytes=event.memory_bytes)
            out.append(Publish(local.capability))

    def _repeat(self, digest: Digest, now: float, out: Effects) -> None:
        """Say the capability again if the host has another one: the last one was lost, or an old one late."""
        mine = next((member for member in digest.members if member.device == self._local.device), None)
        if mine is None or now - self._repeated_at < deadlines.RETRY:
            return
        profile, memory = self.profile(digest.model), self._local.capability.memory_bytes
        if mine.memory_bytes != memory or (profile is not None and mine.layer_ms != profile.layer_ms):
            self._repeated_at = now
            out.append(Publish(self._local.capability))

    def _learn(self, digest: Digest, now: float, out: Effects) -> None:
        model = digest.model
        if model not in self._local.manifests:
            if self._wanted is None:
                self._wanted = model
                out.append(GetManifest(model, digest.model_bytes))
            return
        if self.profile(model) is None and self._measuring is None and now >= self._measure_at:
            if self._others_turn(digest, now):
                return
            self._measuring = model
            if self._local.enter("measuring"):
                self.beat(now, out)
            out.append(Notice("info", f"measures itself with {digest.model_id}"))
            out.append(MeasureCompute(model))

    def _others_turn(self, digest: Digest, now: float) -> bool:
        """Devices that share a machine measure one after the other, lowest id first: together they would
        measure each other."""
        mine = set(self._local.capability.addresses)
        before = any(
            member.state == "measuring"
            or (member.device < self._local.device and member.state == "idle" and not member.layer_ms)
            for member in digest.members
            if member.liveness == "alive"
            and member.device != self._local.device
            and mine & set(member.addresses)
        )
        if self._turn_since is None:
            self._turn_since = now
        # Whoever is waited for may never come to it.
        return before and now - self._turn_since < deadlines.TURN
