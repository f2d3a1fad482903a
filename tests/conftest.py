"""Fixtures that several rooms use."""

import os
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Longer versions of tests that `make test` runs short."""
    parser.addoption("--fuzz-count", type=int, default=2000, help="mutated inputs for each listener")
    parser.addoption("--growth", type=int, default=1, help="times 40 sessions and 4 new plans in test_growth")


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The default model's GGUF file: `SWISD_TEST_MODEL`, or fetched once into the user's cache."""
    given = os.environ.get("SWISD_TEST_MODEL")
    if given:
        return Path(given)
    from swisd.forge.cards import read_card
    from swisd.forge.pull import fetch_card_model

    cards = Path(__file__).parent.parent / "models"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "swisd-tests"
    return fetch_card_model(read_card(cards / "smollm2-135m-instruct-q4_1.toml"), cache)
