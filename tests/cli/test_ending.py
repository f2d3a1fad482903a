"""Told to end, a command goes through the blocks that stop its devices."""

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, signal
from swisd.cli.ending import end_on_sigterm

if IGNORED:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
end_on_sigterm()

async def run():
    try:
        print("running", flush=True)
        while True:  # a loop that never wakes would not hear of a signal that comes just before it sleeps
            await asyncio.sleep(0.05)
    finally:
        print("inner", flush=True)

try:
    asyncio.run(run())
finally:
    print("outer", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="the commands that run devices need POSIX")
@pytest.mark.parametrize("ignored", [False, True])
def test_sigterm_ends_a_command_through_its_blocks_even_where_ctrl_c_is_ignored(ignored: bool):
    program = f"IGNORED = {ignored}\n{PROGRAM}"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert said.split() == ["inner", "outer"]
