"""Small models, imported once for all tests of the runtime."""

from collections.abc import Callable

import pytest

from swisd.forge.importer import import_model
from tests.shards import Imported
from tests.tiny_models import write_model

Make = Callable[..., Imported]


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """`imported(architecture, kind, **options of write_model)`, each model once."""
    made: dict[str, Imported] = {}

    def make(architecture: str = "llama", kind: str = "Q4_1", **options: object) -> Imported:
        name = f"{architecture}-{kind}-{sorted(options.items(), key=str)}"[:200]
        if name not in made:
            home = tmp_path_factory.mktemp("model")
            layers = options.pop("layers", 7 if architecture == "gemma3" else 3)
            gguf = write_model(home / "m.gguf", architecture, kind, layers=layers, **options)  # type: ignore[arg-type]
            manifest, _ = import_model(gguf, home / "blobs", model_id=name, licence="MIT")
            made[name] = Imported(gguf, home / "blobs", manifest)
        return made[name]

    return make
