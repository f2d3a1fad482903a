"""`--wait [SECONDS]`: an option whose figure may be left out, which means for ever."""

import math
import re
from typing import Any

from typer.core import TyperCommand

FLAG = "--wait"
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)")


class WaitCommand(TyperCommand):
    """A command with such an option. Click alone would take the prompt after it for its value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_figure(args))


def with_figure(args: list[str]) -> list[str]:
    """The arguments with a figure after every `--wait` that has none."""
    made: list[str] = []
    for place, arg in enumerate(args):
        if arg == "--":
            return made + args[place:]
        made.append(arg)
        if arg == FLAG and not (place + 1 < len(args) and _NUMBER.fullmatch(args[place + 1])):
            made.append(str(math.inf))
    return made
