"""Whether a process lives, and whether it is still the one that was meant."""

import os
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether a process with this id runs; one that ended and was not yet collected does not."""
    if os.name != "posix":
        import psutil  # os.kill would end the process on Windows

        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it lives and belongs to someone else
    return _stat(pid)[:1] != ["Z"]


def birth(pid: int) -> str:
    """When a process started, as its system says it; empty where that cannot be told."""
    fields = _stat(pid)
    if len(fields) > 19:
        return f"{fields[19]} ticks"
    try:
        import psutil
    except ImportError:
        return ""
    try:
        return f"{psutil.Process(pid).create_time():.2f} s"
    except psutil.Error:
        return ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on (proc(5) counts it as the third), if there is one."""
    try:
        # The name before them is in brackets and may hold anything, brackets too.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return []
