"""What is known of the swarm while an asker gets nothing, and what a person is told of it."""

from swisd.core.messages import Digest
from swisd.core.types import Plan

LOST = "the swarm's bus is lost: its host is gone or out of reach; trying again"
AT_WORK = ("measuring", "fetching", "loading")  # states after which a device may offer more than now


class Outlook:
    """Reasons of waiting, by what the bus and the host's digests say.

    `asked` is whether a driver has the session; `no_fit` is in seconds.
    """

    def __init__(self, no_fit: float) -> None:
        self.no_fit = no_fit  # how long it is waited where the model fits nowhere
        self.connected = True
        self._nowhere: float | None = None  # since when it fits nowhere
        self.digest: Digest | None = None
        self._signs: object = None

    def on_digest(self, digest: Digest) -> bool:
        """Returns True if something moved since the digest before."""
        self.digest = digest
        signs = (digest.note, tuple((item.device, item.state, item.progress) for item in digest.members))
        moved, self._signs = signs != self._signs, signs
        return moved

    def closes(self, plan: Plan | None, now: float, *, asked: bool) -> bool:
        """Note whether the model fits anywhere. Returns True if from now on it does not."""
        if asked or not self._fits_nowhere(plan):
            self._nowhere = None
        elif self._nowhere is None:
            self._nowhere = now
            return True
        return False

    def hopeless(self, now: float) -> bool:
        """Whether the model has fitted nowhere for long enough."""
        return self._nowhere is not None and now - self._nowhere >= self.no_fit

    def why(self, plan: Plan | None, *, asked: bool) -> str:
        """The most useful thing known about why nothing comes."""
        digest = self.digest
        if not self.connected:
            return LOST
        if asked:
            return "the driver does not answer"
        if plan is not None and plan.problem:
            return plan.problem
        if digest is not None and digest.note:
            return digest.note
        if digest is not None:
            for member in digest.members:
                if member.state in AT_WORK:
                    done = f" {member.progress:.0%}" if member.state != "measuring" else ""
                    return f"{member.name} is {member.state}{done}"
                if member.state == "failed":
                    return f"{member.name} failed: {member.note}"
        return "waiting for a plan" if digest is not None else "waiting for the swarm's host"

    def _fits_nowhere(self, plan: Plan | None) -> bool:
        """Whether the plan says that there is none, and no device is doing anything that could change it."""
        digest = self.digest
        if plan is None or plan.pipelines or not plan.problem or digest is None:
            return False
        return not any(member.state in AT_WORK for member in digest.members)
