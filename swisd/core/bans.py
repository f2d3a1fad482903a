"""Devices that a plan does without for a while, and why: each reason goes on after the device's name."""

from collections.abc import Callable, Iterator, Mapping

from swisd.core import deadlines
from swisd.core.types import Verdict


class Bans(Mapping[str, str]):
    """Device -> reason, like `could not load its shard: the disk is full`."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, str]] = {}

    def __getitem__(self, device: str) -> str:
        return self._until[device][1]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._until))

    def __len__(self) -> int:
        return len(self._until)

    def add(self, device: str, reason: str, now: float) -> None:
        """Leave a device out for `deadlines.BAN` seconds."""
        self._until[device] = (now + deadlines.BAN, reason)

    def sweep(self, now: float) -> bool:
        """Returns True if a ban ended."""
        over = [device for device, (until, _) in self._until.items() if until <= now]
        for device in over:
            del self._until[device]
        return bool(over)

    def verdicts(self) -> tuple[Verdict, ...]:
        """As a plan tells them."""
        return tuple(Verdict(device, False, f"left out: {self[device]}"[:500]) for device in self)

    def words(self, name_of: Callable[[str], str]) -> list[str]:
        """As a problem tells them."""
        return [f"{name_of(device)} {self[device]}" for device in self]
