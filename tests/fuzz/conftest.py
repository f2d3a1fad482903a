"""How many inputs each target of the fuzz tests gets."""

import pytest


@pytest.fixture
def fuzz_count(request: pytest.FixtureRequest) -> int:
    """Mutated inputs for a listener: `--fuzz-count`, by default what takes about a second."""
    return int(request.config.getoption("--fuzz-count"))
