"""The budget of one template render: steps of work and characters of text."""

from collections.abc import Iterator, Mapping, Sized
from typing import Any

from jinja2 import TemplateError
from jinja2.utils import Namespace

STEPS = 1_000_000
MAX_TEXT_CHARS = 4 << 20
MAX_WHOLE_BITS = 256


class TooMuchWork(TemplateError):
    """A template asks for more loops, text or values than any chat needs."""


class Meter:
    """What one render may still do."""

    def __init__(self) -> None:
        self._steps = STEPS
        self._chars = MAX_TEXT_CHARS

    def charge(self, steps: int = 1, chars: int = 0) -> None:
        self._steps -= steps
        self._chars -= chars
        if self._steps < 0 or self._chars < 0:
            raise TooMuchWork("it loops too long or writes too much")

    def weigh(self, value: Any) -> Any:
        """Charge a value for all that it holds, however often it holds the same, and give it back.

        A list of two references to one list, forty deep, is small in memory and endless to walk. The walk
        cannot look into a `namespace`, so none may stand in a list.
        """
        if isinstance(value, str):
            self.charge(1 + len(value) // 64)
            if len(value) > MAX_TEXT_CHARS:
                raise TooMuchWork("it builds too long a text")
            return value
        if isinstance(value, int) and value.bit_length() > MAX_WHOLE_BITS:
            raise TooMuchWork("it computes too large a number")
        if not isinstance(value, Mapping | list | tuple):
            return value
        waiting: list[Any] = [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                self.charge(1 + len(item) // 64)
            elif isinstance(item, Mapping):
                self.charge(1 + len(item))
                waiting.extend(item.keys())
                waiting.extend(item.values())
            elif isinstance(item, list | tuple):
                self.charge(1 + len(item))
                waiting.extend(item)
            else:
                refuse_namespace(item)
        return value

    def text(self, value: Any) -> str:
        """`str(value)`, charged before it is built."""
        refuse_namespace(value)
        self.weigh(value)
        return str(value)

    def emit(self, value: Any) -> str:
        text = self.text(value)
        self.charge(1, len(text))
        return text

    def concat(self, *values: Any) -> str:
        texts = [self.text(value) for value in values]
        self.charge(1, sum(map(len, texts)))
        return "".join(texts)

    def turns(self, values: Any, cost: int = 1) -> Any:
        """What a loop runs over, charged `cost` for each turn before the first one begins."""
        if isinstance(values, Iterator):
            values = list(self._counted(values))
        if isinstance(values, Sized):
            self.charge(1 + cost * len(values))
        return values

    def _counted(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.charge()
            yield value


def refuse_namespace(value: Any) -> None:
    if isinstance(value, Namespace):
        raise TooMuchWork("it uses a namespace as if it were a value")
