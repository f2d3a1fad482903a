"""Memory that shows itself several times side by side, so that one pass serves several rows of one session.

A pass over `ROWS` caches of as many sessions writes the key and value of each row into its own cache and
reads that cache. Where all of them are the same pages, each row meets those before it, as if they had run one
after the other.
"""

import ctypes
import math
import mmap
import os
import sys
import weakref
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
FLOAT_BYTES = 4
ROWS = 8  # of one pass; beyond, a pass takes about as much longer as it serves more
# Of this process at once. Linux allows 65530 to all that it does, and fails it in odd places beyond.
MOST_MAPPINGS = 24_000
MAP_FIXED = 0x10  # on every processor that ONNX Runtime is built for; not in Python's module
MAP_FAILED = ctypes.c_void_p(-1).value


class _Region:
    """Owns mappings for as long as an array over them lives."""

    __slots__ = ("__array_interface__", "__weakref__")

    def __init__(self, libc: Any, address: int, nbytes: int) -> None:
        self.__array_interface__ = {
            "version": 3,
            "shape": (nbytes // FLOAT_BYTES,),
            "typestr": np.dtype(np.float32).str,
            "data": (address, False),
        }
        # Not at the end of the process: a thread may still compute then.
        weakref.finalize(self, libc.munmap, address, nbytes).atexit = False


_live: "weakref.WeakSet[_Region]" = weakref.WeakSet()


def fitting(capacity: int, position_bytes: int) -> int:
    """The least capacity from this one on whose cache is whole pages; `position_bytes` of it a position."""
    step = mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, position_bytes)
    return -(-capacity // step) * step


def mirrored(heads: int, capacity: int, size: int) -> F32 | None:
    """Zeros, float32 [ROWS, heads, capacity, size], contiguous; what is written to one entry is in all.

    Memory that was never touched takes none, though what counts resident pages of a process counts each of
    these once for every entry. None where this system cannot do it, has no more room for it, or an entry is
    not whole pages (see `fitting`).
    """
    each = heads * capacity * size * FLOAT_BYTES
    if sys.maxsize < 1 << 32 or not hasattr(os, "memfd_create") or not each or each % mmap.PAGESIZE:
        return None
    if (len(_live) + 1) * ROWS > MOST_MAPPINGS:
        return None
    try:
        file = os.memfd_create("swisd-kv", os.MFD_CLOEXEC)
    except OSError:
        return None
    try:
        os.ftruncate(file, each)
        region = _mapped(file, each)
    except (OSError, AttributeError):  # a C library that cannot be reached or has no such call
        return None
    finally:
        os.close(file)
    _live.add(region)
    return np.asarray(region).reshape(ROWS, heads, capacity, size)


@cache
def _libc() -> Any:
    """The C library, with the calls that are used of it. Raises `OSError`, `AttributeError` without them."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    whole, number, offset = ctypes.c_size_t, ctypes.c_int, ctypes.c_long
    libc.mmap.argtypes = [ctypes.c_void_p, whole, number, number, number, offset]
    libc.munmap.argtypes = [ctypes.c_void_p, whole]
    return libc


def _mapped(file: int, each: int) -> _Region:
    """The first `each` bytes of a file, `ROWS` times at addresses that follow each other."""
    libc = _libc()
    # Addresses that nobody else is given meanwhile, and then each part in its place.
    address = libc.mmap(None, each * ROWS, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if address == MAP_FAILED:
        raise OSError(ctypes.get_errno(), "no addresses")
    region = _Region(libc, address, each * ROWS)
    access, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | MAP_FIXED
    for entry in range(ROWS):
        if libc.mmap(address + entry * each, each, access, kind, file, 0) == MAP_FAILED:
            raise OSError(ctypes.get_errno(), "no mapping")
    return region
