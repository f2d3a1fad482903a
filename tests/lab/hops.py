"""Measures every hop of real devices on loopback: where the time between two computations goes.

    python -m tests.lab.hops HOME --devices 2 --lane tcp --tokens 200

Devices are processes of this machine, and Linux gives all of them one monotonic clock: so a moment on the
sender and one on the receiver may be subtracted, which no two machines allow.
"""

import argparse
import asyncio
import atexit
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from swisd.bench.contender import SwarmSide
from swisd.bench.figures import percentile
from swisd.chaos.device import DeviceProcess
from swisd.chaos.swarm import LocalSwarm
from swisd.client.reach import reach
from swisd.node.home import Home
from swisd.node.settings import load_settings

PARTS = ("wait", "machine", "serialise", "wire", "read", "machine ", "wait ")


def traced() -> None:
    """A device's program: `swisd up` whose moments are kept in memory and written at its end."""
    from swisd.cli.app import main
    from swisd.core.effects import SendFrame
    from swisd.node import compute, node, onward, stepping
    from swisd.runtime import shard
    from swisd.transport import ear, link, mqtt

    moments: list[tuple[str, str, int, int, int]] = []
    home = Path(os.environ["HOPS_TRACE"])

    def note(what: str, slots: Any, stage: int) -> None:
        slot = slots[0]
        moments.append((what, slot.session, getattr(slot, "step", -1), stage, time.monotonic_ns()))

    def wrap(owner: Any, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            before(*arguments)
            try:
                return real(*arguments, **options)
            finally:
                after(*arguments)

        setattr(owner, name, call)

    def nothing(*_: Any) -> None:
        pass

    def computed(self: Any, events: Any, *_: Any) -> None:
        for event in events:
            if (work := getattr(event, "work", None)) is not None and not getattr(event, "sent", False):
                moments.append(("computed", work.session, work.step, work.stage, time.monotonic_ns()))

    def sending(what: str) -> Callable[..., None]:
        def told(self: Any, effect: Any) -> None:
            if isinstance(effect, SendFrame):
                note(what, effect.activation.slots, effect.activation.stage)

        return told

    def gone_on(send: Callable[..., Any]) -> Callable[..., Any]:
        """Rows that the computing thread sends: they neither wait nor meet the machine."""

        def told(self: Any, effects: Any, events: Any) -> Any:
            began = time.monotonic_ns()
            found = send(self, effects, events)
            ended = time.monotonic_ns()
            for event in found:
                if getattr(event, "sent", False):
                    work = event.work
                    for what, stage, at in (("computed", 0, began), ("send", 1, began), ("sent", 1, ended)):
                        moments.append((what, work.session, work.step, work.stage + stage, at))
            return found

        return told

    came = [0]

    def bytes_came(*_: Any) -> None:
        came[0] = time.monotonic_ns()

    def frame(self: Any, device: str, one: Any) -> None:
        slot = one.slots[0]
        moments.append(("came", slot.session, slot.step, one.stage, came[0]))
        note("read", one.slots, one.stage)

    heard = [0]

    def heard_bytes(*_: Any) -> None:
        heard[0] = time.monotonic_ns()

    def heard_row(self: Any, effect: Any) -> None:
        """A row that the computing thread read itself: no machine, and nothing that waits."""
        if heard[0]:
            slot, stage = effect.activation.slots[0], effect.activation.stage
            moments.append(("came", slot.session, slot.step, stage, heard[0]))
            note("read", effect.activation.slots, stage)
            note("submit", effect.activation.slots, stage)
            heard[0] = 0

    wrap(ear.Ear, "use", heard_bytes, nothing)
    wrap(stepping.Stepping, "run_early", heard_row, nothing)
    wrap(shard.Shard, "run", lambda s, slots, x: note("start", slots, s.start),
         lambda s, slots, x: note("end", slots, s.start))  # fmt: skip
    wrap(compute.Compute, "_steps_told", computed, nothing)
    onward.Onward.send = gone_on(onward.Onward.send)  # type: ignore[method-assign]
    wrap(node.Node, "_do", sending("send"), sending("sent"))
    wrap(node.Node, "on_frame", frame, nothing)
    wrap(compute.Compute, "run", lambda s, e: note("submit", e.activation.slots, e.activation.stage), nothing)
    wrap(link.FrameLink, "buffer_updated", bytes_came, nothing)
    wrap(mqtt.BusLanes, "feed", bytes_came, nothing)
    wrap(
        compute.Compute, "begin", lambda s, e: note("submit", e.activation.slots, e.activation.stage), nothing
    )
    atexit.register(lambda: (home / f"{os.getpid()}.json").write_text(json.dumps(moments)))
    main()


def hops(traces: list[list[Any]]) -> list[dict[str, float]]:
    """Every hop of one row that can be followed from end to end: its parts in ms."""
    out: list[dict[str, float]] = []
    sent: dict[tuple[str, int, int], dict[str, int]] = {}
    for trace in traces:
        ended: dict[tuple[str, int], int] = {}
        computed: dict[tuple[str, int], int] = {}
        waiting: dict[tuple[str, int], tuple[str, int, int]] = {}
        for what, session, step, stage, at in trace:
            key = session, step, stage
            if what == "end":
                ended[session, step] = at
            elif what == "computed":
                computed[session, step] = at
            elif what == "send":
                if (session, step) in ended and (session, step) in computed:  # not rows that shared a pass
                    mine = sent.setdefault(key, {})
                    mine.update(end=ended[session, step], computed=computed[session, step], send=at)
            elif what == "sent":
                sent.setdefault(key, {})["sent"] = at
            elif what in ("came", "read", "submit"):
                first = (
                    sent.setdefault(key, {}).setdefault(what, at) == at
                )  # what ran early is asked for, too
                if first and what == "submit":
                    waiting[session, step] = key
            elif what == "start" and (session, step) in waiting:
                sent[waiting.pop((session, step))]["start"] = at
    order = ("end", "computed", "send", "sent", "came", "read", "submit", "start")
    for found in sent.values():
        if all(name in found for name in order):
            steps = zip(PARTS, pairwise(order), strict=True)
            row = {part: (found[b] - found[a]) / 1e6 for part, (a, b) in steps}
            row["whole"] = (found["start"] - found["end"]) / 1e6
            out.append(row)
    return out


async def ask(home: Path, questions: int, tokens: int) -> None:
    async with reach(Home(home), load_settings(home), lambda text: None, alone=False) as link:
        side = SwarmSide(link, "it", "swarm", "")
        await side.ready()
        for number in range(questions):
            await side.ask([[200 + number, *range(300, 312)]], tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="with the model, as `swisd models add` makes it")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--lane", choices=("tcp", "mqtt"), default="tcp")
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=120)
    wish = parser.parse_args()
    DeviceProcess.program = "from tests.lab.hops import traced; traced()"
    with tempfile.TemporaryDirectory(prefix="swisd-hops-") as name:
        root = Path(name)
        os.environ["HOPS_TRACE"] = name
        swarm = LocalSwarm(
            root, wish.home, wish.devices, lane=wish.lane, objective="spread", speculation=False
        )  # with guesses, passes are of several rows
        with swarm:
            swarm.wait_plan()
            asyncio.run(ask(swarm.asker, wish.questions, wish.tokens))
        found = hops([json.loads(path.read_text()) for path in root.glob("*.json")])
    skip = len(found) // wish.questions  # the first question warms up
    report(found[skip:])


def report(found: list[dict[str, float]]) -> None:
    print(f"{len(found)} hops; ms")
    print(f"{'':12}{'p50':>8}{'p90':>8}{'p99':>8}{'mean':>8}")
    for part in (*PARTS, "whole"):
        values = [one[part] for one in found]
        figures = (*(percentile(values, at) for at in (50, 90, 99)), statistics.mean(values))
        print(f"{part:12}" + "".join(f"{figure:8.3f}" for figure in figures))


if __name__ == "__main__":
    main()
