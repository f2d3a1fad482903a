"""Who holds up the sessions of a driver: where a late step is, and which devices the host is told of."""

from collections.abc import Sequence

from swisd.core import deadlines
from swisd.core.effects import Notice, Publish
from swisd.core.local import Effects, Local
from swisd.core.messages import Call, Held
from swisd.core.types import Plan


def holder(held: Sequence[Held], step: int, position: int) -> int | None:
    """The stage that a late step, with rows from `position` on, is at; None if they were lost on their way.

    `held` has one entry a stage, in order.
    """
    waiting = next((item.stage for item in held if item.entered <= step or item.length <= position), None)
    if waiting is None:
        return len(held) - 1
    return None if waiting == 0 or held[waiting - 1].ran > step else waiting - 1


class Blame:
    """Names devices that do not answer, or are late again and again: each of them once under a plan."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._named: set[tuple[int, str]] = set()  # (epoch, device) that the host was told of
        self._strikes: dict[str, list[float]] = {}  # device -> when it was found late

    def clear(self) -> None:
        """Another plan is in service: who was silent or late under the old one starts with a clean slate."""
        self._named.clear()
        self._strikes.clear()

    def silent(self, device: str, plan: Plan, out: Effects) -> None:
        """It does not answer."""
        self._name("suspect", device, plan, f"{self._local.name_of(device)} does not answer", out)

    def late(self, device: str, plan: Plan, now: float, out: Effects) -> None:
        """A late step is at this device."""
        strikes = self._strikes.setdefault(device, [])
        strikes[:] = [*(at for at in strikes if now - at < deadlines.STRIKES_WITHIN), now]
        if len(strikes) >= deadlines.STRIKES:
            name = self._local.name_of(device)
            self._name("slow", device, plan, f"{name} was late {len(strikes)} times within a minute", out)

    def _name(self, op: str, device: str, plan: Plan, note: str, out: Effects) -> None:
        if device == self._local.device or (plan.epoch, device) in self._named:
            return
        self._named.add((plan.epoch, device))
        out.append(Notice("warning", note))
        call = Call(op, self._local.device, about=device, epoch=plan.epoch, note=note[:500])  # type: ignore[arg-type]
        out.append(Publish(call))
