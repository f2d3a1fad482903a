"""`swisd up`: one device until it is told to stop, with the dashboard or with a line per event."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swisd.cli.output import say
from swisd.core.checked import Malformed, from_plain, plain
from swisd.core.effects import Notice
from swisd.core.errors import BadInput
from swisd.core.events import BusChanged
from swisd.core.types import Plan
from swisd.node.describe import best_of, models_in
from swisd.node.device import Device
from swisd.node.home import Home
from swisd.node.joining import find_way
from swisd.node.node import Observed
from swisd.node.settings import Settings, load_settings, parse_size
from swisd.runtime import heap
from swisd.wire.joincode import parse_join_code
from swisd.wire.topics import swarm_id

STOP_S = 10.0
AGAIN_S = 60.0  # from then on a line that is as the one before is news again


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The command line of `swisd up`; empty or 0 means: as the settings say."""

    name: str = ""
    join: str = ""
    memory: str = ""
    headless: bool = False
    model: str = ""
    objective: str = ""
    context: int = 0
    threads: int = 0
    port: int = 0
    address: str = ""
    broker: str = ""
    drafter: str = ""


def run_up(home_path: Path | None, options: UpOptions) -> None:
    """Run until a signal or `q` in the dashboard."""
    home = Home(home_path)
    settings = apply(load_settings(home.path), options)
    if settings.device.memory and parse_size(settings.device.memory) < 1 << 20:
        raise BadInput(f"an offer of {settings.device.memory} is too little for anything: 1MiB is the least")
    dashboard = not options.headless and sys.stdout.isatty()
    heap.keep_large_blocks_apart()
    asyncio.run(_run(home, settings, options, dashboard))


def apply(settings: Settings, options: UpOptions) -> Settings:
    """The settings with the command line over them. Raises `BadInput` for what is out of range."""

    def given(**values: Any) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value}

    device = given(
        name=options.name[:32], memory=options.memory, threads=options.threads, port=options.port,
        address=options.address, drafter=options.drafter,
    )  # fmt: skip
    model = given(id=options.model, objective=options.objective, context=options.context)
    chosen = replace(
        settings,
        device=replace(settings.device, **device),
        model=replace(settings.model, **model),
        swarm=replace(settings.swarm, **given(broker=options.broker)),
    )
    try:
        # Out of range, the device's own words would be refused by all others.
        return from_plain(Settings, plain(chosen))
    except Malformed as error:
        raise BadInput(f"option {str(error).removeprefix('Settings.')}") from None


def chosen_of_several(home: Home, settings: Settings) -> str:
    """Which model is offered, where several are here and none is named; empty otherwise."""
    here = [] if settings.model.id else models_in(home, settings)
    if len(here) < 2:
        return ""
    return f"models here: {', '.join(here)}; {best_of(here)} is offered, --model names another"


async def _run(home: Home, settings: Settings, options: UpOptions, dashboard: bool) -> None:
    code = parse_join_code(options.join) if options.join else None
    if not dashboard:
        logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    if choice := chosen_of_several(home, settings):
        say(choice)
    say("looking for the swarm")
    way = await find_way(home, settings, code)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows has no signal handlers in the event loop
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if dashboard:
        from swisd.cli.screen import with_dashboard

        await with_dashboard(home, settings, way, stop)
        return
    say(f"swarm {swarm_id(way.key)}: {way.said}")
    device = Device(home, settings, way, Printer(say))
    await device.start()
    heap.settle()
    try:
        say(f"device {home.identity().device} listens on port {device.port}")
        say(f"join code: {device.join_code}")
        await stop.wait()
    finally:
        await _leave(device)


async def _leave(device: Device) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            asyncio.get_running_loop().remove_signal_handler(number)  # who asks twice is not kept waiting
    say("leaving the swarm")
    try:
        async with asyncio.timeout(STOP_S):
            await device.stop()
    except TimeoutError:
        say(f"not everything ended within {STOP_S:.0f} s")


class Printer:
    """One line per event, with the time of day; the same one again only after a while."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._last, self._said_at = "", 0.0

    def __call__(self, event: Observed) -> None:
        match event:
            case Notice():
                self._line(event.text if event.level == "info" else f"{event.level}: {event.text}")
            case Plan() if event.active:
                several = f"{len(event.pipelines)} pipelines, " if len(event.pipelines) > 1 else ""
                predicted = f"{event.prediction.token_ms:.1f} ms/token predicted"
                self._line(f"plan {event.epoch} is in force: {several}{predicted}")
            case BusChanged(connected=False):
                self._line(f"not connected to the bus: {event.reason}")
            case _:
                return

    def _line(self, text: str) -> None:
        now = self._clock()
        if text != self._last or now - self._said_at >= AGAIN_S:
            self._last, self._said_at = text, now
            self._write(f"{time.strftime('%H:%M:%S')} {text}")
