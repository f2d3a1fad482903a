"""How many inputs each target of the fuzz tests gets."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest


@pytest.fixture
def fuzz_count(request: pytest.FixtureRequest) -> int:
    """Mutated inputs for a listener: `--fuzz-count`, by default what takes about a second."""
    return int(request.config.getoption("--fuzz-count"))


@pytest.fixture(autouse=True)
async def no_lost_exception() -> AsyncIterator[None]:
    """Nothing may fail in a task or a callback where nobody looks."""
    lost: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert not lost, lost[:3]
