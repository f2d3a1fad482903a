"""Hypothesis strategies from the annotations that the JSON checks read."""

import types
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from swisd.core.checked import DEFAULT_ITEMS, DEFAULT_RANGE, DEFAULT_TEXT, Ident, Items, Range, Text
from swisd.core.messages import Ask, Beat, Call, Digest, Gone, Out, Repair
from swisd.core.types import Capability, Plan

MESSAGES = [Beat, Capability, Gone, Digest, Plan, Ask, Out, Repair, Call]


def values(hint: Any, bounds: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Values that an annotation allows."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return values(args[0], (*args[1:], *bounds))
    if origin in (Union, types.UnionType):
        return st.one_of(*(st.none() if arg is type(None) else values(arg, bounds) for arg in args))
    if origin is Literal:
        return st.sampled_from(args)
    items = bound(bounds, Items, DEFAULT_ITEMS)
    most = min(items.most, 3)
    if origin is tuple and args[-1] is Ellipsis:
        rest = tuple(item for item in bounds if not isinstance(item, Items))
        return st.lists(values(args[0], rest), min_size=items.least, max_size=most).map(tuple)
    if origin is tuple:
        return st.tuples(*(values(arg, bounds) for arg in args))
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), values(args[1]), max_size=most)
    if is_dataclass(hint):
        return records(hint)
    span = bound(bounds, Range, DEFAULT_RANGE)
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(int(span.low), int(span.high))
    if hint is float:
        return st.floats(span.low, span.high)
    assert hint is str, hint
    if any(isinstance(item, Ident) for item in bounds):
        return st.text("0123456789abcdef", min_size=16, max_size=16)
    letters = st.characters(exclude_categories=["Cs"])
    return st.text(letters, max_size=min(bound(bounds, Text, DEFAULT_TEXT).longest, 12))


def bound(bounds: tuple[Any, ...], kind: type, default: Any) -> Any:
    return next((item for item in bounds if isinstance(item, kind)), default)


def records(kind: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{item.name: values(hints[item.name]) for item in fields(kind)})


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([1 << 64, -1, 1e300, "\ud800", "ready", "x" * 2000, [[]], 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
