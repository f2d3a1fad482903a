"""Fixtures of the live tests: a home with the model imported once, and swarms that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.swarm import Swarm, run


@pytest.fixture(scope="session")
def model_home(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that holds the default model."""
    home = tmp_path_factory.mktemp("model-home")
    run(["models", "add", str(smollm2_gguf), "--id", "smollm2-135m-instruct-q4_1", "--home", str(home)])
    return home


@pytest.fixture
def new_swarm(model_home: Path, tmp_path: Path) -> Iterator[Callable[[], Swarm]]:
    """Makes swarms and stops them after the test."""
    made: list[Swarm] = []

    def make() -> Swarm:
        swarm = Swarm(tmp_path / f"swarm{len(made)}", model_home)
        made.append(swarm)
        return swarm

    yield make
    for swarm in made:
        swarm.close()
