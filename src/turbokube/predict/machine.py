"""The machine that a run is to be carried by."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from turbokube import procfs
from turbokube.daemon import process


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine has left for a run; sizes in bytes."""

    cores: float
    memory: int  # available, what the run already holds included
    home_free: int  # on the disk of .turbokube/ and runs/
    cache_free: int  # on the disk of the cache of binaries
    open_files: int  # the hard limit of a process


def look(home: Path, cache: Path, state: Path | None = None) -> Machine:
    """This machine, now. `state`: of a run whose processes may live already; their memory counts as available."""
    return Machine(
        cores=_cores(),
        memory=_memory() + (_held(state) if state else 0),
        home_free=shutil.disk_usage(existing(home)).free,
        cache_free=shutil.disk_usage(existing(cache)).free,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    )


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def _cores() -> float:
    """Cores that this process may use: by affinity, and by the quota of a container (cgroup v2)."""
    cores = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) / int(period))
    return cores


def _memory() -> int:
    """Memory that can be had without swapping: MemAvailable, and what a container's limit leaves (cgroup v2)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        available = min(available, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    return available


def _held(state: Path) -> int:
    """Resident memory of a run's living processes."""
    held = 0
    for one in process.marked(state):
        with contextlib.suppress(OSError):
            held += procfs.memory(one.pid).resident
    return held
