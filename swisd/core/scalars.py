"""Numbers and texts from outside: the bounds that a field's annotation gives them, and their checkers.

A checker takes a raw value and gives it back as the field is to hold it, or raises `Fault`. It is made once
for each annotation and then runs for every field of every message, so the good case comes first in each.
"""

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Checker = Callable[[Any], Any]
Bounds = tuple[Any, ...]  # of one annotation; the first of a kind counts


class Malformed(ValueError):
    """Bytes from outside that are not what they should be; the text names the field."""


class Fault(Exception):
    """What is wrong with a value. `path` leads to it, innermost first: nobody writes it while all is well."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str] = []


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


def bound(bounds: Bounds, kind: type[T], default: T) -> T:
    """The bound of a kind that counts."""
    return next((item for item in bounds if isinstance(item, kind)), default)


def scalar(hint: Any, bounds: Bounds) -> Checker:
    """The checker of a value without parts. Raises `TypeError` for a type that no message may have."""
    if hint is Any:
        return _passed_on
    if hint is bool:
        return _flag
    if hint is str:
        longest = bound(bounds, Text, DEFAULT_TEXT).longest
        return _ident(longest) if any(isinstance(item, Ident) for item in bounds) else text(longest)
    if hint in (int, float):
        return _number(hint, bound(bounds, Range, DEFAULT_RANGE))
    raise TypeError(f"{hint} is not supported")


def text(longest: int) -> Checker:
    """The checker of a text."""

    def check(raw: Any) -> Any:
        if not isinstance(raw, str) or len(raw) > longest or not is_text(raw):
            raise Fault(f"not a text of at most {longest} characters")
        return raw

    return check


def is_text(raw: str) -> bool:
    """JSON can write half of a surrogate pair, which no message could pass on."""
    return raw.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in raw)


def choice(choices: tuple[Any, ...]) -> Checker:
    """The checker of a value that is one of these, of the same type."""
    texts = frozenset(item for item in choices if isinstance(item, str))

    def check(raw: Any) -> Any:
        if type(raw) is str and raw in texts:
            return raw
        if not any(type(raw) is type(item) and raw == item for item in choices):
            shown = repr(raw[:40]) if isinstance(raw, str) else "this"  # repr of nested lists has a limit
            raise Fault(f"{shown} is not one of {choices}")
        return raw

    return check


def within(span: Range, raw: list[Any]) -> bool:
    """Whether a list holds nothing but whole numbers of this range, found faster than one by one."""
    return {*map(type, raw)} <= {int} and (not raw or (span.low <= min(raw) and max(raw) <= span.high))


def _ident(longest: int) -> Checker:
    check_text, match = text(longest), Ident.pattern.fullmatch

    def check(raw: Any) -> Any:
        if not match(check_text(raw)):
            raise Fault("not an id of 16 hex digits")
        return raw

    return check


def _number(hint: Any, span: Range) -> Checker:
    low, high = span.low, span.high
    allowed = (int,) if hint is int else (int, float)
    words = "not a whole number" if hint is int else "not a number"
    isfinite = math.isfinite

    def check(raw: Any) -> Any:
        if type(raw) is hint and low <= raw <= high and isfinite(raw):
            return raw
        if not isinstance(raw, allowed) or isinstance(raw, bool):
            raise Fault(words)
        if not low <= raw <= high or (isinstance(raw, float) and not isfinite(raw)):
            raise Fault(f"{str(raw)[:40]} is outside {low} to {high}")
        return hint(raw)

    return check


def _flag(raw: Any) -> Any:
    if not isinstance(raw, bool):
        raise Fault("not true or false")
    return raw


def _passed_on(raw: Any) -> Any:
    if not _is_plain(raw):
        raise Fault("not JSON that can be passed on")
    return raw


def _is_plain(raw: Any) -> bool:
    """Whether every text within can be written again, and every number is one."""
    if isinstance(raw, str):
        return is_text(raw)
    if isinstance(raw, dict):
        return all(is_text(name) and _is_plain(item) for name, item in raw.items())
    if isinstance(raw, list):
        return all(_is_plain(item) for item in raw)
    return not isinstance(raw, float) or math.isfinite(raw)
