"""Whom a new host waits for before it plans: devices that the lost one knew, and hosts that may be about."""

from collections.abc import Iterator, Sequence

from swisd.core import deadlines
from swisd.core.membership import Membership
from swisd.core.messages import Digest, MemberView


class Awaited:
    """Devices as the lost host knew them, until they are here or were waited for long enough."""

    def __init__(self, device: str, members: Membership) -> None:
        self._device, self._members = device, members
        self._views: dict[str, MemberView] = {}
        self._began = 0.0
        self._hold_until = 0.0  # no plan before: another host may be about

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._views))

    def begin(self, now: float) -> None:
        """A reign begins, with nobody to wait for."""
        self._began, self._views = now, {}

    def expect(self, before: Digest) -> None:
        """The lost host's devices will come, without itself."""
        self._views = {
            item.device: item
            for item in before.members
            if item.liveness == "alive" and item.device != before.host
        }

    def hold(self, until: float) -> None:
        """Another host may answer until then."""
        self._hold_until = until

    def get(self, device: str) -> MemberView | None:
        """An awaited device as it was."""
        return self._views.get(device)

    def give_up(self, device: str) -> MemberView | None:
        """A device will not come. Returns what it was if it was waited for."""
        return self._views.pop(device, None)

    def too_early(self, now: float) -> bool:
        """Whether another host, or devices that the lost one knew, are about to come."""
        if now < self._hold_until:
            return True
        if self._views:
            here = {capability.device for capability in self._members.usable()}
            if not self._views.keys() <= here:
                apart = not self._views.keys() & here - {self._device}
                if now - self._began < (deadlines.APART if apart else deadlines.GATHER):
                    return True
            self._views = {}
        return False

    def beside(self, members: Sequence[MemberView]) -> tuple[MemberView, ...]:
        """The members and, as they were, those who are about to come.

        In the digest others find their neighbours, and their next host: whoever will be here is in it.
        """
        entries = self._members.entries.values()
        ready = {entry.device for entry in entries if entry.beat is not None and entry.capability is not None}
        here = [view for view in members if view.device in ready or view.device not in self._views]
        return (*here, *(view for device, view in self._views.items() if device not in ready))
