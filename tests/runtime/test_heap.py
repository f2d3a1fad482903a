"""The heaps keep little of what was freed."""

import subprocess
import sys
from pathlib import Path

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


HEAPS = """
import ctypes, threading
from swisd.runtime.heap import keep_large_blocks_apart

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
if CALL:
    keep_large_blocks_apart()
meet = threading.Barrier(3)

def work():
    libc.malloc(ctypes.c_size_t(4096))
    meet.wait(30)

threads = [threading.Thread(target=work) for _ in range(3)]
for each in threads:
    each.start()
for each in threads:
    each.join()
file = libc.fopen(PATH, b"w")
libc.malloc_info(0, file)
libc.fclose(file)
print(open(PATH).read().count("<heap nr="))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
@pytest.mark.parametrize(("call", "one"), [(True, True), (False, False)])
def test_all_threads_have_one_heap(call: bool, one: bool, tmp_path: Path):
    program = f"CALL, PATH = {call}, {str(tmp_path / 'heaps.xml').encode()!r}\n{HEAPS}"
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if "malloc_info" in ran.stderr:
        pytest.skip("another C library than glibc")
    assert (int(ran.stdout) == 1) == one, ran.stderr


GARBAGE = """
import gc
from swisd.runtime.heap import settle, sweep

class Thing:
    pass

gc.disable()
old = [Thing() for _ in range(1000)]
settle()
seen = len(gc.get_objects())
for _ in range(1000):
    one, two = Thing(), Thing()
    one.other, two.other = two, one
del one, two
grown = sum(type(each) is Thing for each in gc.get_objects())
sweep()
print(seen < 100, grown, sum(type(each) is Thing for each in gc.get_objects()), len(old))
"""


def test_a_sweep_frees_garbage_and_looks_at_nothing_that_was_there_before():
    ran = subprocess.run(
        [sys.executable, "-c", GARBAGE], check=True, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.split() == ["True", "2000", "0", "1000"]
