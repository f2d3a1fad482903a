"""`swisd chaos`: a swarm on this machine, devices struck in mid-answer, and what the answer did."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from swisd.chaos.campaign import Campaign, Wishes
from swisd.chaos.report import Round, Summary, summarise
from swisd.chaos.room import MIB, varied_offers
from swisd.chaos.swarm import NAMES, LocalSwarm
from swisd.chaos.victims import KINDS
from swisd.chaos.words import round_line, summary_text
from swisd.cli.ending import end_on_sigterm
from swisd.cli.models import fetched
from swisd.cli.output import as_json, json_line, result, say
from swisd.core.errors import BadInput
from swisd.node.describe import model_of
from swisd.node.home import Home
from swisd.node.settings import load_settings, parse_size

HOWS = ("kill", "stop", "leave")


@dataclass(frozen=True, slots=True)
class Offer:
    """The swarm that is to be made; an empty `model`: that of the settings."""

    devices: int = 4
    memory: str = "64MiB"
    model: str = ""
    keep: Path | None = None


def run_chaos(home: Path | None, offer: Offer, wishes: Wishes, *, as_lines: bool) -> int:
    """Run the campaign. Returns 0 if every stream was identical to its undisturbed answer, else 1."""
    if os.name != "posix":
        raise BadInput("swisd chaos needs the signals of a POSIX system")
    if not 1 <= offer.devices <= len(NAMES):
        raise BadInput(f"{offer.devices} devices: choose 1 to {len(NAMES)}")
    memory = parse_size(offer.memory)
    names = NAMES[: offer.devices]
    if wishes.kill not in (*KINDS, *names):
        raise BadInput(f"nobody to strike is called {wishes.kill!r}: choose of {', '.join((*KINDS, *names))}")
    end_on_sigterm()
    place = Home(home)
    model = offer.model or model_of(place, load_settings(place.path))
    manifest = fetched(place, model)
    mixed = wishes.kill == "mixed"
    offers = varied_offers(memory, offer.devices, manifest) if mixed else [memory] * offer.devices
    with _folder(offer.keep) as root:
        swarm = LocalSwarm(root, place.path, offer.devices, model=model, offers=offers)
        told = (f"{name} ({size / MIB:.0f} MiB)" for name, size in zip(names, offers, strict=True))
        say(f"starting {', '.join(told)}")
        with swarm:
            try:
                found = asyncio.run(_run(Campaign(swarm, wishes, say), as_lines))
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must leave no device behind
        _keep_logs(swarm, found)
    if as_lines:
        json_line({"summary": as_json(found)})
    else:
        result(summary_text(found))
    return 0 if not found.failed else 1


async def _run(campaign: Campaign, as_lines: bool) -> Summary:
    rounds: list[Round] = []
    async with aclosing(campaign.run()) as coming:
        async for each in coming:
            rounds.append(each)
            if as_lines:
                json_line({"identical": each.identical, "pause_s": each.pause_s, **as_json(each)})
            else:
                result(round_line(each))
    return summarise(rounds)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="swisd-chaos-") as made:
            yield Path(made)
        return
    try:
        root = keep.expanduser().resolve()
        root.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise BadInput(f"cannot make the folder {keep}: {error}") from None
    yield root


def _keep_logs(swarm: LocalSwarm, found: Summary) -> None:
    """What the devices said outlives the temporary folder where a round failed."""
    if not found.failed:
        return
    kept = Path(tempfile.mkdtemp(prefix="swisd-chaos-failed-"))
    for home in swarm.homes:
        if (home / "up.log").is_file():
            shutil.copyfile(home / "up.log", kept / f"{home.name}.log")
    say(f"what the devices said is in {kept}")
