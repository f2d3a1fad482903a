"""From a model card's id or a file's path to a model that a home can serve."""

import re
from collections.abc import Callable
from pathlib import Path

from swisd.core.errors import BadInput
from swisd.forge.cards import find_card
from swisd.forge.importer import import_model
from swisd.forge.pull import fetch_card_model
from swisd.store.disk import BlobStore
from swisd.store.models import ModelIndex

Progress = Callable[[str, int, int], None]


def provide(source: str, home: Path, progress: Progress, *, model_id: str = "") -> str:
    """Import a card (fetching its file, which is removed afterwards) or a GGUF file; returns the model id.

    Raises `BadInput` or `ModelError`.
    """
    store = BlobStore(home / "blobs")
    index = ModelIndex(home / "models", store)
    card = find_card(source)
    if card is not None:
        downloads = home / "downloads"
        path = fetch_card_model(card, downloads, progress)
        _, sha = import_model(path, store.root, model_id=card.id, licence=card.licence, progress=progress)
        index.add(sha, imported=True, source=card.source_text)
        path.unlink(missing_ok=True)
        return card.id
    path = Path(source).expanduser()
    if not path.is_file():
        raise BadInput(
            f"{source!r} is neither a model this swisd knows (see `swisd models list`) nor a file on this device"
        )
    chosen = model_id or id_from_name(path.name)
    _, sha = import_model(path, store.root, model_id=chosen, licence=None, progress=progress)
    index.add(sha, imported=True, source=str(path.resolve()))
    return chosen


def id_from_name(name: str) -> str:
    """A model id from a file name: lower case, and dashes for what an id may not have."""
    stem = re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE).lower()
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._")[:100] or "model"
