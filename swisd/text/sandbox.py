"""A jinja2 sandbox that also meters work, for templates that come with a model file from anywhere.

jinja2's own sandbox keeps a template away from Python's internals, but lets it loop for hours or build a
text of a terabyte. Here every loop turn, call, joined text, built list and printed value is charged to one
budget per render, and operations whose result may be far larger than their arguments are checked before
they run. What is not needed by chat templates (most filters, text formatting) is not there at all.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from jinja2 import TemplateError, filters, tests
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from swisd.text.meter import MAX_TEXT_CHARS, MAX_WHOLE_BITS, Meter, TooMuchWork, refuse_namespace

_FILTERS = (
    "abs",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "safe",
    "select",
    "selectattr",
    "sort",
    "string",
    "title",
    "trim",
    "unique",
    "upper",
)
# Methods of built-in values that a template may call. All but replace and join give no more than they take.
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        (
            "capitalize",
            "count",
            "endswith",
            "find",
            "index",
            "isalnum",
            "isalpha",
            "isdigit",
            "islower",
            "isspace",
            "isupper",
            "join",
            "lower",
            "lstrip",
            "removeprefix",
            "removesuffix",
            "replace",
            "rfind",
            "rsplit",
            "rstrip",
            "split",
            "splitlines",
            "startswith",
            "strip",
            "title",
            "upper",
        )
    ),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}


class MeteredSandbox(ImmutableSandboxedEnvironment):
    """The environment of one render. Compile its templates with `swisd.text.metered`."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, meter: Meter) -> None:
        # Without `optimized`, nothing is computed at compile time, when no meter runs.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            cache_size=0,
            extensions=["jinja2.ext.loopcontrols"],
        )
        self.meter = meter
        self.macro_cost = 1
        self.globals = {
            "range": self._range,
            "dict": dict,
            "namespace": self.globals["namespace"],
            "raise_exception": _raise_exception,
        }
        known: dict[str, Callable[..., Any]] = {name: filters.FILTERS[name] for name in _FILTERS}
        known |= {"join": self._join, "replace": self._replace, "string": meter.text, "tojson": self._to_json}
        self.filters = {name: self._weighed(function) for name, function in known.items()}
        known_tests: Any = tests.TESTS
        self.tests = {
            name: self._weighed(function, of_namespace=True) for name, function in known_tests.items()
        }

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind):
                return attr in allowed
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No formatting: a width in it can ask for any amount of memory."""

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(obj, "__self__", None)
        if owner is self.meter:
            return obj(*args)  # Put there by `swisd.text.metered`, not by the template.
        self.meter.charge(self.macro_cost if isinstance(obj, Macro | LoopContext) else 1)
        if isinstance(obj, LoopContext):  # `loop(children)` of a recursive loop
            args = tuple(self.meter.turns(argument, self.macro_cost) for argument in args)
        if not isinstance(obj, Macro):
            for argument in args:
                self.meter.weigh(argument)
        if isinstance(owner, str):
            self.meter.weigh(owner)
            if obj.__name__ == "replace":
                return self._replace(owner, *args)
            if obj.__name__ == "join":
                return self._join(args[0], owner)
        return self.meter.weigh(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.meter.weigh(left)
        self.meter.weigh(right)
        self.meter.charge()
        if operator == "%" and isinstance(left, str):
            raise TooMuchWork("it formats text with %, which is not allowed here")
        if operator == "*":
            _check_product(left, right)
        if operator == "**" and not (
            _is_whole(right) and 0 <= right <= 64 and _bits(left) * right <= MAX_WHOLE_BITS
        ):
            raise TooMuchWork("it computes too large a number")
        return self.meter.weigh(super().call_binop(context, operator, left, right))

    def _weighed(self, function: Callable[..., Any], *, of_namespace: bool = False) -> Callable[..., Any]:
        """A filter or test whose arguments and result are charged; lazy results are drawn at once."""
        meter = self.meter
        # jinja2 marks on the function whether it wants the context or the environment as first argument.
        takes_state = hasattr(function, "jinja_pass_arg")

        def filtered(*args: Any, **kwargs: Any) -> Any:
            for value in args[1:] if takes_state else args:
                if not of_namespace:
                    refuse_namespace(value)
                meter.weigh(value)
            result = function(*args, **kwargs)
            return meter.weigh(meter.turns(result) if isinstance(result, Iterator) else result)

        if takes_state:
            filtered.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return filtered

    def _range(self, *bounds: int) -> range:
        values = range(*bounds)
        self.meter.charge(len(values))
        return values

    def _join(self, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
        items = list(self.meter.turns(value))
        if attribute is not None:
            items = [self.getitem(item, attribute) for item in items]
        texts = [self.meter.text(item) for item in items]
        separator = self.meter.text(d)
        self.meter.charge(len(texts), sum(map(len, texts)) + len(separator) * len(texts))
        return separator.join(texts)

    def _replace(self, value: Any, old: Any, new: Any, count: int = -1) -> str:
        text, old, new = self.meter.text(value), self.meter.text(old), self.meter.text(new)
        times = text.count(old) if count < 0 else min(count, text.count(old))
        self.meter.charge(1 + times, max(0, times * (len(new) - len(old))))
        return text.replace(old, new, count)

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as models saw it in training: not escaped for HTML, which is jinja2's own habit."""
        if indent is not None and not (_is_whole(indent) and 0 <= indent <= 8):
            raise TooMuchWork("it indents JSON too far")
        if separators is not None and sum(map(len, separators)) > 8:
            raise TooMuchWork("it separates JSON too far")
        self.meter.weigh(value)
        encoder = json.JSONEncoder(
            ensure_ascii=bool(ensure_ascii), indent=indent, separators=separators, sort_keys=bool(sort_keys)
        )
        if indent is None:
            return encoder.encode(value)
        chunks = []
        for chunk in encoder.iterencode(value):  # Indented, a deep value may be far longer than its parts.
            self.meter.charge(1 + len(chunk) // 64)
            chunks.append(chunk)
        return "".join(chunks)


def _raise_exception(message: Any) -> NoReturn:
    raise TemplateError(f"it refuses these messages: {str(message)[:300]}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 64


def _check_product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if (
            isinstance(value, str | list | tuple)
            and isinstance(times, int)
            and len(value) * times > MAX_TEXT_CHARS
        ):
            raise TooMuchWork("it repeats a text too often")
    if isinstance(left, int) and isinstance(right, int) and _bits(left) + _bits(right) > MAX_WHOLE_BITS:
        raise TooMuchWork("it computes too large a number")
