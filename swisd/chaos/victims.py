"""Whom to strike: drawn from the roles of a plan with a seeded generator, so that a seed repeats it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from random import Random

from swisd.chaos.cast import Part, Role
from swisd.chaos.room import Room

SINGLE: tuple[Role, ...] = ("worker", "driver", "host", "host-driver")
MIXED = (*SINGLE, "two")
KINDS = ("none", "random", "mixed", *MIXED)
# What comes nearest to a role that nobody has.
INSTEAD: dict[str, tuple[Role, ...]] = {
    "worker": ("driver", "host-driver", "host"),
    "driver": ("host-driver", "worker"),
    "host": ("host-driver",),
    "host-driver": ("host", "driver"),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom to strike; `kind` is the role that it counts as, `note` says why it is not what was asked for."""

    victims: tuple[Part, ...]
    kind: str
    note: str = ""


class Chooser:
    """Draws victims. With `mixed` each role comes as often as the others, as far as the plans allow."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._struck: Counter[str] = Counter()

    def choose(self, kind: str, parts: Mapping[str, Part], room: Room) -> Choice:
        """Victims for `kind`: one of `KINDS`, or a device's name. Two are such as the memory can bear."""
        choice = self._choose(kind, parts, room)
        self._struck[choice.kind] += 1
        names = [part.name for part in choice.victims]
        if not names or room.without(names):
            return choice
        short = f"the others may have too little memory without {' and '.join(names)}: offer more"
        return Choice(choice.victims, choice.kind, "; ".join(filter(None, (choice.note, short))))

    def _choose(self, kind: str, parts: Mapping[str, Part], room: Room) -> Choice:
        if kind == "none":
            return Choice((), "none")
        if kind == "mixed":
            return self._mixed(parts, room)
        if kind == "two":
            found = self._two(parts, room)
            return Choice(found, "two") if found else self._any(parts, "no two that memory can spare")
        if kind == "random":
            return self._any(parts, "")
        if kind in SINGLE:
            return self._single(kind, parts)
        part = parts.get(kind)
        return Choice((part,), part.role) if part else self._any(parts, f"{kind} is not in the swarm")

    def _mixed(self, parts: Mapping[str, Part], room: Room) -> Choice:
        possible: list[str] = sorted({part.role for part in parts.values()} & set(SINGLE))
        if _pairs(parts, room):
            possible.append("two")
        if not possible:
            return self._any(parts, "nobody has a role")
        fewest = min(self._struck[role] for role in possible)
        kind = self._random.choice([role for role in possible if self._struck[role] == fewest])
        due = [role for role in MIXED if role not in possible and self._struck[role] < fewest]
        choice = self._choose(kind, parts, room)
        return Choice(choice.victims, choice.kind, f"no {' and no '.join(due)} in this plan" if due else "")

    def _single(self, kind: str, parts: Mapping[str, Part]) -> Choice:
        for role in (kind, *INSTEAD[kind]):
            found = sorted((part for part in parts.values() if part.role == role), key=lambda part: part.name)
            if found:
                note = "" if role == kind else f"no {kind} in this plan"
                return Choice((self._random.choice(found),), role, note)
        return self._any(parts, f"no {kind} in this plan")

    def _any(self, parts: Mapping[str, Part], note: str) -> Choice:
        """Any device whose loss is felt, else any."""
        felt = _felt(parts)
        if not felt:
            return Choice((), "none", note or "no device has a role")
        victim = self._random.choice(felt)
        return Choice((victim,), victim.role, note)

    def _two(self, parts: Mapping[str, Part], room: Room) -> tuple[Part, ...]:
        pairs = _pairs(parts, room)
        return self._random.choice(pairs) if pairs else ()


def _felt(parts: Mapping[str, Part]) -> list[Part]:
    """Devices whose loss is felt."""
    return sorted((part for part in parts.values() if part.role != "spare"), key=lambda part: part.name)


def _pairs(parts: Mapping[str, Part], room: Room) -> list[tuple[Part, Part]]:
    """Two of them that the memory of the others can replace."""
    pairs = combinations(_felt(parts), 2)
    return [pair for pair in pairs if room.without([part.name for part in pair])]
