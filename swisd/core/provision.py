"""How a host comes by the model that the swarm is to run: from a device that holds it, or from its source."""

from collections.abc import Sequence

from swisd.core import deadlines
from swisd.core.effects import GetManifest, Notice, ProvideModel
from swisd.core.events import ProvideFailed, ProvideProgress
from swisd.core.local import Effects, Local
from swisd.core.model import Manifest
from swisd.core.types import Capability


class Provision:
    """The model's id, its manifest, and what is being done to get it."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.model_id = local.config.model_id
        self.model_bytes = 0
        self.note = ""
        self._providing: str | None = None
        self._fetching: str | None = None
        self._fetch_at = 0.0  # not before: fetching the manifest, providing the model
        self._provide_at = 0.0

    def begin(self, now: float) -> None:
        """Others that come at the same time may hold the model: importing it again would be a waste."""
        self._provide_at = now + deadlines.PROVIDE

    def wish(self, model_id: str, now: float) -> None:
        """Another model is asked for."""
        self.model_id = model_id
        self._providing, self.note, self._fetch_at, self._provide_at = None, "", now, now

    def on_provided(self) -> None:
        self._providing, self.note = None, ""

    def on_progress(self, event: ProvideProgress) -> None:
        self.note = event.note

    def on_failed(self, event: ProvideFailed, now: float, out: Effects) -> None:
        self._providing, self.note = None, event.reason
        self._provide_at = now + 6 * deadlines.RETRY
        out.append(Notice("error", event.reason))

    def on_manifest(self) -> None:
        self._fetching = None

    def on_manifest_failed(self, now: float) -> None:
        self._fetching, self._fetch_at = None, now + deadlines.RETRY

    def known(self) -> str:
        """The model's manifest by name, if it is here."""
        for sha, manifest in self._local.manifests.items():
            if manifest.model_id == self.model_id:
                return sha
        return ""

    def model(
        self, others: Sequence[Capability], expected: bool, now: float, out: Effects
    ) -> tuple[str, Manifest] | None:
        """The model to run and its manifest; asks for what is missing. `expected`: more devices will come."""
        holdings = [
            holding
            for capability in (self._local.capability, *others)  # its own is known before the bus returns it
            for holding in capability.holds
            if holding.model_id == self.model_id
        ]
        holders = [(holding.model, holding.model_bytes) for holding in holdings]
        lack = ""
        if holders:
            sha, self.model_bytes = max(sorted(set(holders)), key=holders.count)
            if sha not in self._local.manifests:
                if self._fetching is None and now >= self._fetch_at:
                    self._fetching = sha
                    out.append(GetManifest(sha, self.model_bytes))
                return None
            manifest = self._local.manifests[sha]
            ranges = [units for holding in holdings if holding.model == sha for units in holding.ranges]
            if all(any(start <= unit < end for start, end in ranges) for unit in range(manifest.n_units)):
                return sha, manifest
            if expected:
                return None  # whoever is about to come may have the rest
            lack = "all of "  # the only one that had some of it is gone
        if self._providing is None and now >= self._provide_at and self.model_id:
            if self._local.config.forge:
                self._providing = self.model_id
                out.append(ProvideModel(self.model_id))
            else:
                command = f"swisd models pull {self.model_id}"
                self.note = f"no device holds {lack}{self.model_id}: run `{command}` on a laptop of the swarm"
        return None
