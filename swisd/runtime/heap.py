"""The heaps of this process, C's and Python's: resident memory is a promise."""

import ctypes
import gc
import sys

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of glibc's malloc.h
LARGE = 256 << 10  # bytes


def keep_large_blocks_apart() -> None:
    """Have large blocks mapped on their own, so that all of them goes back to the system when it is freed.

    Left to itself glibc raises the bound with the largest block that was ever freed, up to 32 MiB, and then
    the heap keeps the holes that they leave. It also has a heap for each thread, each with holes of its own;
    threads that hold Python's lock in turn need one.
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_ARENA_MAX, 1)
    except (OSError, AttributeError):
        return  # another C library has no such call


def settle() -> None:
    """Take what lives now as there to stay: garbage is looked for among newer objects alone from now on.

    That is some thousand in place of some hundred thousand, so `sweep` costs a millisecond.
    """
    gc.collect()
    gc.freeze()


def sweep() -> None:
    """Free what only garbage holds, and return freed heap pages to the system: for when much was given up."""
    gc.collect()
    give_back()


def give_back() -> None:
    """Return freed heap pages to the system."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library (Android, musl) has no such call
