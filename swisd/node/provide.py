"""From a model card's id or a file's path to a model that a home can serve.

`python -m swisd.node.provide` does it and tells progress as JSON lines on standard output. It is a process
of its own so that the memory it takes is given back, and so that a device that serves never stalls.
"""

import argparse
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from swisd.core.checked import to_json
from swisd.core.errors import BadInput, ModelError, SwisdError
from swisd.forge.cards import find_card
from swisd.forge.importer import import_model
from swisd.forge.pull import fetch_card_model
from swisd.node.importing import Word
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
            f"{source!r} is neither a model that swisd knows (`swisd models list`) nor a file on this device"
        )
    chosen = model_id or id_from_name(path.name)
    with suppress(ModelError):
        index.get(chosen)  # raises `BadInput` for what is no id: better now than after minutes of work
    _, sha = import_model(path, store.root, model_id=chosen, licence=None, progress=progress)
    index.add(sha, imported=True, source=str(path.resolve()))
    return chosen


def id_from_name(name: str) -> str:
    """A model id from a file name: lower case, and dashes for what an id may not have."""
    stem = re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE).lower()
    return re.sub(r"[^a-z0-9._-]+", "-", stem).lstrip("-._")[:100].rstrip("-._") or "model"


def main() -> int:
    """Import the card or file named on the command line; 0 on success."""
    parser = argparse.ArgumentParser(prog="python -m swisd.node.provide")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--id", default="")
    parser.add_argument("source", help="a model card's id, or the path of a GGUF file")
    args = parser.parse_args()
    # Told to stop, it ends like any program: temporary files are removed, pip is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        _say(Word(model_id=provide(args.source, args.home, _progress, model_id=args.id)))
    except SwisdError as error:
        _say(_failed(str(error), error.exit_code))
        return error.exit_code
    except (OSError, MemoryError) as error:
        _say(_failed(f"importing failed: {str(error) or type(error).__name__}", 1))
        return 1
    return 0


def _progress(what: str, done: int, total: int) -> None:
    _say(Word(what, done, total))


def _failed(text: str, code: int) -> Word:
    """An error whose text can be written: a file's name may hold bytes that are no letters."""
    return Word(error=text.encode(errors="replace").decode()[:4000], code=code)


def _say(word: Word) -> None:
    sys.stdout.buffer.write(to_json(word) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
