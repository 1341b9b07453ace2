"""The machine that a run is to be carried by."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from turbokube import procfs
from turbokube.daemon import process

# As fio does in etcd's own recipe for a disk (etcd.io, "Hardware recommendations"): 2,300 bytes and a sync, again and
# again; so few that it is over within a blink
_SYNC_BYTES, _SYNCS, _SYNC_FOR_S = 2300, 30, 0.5


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine has left for a run; sizes in bytes."""

    cores: float
    memory: int  # available, what the run already holds included
    home_free: int  # on the disk of .turbokube/ and runs/
    cache_free: int  # on the disk of the cache of binaries
    open_files: int  # the hard limit of a process
    sync_s: float = 0.0  # fdatasync of a small write to the disk of .turbokube/, median; 0: not measured


def look(home: Path, cache: Path, state: Path | None = None) -> Machine:
    """This machine, now. `state`: of a run whose processes may live already; their memory counts as available."""
    return Machine(
        cores=_cores(),
        memory=available_memory() + (_held(state) if state else 0),
        home_free=shutil.disk_usage(existing(home)).free,
        cache_free=shutil.disk_usage(existing(cache)).free,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        sync_s=sync_seconds(existing(home)),
    )


def sync_seconds(folder: Path) -> float:
    """Median seconds of an fdatasync as a store's log makes them, in a file without a name; 0 when none can be made."""
    taken: list[float] = []
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        end = time.monotonic() + _SYNC_FOR_S
        while len(taken) < _SYNCS and time.monotonic() < end:
            file.write(bytes(_SYNC_BYTES))
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - before)
    return statistics.median(taken) if taken else 0.0


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


def available_memory() -> int:
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
