"""What the kernel tells of a process, and of the machine: proc(5). OSError for a process that is gone."""

from __future__ import annotations

import os
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Stat(NamedTuple):
    """Of /proc/PID/stat."""

    state: str
    parent: int
    cpu: float  # seconds, user's and system's
    start: int  # clock ticks since boot


class Memory(NamedTuple):
    """Of /proc/PID/statm, in bytes. `shared`: those resident that files back."""

    resident: int
    shared: int


def stat(pid: int) -> Stat:
    """State, parent, CPU time and start of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()  # its name may hold blanks and parentheses
    return Stat(fields[0], int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[19]))


def memory(pid: int | None = None) -> Memory:
    """Memory of a process; without `pid`, of this one."""
    with open(f"/proc/{pid or 'self'}/statm") as file:
        _, resident, shared = map(int, file.read().split()[:3])
    return Memory(resident * _PAGE, shared * _PAGE)


def processors() -> tuple[float, float]:
    """Seconds since boot, summed over all cores, that they were busy (those taken by the host too) and idle."""
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]  # guests' time is in the users' already
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / _TICKS, idle / _TICKS
