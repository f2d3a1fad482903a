"""Dataclasses to JSON and back, with every value from outside checked for type, length and range.

A field says its bounds in its annotation: `Annotated[int, Range(0, 10)]`, `Annotated[str, Text(64)]`,
`Annotated[tuple[X, ...], Items(100)]`. A field without bounds gets cautious default ones. Unknown fields are
ignored, so an older device can read a newer one's messages.

Every device reads some messages each second, so the annotations of a dataclass are looked at once: they
become checkers (see `scalars`), and its fields a list of names.
"""

import json
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from swisd.core.scalars import (
    DEFAULT_ITEMS,
    DEFAULT_RANGE,
    DEFAULT_TEXT,
    Bounds,
    Checker,
    Fault,
    Ident,
    Items,
    Malformed,
    Range,
    Text,
    bound,
    choice,
    is_text,
    scalar,
    within,
)

__all__ = [
    "DEFAULT_ITEMS",
    "DEFAULT_RANGE",
    "DEFAULT_TEXT",
    "MAX_JSON_BYTES",
    "Ident",
    "Items",
    "Malformed",
    "Range",
    "Text",
    "from_json",
    "from_plain",
    "plain",
    "to_json",
]

T = TypeVar("T")
MAX_JSON_BYTES = 4 << 20


def to_json(value: Any) -> bytes:
    """Canonical JSON (sorted keys, no spaces) of a dataclass: equal values have equal bytes."""
    return _ENCODER.encode(value).encode()


def plain(value: Any) -> Any:
    """A dataclass as dicts, lists and scalars."""
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in _names(type(value))}
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
    try:
        return _record(kind)(raw)  # type: ignore[no-any-return]
    except Fault as fault:
        where = kind.__name__ + "".join(reversed(fault.path))
        raise Malformed(f"{where}: {fault.what}") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(item.name for item in fields(kind))


def _table(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, as the encoder asks for what it cannot write by itself."""
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return {name: getattr(value, name) for name in _names(type(value))}


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_table)


def _make_record(kind: Any) -> Checker:
    """The checker of a dataclass."""
    hints, items = get_type_hints(kind, include_extras=True), fields(kind)
    must = {item.name for item in items if item.default is MISSING and item.default_factory is MISSING}
    checkers = [(item.name, _checker(hints[item.name], ()), item.name in must) for item in items]

    def check(raw: Any) -> Any:
        if not isinstance(raw, dict):
            raise Fault("not a table")
        values: dict[str, Any] = {}
        for name, checker, needed in checkers:
            if name in raw:
                try:
                    values[name] = checker(raw[name])
                except Fault as fault:
                    fault.path.append(f".{name}")
                    raise
            elif needed:
                raise Fault(f"lacks {name}")
        try:
            return kind(**values)
        except ValueError as error:  # a dataclass may check itself in __post_init__
            raise Fault(str(error)) from None

    return check


_record: Callable[[Any], Checker] = cache(_make_record)


def _checker(hint: Any, bounds: Bounds) -> Checker:
    """The checker of an annotation, within the bounds of those that it is part of."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner, *extra = args
        return _checker(inner, (*extra, *bounds))
    if origin is Union or origin is types.UnionType:
        return _optional(args, bounds)
    if origin is Literal:
        return choice(args)
    if origin is tuple:
        several = len(args) == 2 and args[1] is Ellipsis
        return _sequence(args[0], bounds) if several else _fixed(args, bounds)
    if origin is dict:
        return _mapping(args[1], bounds)
    return _record(hint) if is_dataclass(hint) else scalar(hint, bounds)


def _optional(choices: tuple[Any, ...], bounds: Bounds) -> Checker:
    rest = [item for item in choices if item is not type(None)]
    if len(rest) != 1:
        raise TypeError("only X | None is supported")
    checker = _checker(rest[0], bounds)
    return lambda raw: None if raw is None else checker(raw)


def _sequence(hint: Any, bounds: Bounds) -> Checker:
    items = bound(bounds, Items, DEFAULT_ITEMS)
    most, least = items.most, items.least
    rest = tuple(item for item in bounds if not isinstance(item, Items))
    checker = _checker(hint, rest)
    span = _span(hint, rest)

    def check(raw: Any) -> Any:
        if not isinstance(raw, list):
            raise Fault("not a list")
        if len(raw) > most:
            raise Fault(f"{len(raw)} items, more than {most}")
        if len(raw) < least:
            raise Fault(f"{len(raw)} items, fewer than {least}")
        if span is not None and within(span, raw):
            return tuple(raw)
        return tuple([checker(item) for item in raw])

    return check


def _span(hint: Any, bounds: Bounds) -> Range | None:
    """The bounds of items that are whole numbers."""
    if get_origin(hint) is Annotated:
        inner, *extra = get_args(hint)
        return _span(inner, (*extra, *bounds))
    return bound(bounds, Range, DEFAULT_RANGE) if hint is int else None


def _fixed(hints: tuple[Any, ...], bounds: Bounds) -> Checker:
    checkers = [_checker(hint, bounds) for hint in hints]
    count = len(checkers)

    def check(raw: Any) -> Any:
        if not isinstance(raw, list):
            raise Fault("not a list")
        if len(raw) != count:
            raise Fault(f"{len(raw)} items, not {count}")
        return tuple([checker(item) for checker, item in zip(checkers, raw, strict=True)])

    return check


def _mapping(hint: Any, bounds: Bounds) -> Checker:
    most = bound(bounds, Items, DEFAULT_ITEMS).most
    longest = bound(bounds, Text, DEFAULT_TEXT).longest
    checker = _checker(hint, ())

    def check(raw: Any) -> Any:
        if not isinstance(raw, dict) or len(raw) > most:
            raise Fault(f"not a table of at most {most} entries")
        values = {}
        if any(len(key) > longest or not is_text(key) for key in raw):
            raise Fault(f"a key is not a text of at most {longest} characters")
        for key, item in raw.items():
            try:
                values[key] = checker(item)
            except Fault as fault:
                fault.path.append(f"[{key[:20]}]")
                raise
        return values

    return check
