"""The heap keeps no holes that large blocks leave."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from swisd.runtime.heap import LARGE, keep_large_blocks_apart

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
        "keepcost",
    )]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if CALL:
    keep_large_blocks_apart()
libc.free(libc.malloc(ctypes.c_size_t(8 << 20)))  # where the bound moves, it moves here
before = libc.mallinfo2().hblks
libc.malloc(ctypes.c_size_t(2 * LARGE))
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
@pytest.mark.parametrize(("call", "mapped"), [(True, "1"), (False, "0")])
def test_a_large_block_is_mapped_on_its_own_whatever_was_freed_before(call: bool, mapped: str):
    program = f"CALL = {call}\n{PROGRAM}"
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if "mallinfo2" in ran.stderr:
        pytest.skip("another C library than glibc 2.33 or later")
    assert ran.stdout.strip() == mapped, ran.stderr
