"""`swisd models ...`: what is on this device, importing, removing."""

import asyncio
from pathlib import Path
from typing import Any

from swisd.cli.output import json_line, result, say
from swisd.core.errors import BadInput, ModelError, SwisdError
from swisd.core.model import Manifest
from swisd.node.home import Home
from swisd.store.disk import BlobStore
from swisd.store.models import ModelIndex

MIB = 1 << 20


def run_list(home: Path | None, json_output: bool) -> None:
    """Models here, and cards that can be pulled."""
    from swisd.forge.cards import find_cards

    index = _index(Home(home))
    here: dict[str, dict[str, Any]] = {}
    for entry in index.list():
        try:
            here[entry.model_id] = _facts(index, entry.model_id)
        except SwisdError as error:
            say(f"{entry.model_id} is damaged: {error}; remove it with `swisd models remove`")
    cards = {card.id: card for card in find_cards()}
    if json_output:
        for facts in here.values():
            json_line(facts)
        for card in cards.values():
            if card.id not in here:
                json_line({"model_id": card.id, "units_here": 0, "licence": card.licence, "bytes": card.size})
        return
    for model_id, facts in here.items():
        part = (
            "whole"
            if facts["units_here"] == facts["units"]
            else f"{facts['units_here']} of {facts['units']} units"
        )
        result(f"{model_id}  {part}, {facts['bytes_here'] / MIB:.1f} MiB, {facts['licence']}")
    for card in cards.values():
        if card.id not in here:
            result(f"{card.id}  not here; `swisd models pull {card.id}` fetches {card.size / MIB:.1f} MiB")


def run_add(home: Path | None, path: Path, model_id: str) -> None:
    """Import a file."""
    try:
        file = path.expanduser().absolute()  # a bare name could be that of a card
    except RuntimeError as error:
        raise BadInput(f"there is no file {path}: {error}") from None
    if not file.is_file():
        raise BadInput(f"there is no file {path}")
    result(import_shown(Home(home), str(file), model_id))


def run_pull(home: Path | None, model_id: str) -> None:
    """Fetch and import a card's model."""
    from swisd.forge.cards import find_card, find_cards

    if find_card(model_id) is None:
        known = ", ".join(card.id for card in find_cards())
        raise ModelError(
            f"no model card is named {model_id!r}; there are: {known}. `swisd models add` takes a file"
        )
    result(import_shown(Home(home), model_id, ""))


def run_show(home: Path | None, model_id: str, json_output: bool) -> None:
    """The facts of one model."""
    facts = _facts(_index(Home(home)), model_id)
    if json_output:
        json_line(facts)
        return
    for name, value in facts.items():
        result(f"{name}: {value}")


def run_remove(home: Path | None, model_id: str) -> None:
    """Forget a model and free its blobs."""
    place = Home(home)
    if place.running() is not None:
        raise BadInput("`swisd up` runs in this home and may be using the model: stop it first")
    freed = _index(place).remove(model_id)
    result(f"removed {model_id}, {freed / MIB:.1f} MiB freed")


def fetched(home: Home, model: str) -> Manifest:
    """A model that is wholly in this home: fetched as `swisd up` does it where nobody has it."""
    index = _index(home)
    try:
        manifest = index.manifest(model)
    except ModelError:
        whole = False
    else:
        whole = index.has_all(manifest)
    if not whole:
        say(f"{model} is not here: fetching and importing it")
        import_shown(home, model, "")
        manifest = index.manifest(model)
    return manifest


def import_shown(home: Home, source: str, model_id: str) -> str:
    """Import a card or a file with a progress bar on standard error; returns the model id."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from swisd.node.importing import import_model

    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"),
        console=Console(stderr=True),
    ) as bar:  # fmt: skip
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            amount = f"{done}/{total}" if what == "units" else f"{done / MIB:.1f}/{total / MIB:.1f} MiB"
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total or None, amount=amount)
            bar.update(tasks[what], completed=done, total=total or None, amount=amount)

        made = asyncio.run(import_model(source, home.path, progress, model_id=model_id))
    again = " once `swisd up` is started again" if home.running() is not None else " from now on"
    say(f"imported: this home can serve it{again}")
    return made


def _index(home: Home) -> ModelIndex:
    return ModelIndex(home.models, BlobStore(home.blobs))


def _facts(index: ModelIndex, model_id: str) -> dict[str, Any]:
    """What is known of a model here, as a JSON object."""
    entry = index.get(model_id)
    manifest = index.manifest(model_id)
    ranges = index.holding(manifest)
    store = BlobStore(index.root.parent / "blobs")
    return {
        "model_id": model_id,
        "manifest": entry.manifest,
        "architecture": manifest.architecture,
        "licence": manifest.licence,
        "units": manifest.n_units,
        "units_here": sum(end - start for start, end in ranges),
        "ranges_here": [list(span) for span in ranges],
        "bytes": sum(blob.size for blob in manifest.blobs),
        "bytes_here": sum(blob.size for blob in manifest.blobs if store.has(blob.sha256)),
        "context": manifest.context,
        "hidden": manifest.hidden,
        "vocab": manifest.vocab,
        "imported": entry.imported,
        "source": entry.source,
    }
