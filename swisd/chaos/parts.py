"""The parts of a pause, as far as the devices tell them in their lines.

What a device prints is for people and may change; a part whose line is not found is not reported.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from swisd.chaos.device import Line

_NOTICED = re.compile(
    r"does not answer|-> (?:suspect|dead)|\bis lost\b|not connected to the bus|the host is silent|\w left$"
)
_PLANNED = re.compile(r"\bplan (\d+) \(.*\): \d+ device")
_ACTIVE = re.compile(r"\bplan (\d+) is (?:in force|active)")
_REPLAYED = re.compile(r"replayed (\d+) positions? in (\d+(?:\.\d+)?) (m?s)\b")


@dataclass(frozen=True, slots=True)
class PauseParts:
    """Seconds from the blow until something happened, None where nobody said so; `replay_s` is a duration.

    `loaded_s` is when the plan came into force that the first token was made under.
    """

    noticed_s: float | None = None
    planned_s: float | None = None
    loaded_s: float | None = None
    replay_s: float | None = None
    replayed_positions: int | None = None
    token_s: float | None = None


def pause_parts(
    lines: Sequence[Line], struck_at: float, token_at: float, epoch: int, silent: Collection[str] = ()
) -> PauseParts:
    """Read the lines between the blow and the first token after the pause.

    `epoch` is that of the plan before. What the devices named in `silent` said does not count: they were
    struck. `token_at` of 0: no token came.
    """
    noticed = planned = loaded = replay = None
    positions, last = None, epoch
    for line in lines:
        if line.device in silent or line.at < struck_at or (token_at and line.at > token_at):
            continue
        after = line.at - struck_at
        if noticed is None and _NOTICED.search(line.text):
            noticed = after
        if (found := _PLANNED.search(line.text)) and int(found[1]) > epoch:
            noticed = after if noticed is None else noticed  # a plan without this device is a notice too
            planned = after
        if (found := _ACTIVE.search(line.text)) and int(found[1]) > last:
            last, loaded = int(found[1]), after
        if found := _REPLAYED.search(line.text):
            seconds = float(found[2]) / (1000 if found[3] == "ms" else 1)
            if replay is None or seconds > replay:
                replay, positions = seconds, int(found[1])
    return PauseParts(
        _rounded(noticed), _rounded(planned), _rounded(loaded), _rounded(replay), positions,
        _rounded(token_at - struck_at if token_at else None),
    )  # fmt: skip


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
