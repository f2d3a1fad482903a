"""`swisd up` on a terminal: the device and its dashboard in one event loop."""

import asyncio
import logging
import time
from logging.handlers import RotatingFileHandler

from swisd.core.effects import Notice
from swisd.core.events import BusChanged
from swisd.node.device import Device
from swisd.node.home import Home, default_name
from swisd.node.joining import Way
from swisd.node.node import Observed
from swisd.node.settings import Settings
from swisd.runtime import heap
from swisd.tui.app import Dashboard
from swisd.tui.view import BusState, Identity, NoticeSeen, SwarmEvent
from swisd.wire.topics import swarm_id


async def with_dashboard(home: Home, settings: Settings, way: Way, stop: asyncio.Event) -> None:
    """Run the device until its person leaves the dashboard, or a signal comes."""
    # A log line on the terminal would tear the screen; it goes to a file in the home instead.
    handler = RotatingFileHandler(home.path / "swisd.log", maxBytes=1 << 20, backupCount=1)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(asctime)s %(name)s: %(message)s")
    queue: asyncio.Queue[SwarmEvent] = asyncio.Queue()

    def observe(event: Observed) -> None:
        match event:
            case Notice():
                queue.put_nowait(NoticeSeen(time.time(), event.level, event.text))
            case BusChanged():
                queue.put_nowait(BusState(event.connected, event.reason))
            case _:
                queue.put_nowait(event)

    device = Device(home, settings, way, observe)
    try:
        await device.start()
        heap.settle()
        await _show(home, settings, way, device, queue, stop)
    finally:
        await device.stop()


async def _show(
    home: Home,
    settings: Settings,
    way: Way,
    device: Device,
    queue: asyncio.Queue[SwarmEvent],
    stop: asyncio.Event,
) -> None:
    name = settings.device.name or default_name()
    ident = home.identity().device
    queue.put_nowait(Identity(ident, name, device.join_code, swarm_id(way.key), str(home.path)))
    queue.put_nowait(NoticeSeen(time.time(), "info", way.said))
    app = Dashboard(queue, device.stop)
    waiter = asyncio.create_task(_leave_on_signal(stop, app))
    try:
        await app.run_async()
    finally:
        waiter.cancel()


async def _leave_on_signal(stop: asyncio.Event, app: Dashboard) -> None:
    await stop.wait()
    app.exit()
