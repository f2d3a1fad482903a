"""The C heap of this process: resident memory is a promise."""

import ctypes
import sys


def give_back() -> None:
    """Return freed heap pages to the system."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library (Android, musl) has no such call
