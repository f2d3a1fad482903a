"""Dataclasses to JSON and back, with every value from outside checked for type, length and range.

A field says its bounds in its annotation: `Annotated[int, Range(0, 10)]`, `Annotated[str, Text(64)]`,
`Annotated[tuple[X, ...], Items(100)]`. A field without bounds gets cautious default ones. Unknown fields are
ignored, so an older device can read a newer one's messages.
"""

import json
import math
import re
import types
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
MAX_JSON_BYTES = 4 << 20


class Malformed(ValueError):
    """Bytes from outside that are not what they should be; the text names the field."""


class Range:
    """Inclusive bounds of a number."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high


class Text:
    """Longest length of a string in characters."""

    def __init__(self, longest: int) -> None:
        self.longest = longest


class Ident:
    """A string that must be 16 lower-case hex digits: it names a topic and is packed into frames."""

    pattern = re.compile(r"[0-9a-f]{16}")


class Items:
    """Largest number of items of a tuple or entries of a dict, and the least number of a tuple's."""

    def __init__(self, most: int, least: int = 0) -> None:
        self.most, self.least = most, least


DEFAULT_RANGE = Range(-(1 << 53), 1 << 53)
DEFAULT_TEXT = Text(1024)
DEFAULT_ITEMS = Items(4096)


def to_json(value: Any) -> bytes:
    """Canonical JSON (sorted keys, no spaces) of a dataclass: equal values have equal bytes."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def plain(value: Any) -> Any:
    """A dataclass as dicts, lists and scalars."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def from_json(kind: type[T], data: bytes, limit: int = MAX_JSON_BYTES) -> T:
    """The dataclass `kind` from JSON bytes of an untrusted source.

    Raises `Malformed`.
    """
    if len(data) > limit:
        raise Malformed(f"{kind.__name__}: {len(data)} bytes, more than {limit}")
    try:
        raw = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{kind.__name__}: not JSON ({str(error)[:80]})") from None
    return from_plain(kind, raw)


def from_plain(kind: type[T], raw: Any) -> T:
    """The dataclass `kind` from plain dicts, lists and scalars. Raises `Malformed`."""
    return _record(kind, raw, kind.__name__)  # type: ignore[no-any-return]


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _record(kind: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise Malformed(f"{where}: not a table")
    values: dict[str, Any] = {}
    hints = _hints(kind)
    for item in fields(kind):
        if item.name in raw:
            values[item.name] = _value(hints[item.name], raw[item.name], f"{where}.{item.name}", ())
        elif item.default is MISSING and item.default_factory is MISSING:
            raise Malformed(f"{where}: lacks {item.name}")
    try:
        return kind(**values)
    except ValueError as error:  # a dataclass may check itself in __post_init__
        raise Malformed(f"{where}: {error}") from None


def _value(hint: Any, raw: Any, where: str, bounds: tuple[Any, ...]) -> Any:
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *extra = get_args(hint)
        return _value(inner, raw, where, (*extra, *bounds))
    if origin is Union or origin is types.UnionType:
        return _union(get_args(hint), raw, where, bounds)
    if origin is Literal:
        if not any(type(raw) is type(choice) and raw == choice for choice in get_args(hint)):
            shown = repr(raw[:40]) if isinstance(raw, str) else "this"  # repr of nested lists has a limit
            raise Malformed(f"{where}: {shown} is not one of {get_args(hint)}")
        return raw
    if origin is tuple:
        return _sequence(get_args(hint), raw, where, bounds)
    if origin is dict:
        return _mapping(get_args(hint), raw, where, bounds)
    if is_dataclass(hint):
        return _record(hint, raw, where)
    return _scalar(hint, raw, where, bounds)


def _union(choices: tuple[Any, ...], raw: Any, where: str, bounds: tuple[Any, ...]) -> Any:
    if raw is None and type(None) in choices:
        return None
    rest = [choice for choice in choices if choice is not type(None)]
    if len(rest) != 1:
        raise TypeError(f"{where}: only X | None is supported")
    return _value(rest[0], raw, where, bounds)


def _sequence(args: tuple[Any, ...], raw: Any, where: str, bounds: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise Malformed(f"{where}: not a list")
    if len(args) == 2 and args[1] is Ellipsis:
        items = _bound(bounds, Items, DEFAULT_ITEMS)
        if len(raw) > items.most:
            raise Malformed(f"{where}: {len(raw)} items, more than {items.most}")
        if len(raw) < items.least:
            raise Malformed(f"{where}: {len(raw)} items, fewer than {items.least}")
        rest = tuple(bound for bound in bounds if not isinstance(bound, Items))
        return tuple(_value(args[0], item, where, rest) for item in raw)
    if len(raw) != len(args):
        raise Malformed(f"{where}: {len(raw)} items, not {len(args)}")
    return tuple(_value(arg, item, where, bounds) for arg, item in zip(args, raw, strict=True))


def _mapping(args: tuple[Any, ...], raw: Any, where: str, bounds: tuple[Any, ...]) -> dict[str, Any]:
    most = _bound(bounds, Items, DEFAULT_ITEMS).most
    if not isinstance(raw, dict) or len(raw) > most:
        raise Malformed(f"{where}: not a table of at most {most} entries")
    longest = _bound(bounds, Text, DEFAULT_TEXT).longest
    if any(len(key) > longest or not _is_text(key) for key in raw):
        raise Malformed(f"{where}: a key is not a text of at most {longest} characters")
    return {key: _value(args[1], item, f"{where}[{key[:20]}]", ()) for key, item in raw.items()}


def _scalar(hint: Any, raw: Any, where: str, bounds: tuple[Any, ...]) -> Any:
    if hint is Any:
        if not _is_plain(raw):
            raise Malformed(f"{where}: not JSON that can be passed on")
        return raw
    if hint is bool:
        if not isinstance(raw, bool):
            raise Malformed(f"{where}: not true or false")
        return raw
    if hint is str:
        longest = _bound(bounds, Text, DEFAULT_TEXT).longest
        if not isinstance(raw, str) or len(raw) > longest or not _is_text(raw):
            raise Malformed(f"{where}: not a text of at most {longest} characters")
        if any(isinstance(bound, Ident) for bound in bounds) and not Ident.pattern.fullmatch(raw):
            raise Malformed(f"{where}: not an id of 16 hex digits")
        return raw
    if hint in (int, float):
        allowed = (int,) if hint is int else (int, float)
        span = _bound(bounds, Range, DEFAULT_RANGE)
        if not isinstance(raw, allowed) or isinstance(raw, bool):
            raise Malformed(f"{where}: not a {'whole ' if hint is int else ''}number")
        if not span.low <= raw <= span.high or (isinstance(raw, float) and not math.isfinite(raw)):
            raise Malformed(f"{where}: {str(raw)[:40]} is outside {span.low} to {span.high}")
        return hint(raw)
    raise TypeError(f"{where}: {hint} is not supported")


def _is_plain(raw: Any) -> bool:
    """Whether every text within can be written again, and every number is one."""
    if isinstance(raw, str):
        return _is_text(raw)
    if isinstance(raw, dict):
        return all(_is_text(name) and _is_plain(item) for name, item in raw.items())
    if isinstance(raw, list):
        return all(_is_plain(item) for item in raw)
    return not isinstance(raw, float) or math.isfinite(raw)


def _is_text(raw: str) -> bool:
    """JSON can write half of a surrogate pair, which no message could pass on."""
    return raw.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in raw)


def _bound(bounds: tuple[Any, ...], kind: type[T], default: T) -> T:
    return next((bound for bound in bounds if isinstance(bound, kind)), default)
