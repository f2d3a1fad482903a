"""How many things an object holds, and all that belongs to it: what must not grow."""

from collections.abc import Iterator
from typing import Any

LOOK_INTO = 200  # items of one container


def tables(
    thing: Any, path: str, rooms: str = "swisd", seen: set[int] | None = None
) -> Iterator[tuple[str, int]]:
    """(path, size) of every container below `thing`, through objects of classes of `rooms`."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type)):
        return
    seen.add(id(thing))
    if isinstance(thing, (dict, list, set, frozenset)) or type(thing).__name__ == "deque":
        if getattr(thing, "maxlen", None) is None:  # a deque with a limit has its own bound
            yield path, len(thing)
        for item in list(thing.values() if isinstance(thing, dict) else thing)[:LOOK_INTO]:
            yield from tables(item, f"{path}[]", rooms, seen)
    elif type(thing).__module__.startswith(rooms):
        names = [*getattr(thing, "__dict__", {})]
        names += [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in names:
            yield from tables(getattr(thing, name, None), f"{path}.{name}", rooms, seen)
