"""Which shards a device has in memory: for the plan in service, for one that is coming, and to spare."""

from swisd.core.effects import KeepShards, LoadShards, Notice
from swisd.core.events import LoadFailed, LoadProgress, ShardsLoaded
from swisd.core.local import Effects, Local
from swisd.core.model import Manifest
from swisd.core.types import Plan, Stage, Units

Stages = tuple[tuple[int, Stage], ...]


class Shards:
    """Asks for what the plans want of this device; a plan in service stays in memory if there is room."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._model = ""
        self._wanted: tuple[Units, ...] = ()  # by the newest plan
        self._spare: tuple[Units, ...] = ()
        self._refused: tuple[Units, ...] = ()  # spares that could not be loaded
        self._loading = False
        self._max_tokens = 0

    @property
    def holds_wanted(self) -> bool:
        """Whether all that the newest plan wants of this device is in memory."""
        return set(self._wanted) <= set(self._local.loaded)

    def prepare(self, plan: Plan, in_service: tuple[Units, ...], out: Effects) -> bool:
        """Get ready for a newer plan, beside the one in service. Returns True if nothing has to be loaded."""
        local = self._local
        if plan.model != self._model:
            self._model, local.loaded, in_service, self._max_tokens = plan.model, (), (), 0
        self._wanted = tuple(dict.fromkeys(stage.units for _, stage in own_stages(plan, local.device)))
        self._spare, self._refused = spares_of(plan, local.device), ()
        self._max_tokens = max(plan.context, self._max_tokens if in_service else 0)
        if self.holds_wanted:
            return True
        keep = next(keep for keep in ((*in_service, *self._spare), in_service, ()) if self._fit(plan, keep))
        if not set(in_service) <= set(keep):
            self._max_tokens = plan.context  # that of the plan in service may leave no room
        local.loaded = tuple(units for units in local.loaded if units in (*self._wanted, *keep))
        out.append(Notice("info", f"plan {plan.epoch}: gets and loads {describe(plan, local.device)}"))
        self._load(plan, self._wanted, keep, out)
        return False

    def settle(self, plan: Plan, out: Effects) -> None:
        """The plan is in service: what only the one before needed goes, and what is to spare is used."""
        keep = (*self._wanted, *spares_of(plan, self._local.device))
        held = self._local.loaded
        if not keep and self._loading:  # and what is on its way is for nothing
            self.clear(out)
        elif not self._loading and any(units not in keep for units in held):
            self._local.loaded = tuple(units for units in held if units in keep)
            out.append(KeepShards(keep))
        self.load_spares(plan, out)

    def load_spares(self, plan: Plan, out: Effects) -> None:
        """Get the spares of a plan that is in service, once its stages are here."""
        local, spare = self._local, spares_of(plan, self._local.device)
        if spare != self._spare:
            self._spare, self._refused = spare, ()
        missing = [units for units in spare if units not in (*local.loaded, *self._refused)]
        if missing and not self._loading and self.holds_wanted:
            self._max_tokens = plan.context
            self._load(plan, tuple(dict.fromkeys((*self._wanted, *spare))), (), out)

    def clear(self, out: Effects) -> None:
        """No plan wants anything of this device."""
        self._wanted, self._spare, self._loading = (), (), False
        self._local.loaded = ()
        out.append(KeepShards(()))

    def on_loaded(self, event: ShardsLoaded) -> bool:
        """Returns True if what the newest plan wants is here by this."""
        before = self.holds_wanted
        self._loading = False
        self._local.loaded, self._local.resident_bytes = event.units, event.resident_bytes
        return self.holds_wanted and not before

    def on_failed(self, event: LoadFailed, out: Effects) -> bool:
        """Returns True if it is the plan's own part that is missing, and not a spare."""
        self._loading = False
        if self.holds_wanted:
            self._refused = self._spare
            out.append(Notice("warning", f"cannot keep a spare of others' units: {event.reason}"))
            return False
        return True

    def on_progress(self, event: LoadProgress) -> bool:
        """Returns True if it is about the plan's own part."""
        return not self.holds_wanted

    def _load(self, plan: Plan, wanted: tuple[Units, ...], keep: tuple[Units, ...], out: Effects) -> None:
        self._loading = True
        out.append(LoadShards(plan.epoch, plan.model, wanted, keep, self._max_tokens))

    def _fit(self, plan: Plan, keep: tuple[Units, ...]) -> bool:
        """Whether these shards fit beside those of the plan, in the memory that this device offers."""
        manifest = self._local.manifests.get(plan.model)
        if not keep or manifest is None:
            return not keep
        need = memory_of(manifest, {*self._wanted, *keep}, self._max_tokens)
        return need <= self._local.capability.memory_bytes


def memory_of(manifest: Manifest, ranges: set[Units], context: int) -> int:
    """Bytes of these shards with the caches of `context` tokens; caches are shared, weights are not."""
    weights = sum(manifest.resident_bytes(start, end) for start, end in ranges)
    covered = {unit for start, end in ranges for unit in range(start, min(end, manifest.n_units))}
    caches = sum(manifest.units[unit].kv_bytes_per_token for unit in covered)
    return weights + context * caches


def own_stages(plan: Plan, device: str) -> Stages:
    """The stages of a plan that a device runs, with their places in the pipeline."""
    return tuple(
        (number, stage)
        for number, stage in enumerate(plan.stages_of(device))
        if any(member.device == device for member in stage.members)
    )


def spares_of(plan: Plan, device: str) -> tuple[Units, ...]:
    """What a device keeps loaded for others under a plan."""
    return tuple(dict.fromkeys(item.units for item in plan.spares if item.device == device))


def describe(plan: Plan, device: str) -> str:
    """A device's stages in words: `the embedding, layers 1-12 and the head`."""
    n_units = max((stage.end for pipeline in plan.pipelines for stage in pipeline.stages), default=0)
    parts: list[str] = []
    for _, stage in own_stages(plan, device):
        low, high = max(stage.start, 1), min(stage.end, n_units - 1)
        if stage.start == 0:
            parts.append("the embedding")
        if high > low:
            parts.append(f"layers {low}-{high - 1}" if high - 1 > low else f"layer {low}")
        if stage.end == n_units:
            parts.append("the head")
    if not parts:
        return "nothing"
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
