"""The C heap of this process: resident memory is a promise."""

import ctypes
import sys

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
LARGE = 256 << 10  # bytes


def keep_large_blocks_apart() -> None:
    """Have large blocks mapped on their own, so that all of them goes back to the system when it is freed.

    Left to itself glibc raises the bound with the largest block that was ever freed, up to 32 MiB, and then
    the heap keeps the holes that they leave.
    """
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
    except (OSError, AttributeError):
        return  # another C library has no such call


def give_back() -> None:
    """Return freed heap pages to the system."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library (Android, musl) has no such call
