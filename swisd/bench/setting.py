"""Who takes part: the swarm of a home and its device alone, or swarms of local devices made for it."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from swisd.bench.contender import PATIENCE_S, Contender, LlamaSide, SwarmSide
from swisd.bench.llama import HOW_TO_INSTALL, LlamaCpp, available
from swisd.bench.report import Kind
from swisd.bench.work import TEXT, Prompts
from swisd.chaos.swarm import LocalSwarm, link_model
from swisd.client.link import SwarmLink
from swisd.client.reach import reach
from swisd.core.errors import BadInput, ModelError, NoSwarm, SwisdError
from swisd.forge.cards import find_card
from swisd.forge.pull import fetch_card_model
from swisd.node.describe import threads_of
from swisd.node.home import Home
from swisd.node.profiles import remembered
from swisd.node.settings import Settings, load_settings
from swisd.store.disk import BlobStore
from swisd.store.models import ModelIndex

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Spot:
    """A swarm that runs and can be asked from a home."""

    name: str
    kind: Kind
    lane: str
    home: Path


@dataclass(frozen=True, slots=True)
class Setting:
    """All contenders with links that are open; notes are for the person."""

    contenders: tuple[Contender, ...]
    model: str
    vocab: int
    text: tuple[int, ...]  # token ids of the prose
    notes: tuple[str, ...]

    def prompts(self, salt: str) -> Prompts:
        """Prompts in this model's tokens."""
        return Prompts(salt, self.vocab, self.text)


@contextmanager
def local_spots(
    root: Path, model_home: Path, count: int, model: str, quick: bool, threads: int, tell: Tell
) -> Iterator[list[Spot]]:
    """One local device, and `count` of them on each lane, each swarm with a plan in force over all of them.

    Quick: on direct lanes only. Each device has so many threads. They guess no tokens, so that figures of two
    runs, and of llama.cpp beside them, are of the same work. Raises `SessionFailed`.
    """
    wanted: list[tuple[str, Kind, int, str]] = [("one device", "solo", 1, "auto")]
    if count > 1:
        lanes = ("tcp",) if quick else ("tcp", "mqtt")
        wanted += [(f"{count} devices, {lane}", "swarm", count, lane) for lane in lanes]
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        try:
            spots = []
            for place, (name, kind, devices, lane) in enumerate(wanted):
                tell(f"starting {name}")
                swarm = LocalSwarm(
                    root / str(place), model_home, devices, model=model, lane=lane, objective="spread",
                    speculation=False, threads=threads,
                )  # fmt: skip
                stack.enter_context(swarm)
                swarm.wait_plan()
                spots.append(Spot(name, kind, lane, swarm.asker))
            yield spots
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave a device behind


@asynccontextmanager
async def local_setting(
    spots: list[Spot], gguf: Path | None, threads: int, tell: Tell
) -> AsyncIterator[Setting]:
    """The local swarms, and llama.cpp with as many threads as each device has."""
    async with AsyncExitStack() as stack:
        sides, links = [], []
        for spot in spots:
            link = await stack.enter_async_context(
                reach(Home(spot.home), load_settings(spot.home), tell, alone=False)
            )
            side = SwarmSide(link, spot.name, spot.kind, spot.lane)
            await side.ready()
            sides.append(side)
            links.append(link)
        yield await _setting(links[0], sides, [], gguf, threads)


@asynccontextmanager
async def running_setting(
    home: Home, root: Path, gguf: Callable[[str], Path | None], tell: Tell
) -> AsyncIterator[Setting]:
    """The swarm of a home as it is, this device alone beside it, and llama.cpp. `root` is an empty folder.

    `gguf` finds a model's file. Raises `NoSwarm` if no swarm is running.
    """
    settings = load_settings(home.path)
    async with AsyncExitStack() as stack:
        try:
            link = await stack.enter_async_context(reach(home, settings, tell, alone=False))
        except NoSwarm as error:
            raise NoSwarm(f"{error}; `swisd bench --local 3` measures devices made for it here") from None
        swarm = SwarmSide(link, "the swarm", "swarm", "auto")
        await swarm.ready()
        await link.settled()
        assert link.plan is not None  # `ready` waited for it
        model = link.plan.model_id
        sides, notes = [swarm], []
        if link.digest is not None and link.digest.sessions:
            notes.append("somebody else asks this swarm at the moment: figures are lower for it")
        try:
            solo = await stack.enter_async_context(_solo(home, settings, root, model, tell))
            sides.insert(0, solo)
        except SwisdError as error:
            notes.append(f"this device alone is not measured: {error}")
        known = remembered(home, link.plan.model, settings.device.threads)  # what the device chose
        threads = known.threads if known is not None else threads_of(settings)
        yield await _setting(link, sides, notes, gguf(model), threads)


@asynccontextmanager
async def _solo(
    home: Home, settings: Settings, root: Path, model: str, tell: Tell
) -> AsyncIterator[SwarmSide]:
    """This device alone, in this process, from a home without a key: it meets nobody."""
    index = ModelIndex(home.models, BlobStore(home.blobs))
    manifest = index.manifest(model)
    if not index.has_all(manifest):
        raise ModelError(f"it holds only a part of {model}")
    link_model(home.path, root)
    profiles = home.path / "profiles.json"
    if profiles.is_file():
        shutil.copyfile(profiles, root / profiles.name)
    lone = replace(settings, model=replace(settings.model, id=model))

    def silent(text: str) -> None:
        """That it runs alone is what was wanted."""

    async with reach(Home(root), lone, silent, alone=True) as link:
        tell("loading the model on this device alone")
        side = SwarmSide(link, "this device", "solo", "")
        await side.ready()
        yield side


async def _setting(
    link: SwarmLink, sides: list[SwarmSide], notes: list[str], gguf: Path | None, threads: int
) -> Setting:
    _, manifest, tokenizer = await link.model(PATIENCE_S)
    contenders: list[Contender] = list(sides)
    if gguf is not None and available():
        contenders.append(LlamaSide(await asyncio.to_thread(LlamaCpp, gguf, threads), threads))
    text = tuple(tokenizer.encode(TEXT, special=False))
    return Setting(tuple(contenders), manifest.model_id, manifest.vocab, text, tuple(notes))


def find_gguf(home: Home, model: str, given: Path | None, quick: bool, tell: Tell) -> Path | None:
    """The model's file for llama.cpp; None, with the reason told, where it is not to be measured.

    What was given, else the file that the model was imported from, else that of its card, which is kept in
    the home's folder `downloads`. Raises `BadInput` if what was given is no file.
    """
    if given is not None:
        try:
            given = given.expanduser()
        except RuntimeError as error:
            raise BadInput(f"there is no file {given}: {error}") from None
        if not given.is_file():
            raise BadInput(f"there is no file {given}: --gguf takes the model's GGUF file")
    if not available():
        tell(HOW_TO_INSTALL)
        return None
    if given is not None:
        return given
    try:
        source = Path(ModelIndex(home.models, BlobStore(home.blobs)).get(model).source)
    except ModelError:
        source = Path()
    if source.is_absolute() and source.is_file():
        return source
    card = find_card(model)
    if card is None:
        tell(f"llama.cpp is not measured: where the file of {model} is must be said with --gguf")
        return None
    downloads = home.path / "downloads"
    if quick and not (downloads / f"{card.id}.gguf").is_file():
        tell("llama.cpp is not measured: its file is fetched only without --quick; or name it with --gguf")
        return None
    tell(f"the file of {model} is looked for, for llama.cpp")
    try:
        return fetch_card_model(card, downloads)
    except ModelError as error:
        tell(f"llama.cpp is not measured: {error}")
        return None
