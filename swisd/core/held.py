"""What a device holds of each session: rows in the caches of its layers, and outputs in its journal."""

from swisd.core import deadlines
from swisd.core.caches import Caches
from swisd.core.effects import DropSession, ForkKv, GiveUp
from swisd.core.events import StepDone
from swisd.core.journal import Journal
from swisd.core.local import Effects, Local
from swisd.core.messages import Held
from swisd.core.rows import Activation
from swisd.core.shards import Stages
from swisd.core.types import Slot, Stage, Units

ROW_VALUE_BYTES = 4  # activations are float32


class HeldRows:
    """Caches and journal of a device, which take up, share and forget a session together."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.caches = Caches()
        self.journal = Journal(local.config.journal_bytes)
        self._layers: dict[Units, range] = {}  # of stages that were asked for under this plan

    def layers(self, stage: Stage) -> range:
        """The layers of a stage: of its units those that have caches."""
        if (found := self._layers.get(stage.units)) is not None:
            return found
        manifest = self._local.manifest
        end = manifest.n_units - 1 if manifest is not None else stage.end
        layers = range(max(stage.start, 1), min(stage.end, end))
        if manifest is not None:
            self._layers[stage.units] = layers
        return layers

    def length(self, session: str, stage: Stage) -> int:
        """Positions of a session that all layers of a stage hold."""
        return self.caches.length(session, self.layers(stage))

    def of(self, session: str, number: int, stage: Stage) -> Held:
        """What the driver is told of a session and a stage."""
        kept_from, made = self.journal.kept(session, stage.end)
        return Held(number, self.length(session, stage), kept_from, made, *self.caches.steps(session, number))

    # --- rows --------------------------------------------------------------------------------------

    def enter(self, activation: Activation, stage: Stage, now: float, out: Effects) -> None:
        """These rows come next in a stage, or are run again."""
        layers = self.layers(stage)
        for slot in activation.slots:
            self.caches.enter(activation.stage, slot, layers, now)
            for oldest in self.caches.beyond(self._room(), slot.session):
                self.journal.forget(oldest)
                out.append(DropSession(oldest))

    def ran(self, activation: Activation, stage: Stage) -> None:
        """They ran through the stage: its caches hold them."""
        for slot in activation.slots:
            self.caches.ran(activation.stage, slot, self.layers(stage))

    def made(self, stage: Stage, slot: Slot, event: StepDone) -> None:
        """Note the outputs of a stage: what comes behind may need them again."""
        manifest = self._local.manifest
        if manifest is None:
            return
        if stage.end >= manifest.n_units - 1 or event.rows != slot.rows:  # a head alone keeps nothing
            self.journal.made(slot.session, stage.end, slot.position + slot.rows)
            return
        size = event.rows * manifest.hidden * ROW_VALUE_BYTES
        self.journal.add(slot.session, stage.end, slot.position, slot.rows, event.payload, size)

    def lose(self, session: str, stage: Stage) -> None:
        """The stage holds nothing of the session after all."""
        self.caches.lose(session, self.layers(stage))

    # --- sessions ----------------------------------------------------------------------------------

    def serve(self, stages: Stages, epoch: int, *, same_model: bool, out: Effects) -> None:
        """These stages are run from now on. What is held of sessions stays where its layers stay."""
        self._layers.clear()
        layers = {unit for _, stage in stages for unit in range(stage.start, stage.end)}
        self.journal.keep_boundaries({stage.end for _, stage in stages} if same_model else set())
        for session in self.caches.parked():  # their driver may be another one, which knows nothing of them
            self._forget(session, out)
        for session in self.caches:
            out.append(GiveUp(session, epoch, 0))
        for session in self.caches.keep(layers if same_model else set()):
            self.journal.forget(session)
            out.append(DropSession(session))

    def fork(self, source: str, session: str, end: int, now: float, out: Effects, *, keep: bool) -> None:
        """Another session's rows become this one's; on a repeated word they did already."""
        if self.caches.fork(source, session, end, now, keep=keep):
            self.journal.fork(source, session, end, keep=keep)
            out.append(ForkKv(source, session, end, keep))

    def end(self, session: str, now: float, out: Effects) -> None:
        """The session is over."""
        self.journal.forget(session)
        if self.caches.end(session, now):
            out.append(DropSession(session))

    def park(self, session: str, now: float) -> None:
        """It ended; its rows stay for one that begins as it did."""
        self.caches.park(session, now)

    def sweep(self, now: float, out: Effects) -> None:
        """Free sessions whose driver fell silent. Of one that waits elsewhere the host says that it runs."""
        self.caches.forget_ended(now)
        if self._local.connected and (digest := self._local.digest) is not None:
            self.caches.list_running((view.session for view in digest.sessions), now)
        for session in self.caches.silent(now, deadlines.IDLE_SESSION):
            self._forget(session, out)

    def _forget(self, session: str, out: Effects) -> None:
        self.journal.forget(session)
        self.caches.forget(session)
        out.append(DropSession(session))

    def _room(self) -> int:
        """Positions that the caches may hold. The driver admits no more: beyond are a lost driver's."""
        return self._local.plan.context if self._local.plan is not None else 0
