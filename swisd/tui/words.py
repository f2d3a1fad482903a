"""How facts are spelled: numbers, states and units, the same on the dashboard and in plain text."""

import unicodedata
from collections.abc import Iterable, Sequence

from swisd.core.types import DeviceState, Liveness

NONE = "-"
_BARS = "▁▂▃▄▅▆▇█"

_STATES: dict[DeviceState, str] = {
    "idle": "idle",
    "measuring": "measuring",
    "fetching": "fetching",
    "loading": "loading",
    "ready": "ready",
    "failed": "failed",
}
_SILENT: dict[Liveness, str] = {"suspect": "silent", "dead": "lost", "left": "left"}


def clean(text: str) -> str:
    """Text of another device, safe to print: a name must not move the cursor or change the terminal."""
    spaced = " ".join(text.split())
    return "".join(c if unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in spaced)


def cells(text: str) -> int:
    """Columns that a terminal needs for the text."""
    if text.isascii():
        return len(text)
    return sum(_cell(c) for c in text)


def _cell(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """At most `width` columns; an ellipsis says that something is missing."""
    if cells(text) <= width:
        return text
    return _start(text, width - 1).rstrip() + "…" if width > 0 else ""


def _start(text: str, width: int) -> str:
    used = 0
    for i, character in enumerate(text):
        used += _cell(character)
        if used > width:
            return text[:i]
    return text


def fit(text: str, width: int, right: bool = False) -> str:
    """Exactly `width` columns."""
    text = shorten(text, width)
    space = " " * (width - cells(text))
    return space + text if right else text + space


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken between words where that is possible."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        rest = word
        while cells(line) + bool(line) + cells(rest) > width > 2:
            if line:
                lines.append(line)
                line = ""
            else:
                head = _start(rest, width)
                lines.append(head)
                rest = rest[len(head) :]
        line = f"{line} {rest}" if line else rest
    return [*lines, line] if line else lines


def millis(value: float) -> str:
    """Milliseconds without the unit; 0 means that nothing was measured."""
    if value <= 0:
        return NONE
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def rate(value: float) -> str:
    """Tokens per second without the unit."""
    if value <= 0:
        return NONE
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def per_second(token_ms: float) -> float:
    return 1000.0 / token_ms if token_ms > 0 else 0.0


def percent(part: float) -> str:
    """Progress of something that still runs, so never 100 %."""
    return f"{min(99, int(part * 100))} %"


def memory(used: int, offered: int) -> str:
    """Memory in use and offered, in one unit."""
    if offered <= 0 and used <= 0:
        return NONE
    unit, scale = ("GiB", 1 << 30) if max(used, offered) >= 1 << 30 else ("MiB", 1 << 20)

    def number(value: int) -> str:
        amount = value / scale
        return f"{amount:.1f}" if unit == "GiB" and amount < 10 else f"{amount:.0f}"

    return f"{number(used)}/{number(offered)}{unit}"


def state(liveness: Liveness, own: DeviceState, progress: float) -> str:
    """One word for a device: what it does, or that it does not answer."""
    if liveness != "alive":
        return _SILENT[liveness]
    word = _STATES[own]
    return f"{word} {percent(progress)}" if own in ("fetching", "loading") and progress > 0 else word


def units(spans: Iterable[tuple[int, int]], total: int) -> str:
    """Units `[start, end)` of a model of `total` units in words: `embed+1-12+head`."""
    parts: list[str] = []
    for start, end in sorted(spans):
        if start == 0 and end > 0:
            parts.append("embed")
        first, last = max(start, 1), min(end, total - 1) - 1
        if first <= last:
            parts.append(f"{first}-{last}" if first < last else str(first))
        if end == total and end > start:
            parts.append("head")
    return "+".join(parts)


def units_spoken(units: str) -> str:
    """`embed+1-12+head` in a sentence: `the embedding, layers 1-12 and the head`."""
    spoken = [
        {"embed": "the embedding", "head": "the head"}.get(part)
        or (f"layers {part}" if "-" in part else f"layer {part}")
        for part in units.split("+")
    ]
    return " and ".join([", ".join(spoken[:-1]), spoken[-1]] if len(spoken) > 1 else spoken)


def letter(slot: int) -> str:
    """A, B, ... Z, AA, AB, ...: the second cue beside a device's colour."""
    text = ""
    slot += 1
    while slot:
        slot, rest = divmod(slot - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def sparkline(history: Sequence[float], width: int) -> str:
    """The last `width` values as bars from zero to the highest."""
    shown = history[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    if top <= 0:
        return ""
    return "".join(_BARS[min(len(_BARS) - 1, int(value / top * (len(_BARS) - 1) + 0.5))] for value in shown)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
