"""swisd: Swarm Inference on Small Devices.

Importing the package is cheap on purpose: no numpy, no ONNX Runtime, no MQTT until something needs them.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("swisd")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+source"

__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from swisd.client import Client

        return Client
    raise AttributeError(f"module 'swisd' has no attribute {name!r}")
