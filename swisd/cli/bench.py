"""`swisd bench`: how fast the swarm is, beside one device alone and beside llama.cpp."""

import asyncio
import os
import secrets
import tempfile
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from swisd import __version__
from swisd.bench.history import append, as_plain, changes, read_history
from swisd.bench.report import Report, sides
from swisd.bench.rounds import measure
from swisd.bench.setting import Setting, find_gguf, local_setting, local_spots, running_setting
from swisd.bench.words import table
from swisd.bench.work import FULL, QUICK, Work, fitted
from swisd.chaos.swarm import NAMES
from swisd.cli.ending import end_on_sigterm
from swisd.cli.models import fetched
from swisd.cli.output import as_json, json_line, result, say
from swisd.core.errors import BadInput
from swisd.node.describe import model_of
from swisd.node.home import Home
from swisd.node.settings import load_settings
from swisd.wire.topics import swarm_id


@dataclass(frozen=True, slots=True)
class Wish:
    """What to measure. `local`: so many devices made for it, with so many `threads` each; 0: the swarm that
    runs. `rounds`: 0 as usual."""

    local: int = 0
    quick: bool = False
    rounds: int = 0
    gguf: Path | None = None
    model: str = ""
    threads: int = 1


def run_bench(home: Path | None, wish: Wish, *, as_lines: bool) -> None:
    """Measure, keep the figures in the home's history, and print them."""
    if wish.model and not wish.local:
        raise BadInput("--model is for --local: the swarm that runs has its model")
    if wish.threads != 1 and not wish.local:
        raise BadInput("--threads is for --local: the devices of the swarm that runs have theirs")
    if wish.local and os.name != "posix":
        raise BadInput("swisd bench --local needs the signals of a POSIX system")
    if wish.local > len(NAMES):
        raise BadInput(f"{wish.local} devices: choose 1 to {len(NAMES)}")
    end_on_sigterm()
    place = Home(home)
    history = read_history(place.path)
    if history.damaged:
        say(f"{history.damaged} damaged line(s) of the history are left out")
    notes: list[str] = []
    work = QUICK if wish.quick else FULL
    if wish.rounds:
        work = replace(work, rounds=wish.rounds, crowd_rounds=min(wish.rounds, work.crowd_rounds))
    with tempfile.TemporaryDirectory(prefix="swisd-bench-") as folder:
        report = (_local if wish.local else _running)(place, Path(folder), wish, work, notes)
    append(place.path, report)
    found = changes(report, history.reports)
    if as_lines:
        json_line({**as_json(report), "changes": as_plain(found)})
    else:
        result(table(report, found))


def _local(place: Home, root: Path, wish: Wish, work: Work, notes: list[str]) -> Report:
    model = wish.model or model_of(place, load_settings(place.path))
    fetched(place, model)
    gguf = find_gguf(place, model, wish.gguf, wish.quick, notes.append)
    with local_spots(root, place.path, wish.local, model, wish.quick, wish.threads, say) as spots:
        setting = local_setting(spots, gguf, wish.threads, say)
        where = "local" if wish.threads == 1 else f"local, {wish.threads} threads"
        return asyncio.run(_report(setting, where, wish, work, notes))


def _running(place: Home, root: Path, wish: Wish, work: Work, notes: list[str]) -> Report:
    def gguf(model: str) -> Path | None:
        return find_gguf(place, model, wish.gguf, wish.quick, notes.append)

    key = place.key()
    where = swarm_id(key) if key is not None else "none"
    return asyncio.run(_report(running_setting(place, root, gguf, say), where, wish, work, notes))


async def _report(
    setting: AbstractAsyncContextManager[Setting], where: str, wish: Wish, work: Work, notes: list[str]
) -> Report:
    async with setting as here:
        prompts = here.prompts(secrets.token_hex(8))
        context = min(contender.context for contender in here.contenders)
        work = fitted(work, context, prompts.short_tokens)
        epochs = {each.name: each.epoch() for each in here.contenders}
        told = await measure(here.contenders, prompts, work, say)
        notes = [*notes, *here.notes]
        changed = [each.name for each in here.contenders if each.epoch() != epochs[each.name]]
        notes += [
            f"the plan of {name} changed meanwhile: its figures are of several plans" for name in changed
        ]
        most = max(work.crowds) * (prompts.short_tokens + work.crowd_tokens)
        if most > min(contender.context for contender in here.contenders if contender.most > 1):
            notes.append("the context of the plan does not hold all questions at once: some wait for others")
    return Report(
        int(time.time() * 1000),
        __version__,
        where,
        here.model,
        wish.quick,
        min(len(each.turns) for each in told),
        work.tokens,
        sides(told),
        tuple(note[:500] for note in notes),
    )
