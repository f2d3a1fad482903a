"""What a host's processes may use: cgroups where they are ours to make, the next best thing elsewhere.

A control group is made only in a hierarchy at whose root this process itself is. Anywhere else some manager
(systemd, a container runtime) has set limits for us and owns the tree; then the CPU is limited by nice and
one core, and memory by RLIMIT_DATA. `Limits.words` says what is really honoured.
"""

import math
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
# Short: within a long one a stage that computes for some milliseconds and then waits for the others would not
# be slowed down at all, though a slow device is slow at every moment.
_PERIOD_US = 4_000
_LEAST_QUOTA_US = 1_000  # that Linux takes


@dataclass
class Limits:
    """`prefix` runs a command within them; `close` removes the groups once their processes have ended."""

    prefix: list[str] = field(default_factory=list)
    words: str = "no limits"
    groups: list[Path] = field(default_factory=list)

    def close(self) -> None:
        for group in self.groups:
            if group.exists():
                group.rmdir()
        self.groups.clear()


def limit(name: str, cpu: float | None, memory: int | None) -> Limits:
    """Limits of at most `cpu` cores and `memory` bytes; `name` is that of the control groups made for it."""
    limits, words = Limits(), []
    for wanted, apply in ((cpu, _cpu), (memory, _memory)):
        if wanted is not None:
            words.append(apply(limits, name, wanted))
    if limits.groups:
        enter = "".join(f"echo $$ > {group}/cgroup.procs && " for group in limits.groups)
        limits.prefix[:0] = ["sh", "-c", enter + 'exec "$@"', "sh"]
    limits.words = "; ".join(words) or limits.words
    return limits


def _cpu(limits: Limits, name: str, cores: float) -> str:
    if cores <= 0:
        raise ValueError("a share of the CPU must be above zero")
    period = max(_PERIOD_US, math.ceil(_LEAST_QUOTA_US / cores))
    quota = int(cores * period + 0.5)
    v1 = {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": str(quota)}
    if how := _grouped(limits, name, "cpu", v1, {"cpu.max": f"{quota} {period}"}):
        return f"CPU: at most {cores:g} of a core ({how})"
    if cores >= (os.cpu_count() or 1) or not (shutil.which("nice") and shutil.which("taskset")):
        return "CPU: not limited (no control group of ours to make here)"
    last = (os.cpu_count() or 1) - 1
    limits.prefix += ["nice", "-n", "10", "taskset", "-c", str(last)]
    return f"CPU: {cores:g} of a core is not honoured, only last in line on core {last} (nice, taskset)"


def _memory(limits: Limits, name: str, size: float) -> str:
    size = int(size)
    if size <= 0:
        raise ValueError("a limit of memory must be above zero")
    files = {"memory.limit_in_bytes": str(size)}, {"memory.max": str(size)}
    if how := _grouped(limits, name, "memory", *files):
        return f"memory: at most {size // MIB} MiB resident, killed above it ({how})"
    if not shutil.which("prlimit"):
        return "memory: not limited (no control group of ours to make here, no prlimit)"
    # Not --as: mapped libraries and blobs, which cost nothing twice, would count in full.
    limits.prefix += ["prlimit", f"--data={size}"]
    return (
        f"memory: each process may reserve {size // MIB} MiB of private memory (RLIMIT_DATA); "
        "mapped files do not count, and what is reserved counts even before it is used"
    )


def _grouped(limits: Limits, name: str, controller: str, v1: dict[str, str], v2: dict[str, str]) -> str:
    """Make a group with these values, if the hierarchy is ours; says how, or nothing if it cannot be."""
    root = _mounts().get(controller)
    if root is None or not _at_root(controller if root[1] == 1 else ""):
        return ""
    top, version = root
    group = top / name
    try:
        if version == 2:
            (top / "cgroup.subtree_control").write_text(f"+{controller}")
        group.mkdir(exist_ok=True)
        for file, value in (v1 if version == 1 else v2).items():
            (group / file).write_text(value)
    except OSError:
        if group.exists() and group not in limits.groups:
            group.rmdir()
        return ""
    if group not in limits.groups:
        limits.groups.append(group)
    return f"cgroup v{version}"


def _mounts() -> dict[str, tuple[Path, int]]:
    """The folder and version of each controller's hierarchy."""
    found: dict[str, tuple[Path, int]] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup":
            for option in options.split(","):
                found[option] = Path(folder), 1
        elif kind == "cgroup2":
            controllers = Path(folder) / "cgroup.controllers"
            for controller in controllers.read_text().split() if controllers.exists() else ():
                found.setdefault(controller, (Path(folder), 2))
    return found


def _at_root(controller: str) -> bool:
    """Whether this process is in the root group of that hierarchy; an empty name is cgroup v2's."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(",") and path == "/":
            return True
    return False
