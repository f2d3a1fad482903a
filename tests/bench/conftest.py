"""A device in this process that runs a fake model."""

from tests.client.conftest import lone, quick
from tests.node.conftest import fake_home, fake_runtime

__all__ = ["fake_home", "fake_runtime", "lone", "quick"]
