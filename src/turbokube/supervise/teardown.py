"""The end of a run's processes, in an order in which none misses another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from turbokube.daemon import control, process, unit

# supervisord first, so that nothing is brought back; then those that talk, then those that are talked to
ORDER = (
    "supervisord",
    "agent",
    "fleet",
    "kwok",  # its engine's, which end with it
    "kubemark",
    "virtual-kubelet",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "kine",
    "etcd",
)
# An API server ends its watches one by one and can take more than a minute; it keeps no state that could be lost
_PATIENCE = {"supervisord": 1.0, "kube-apiserver": 3.0}


def rank(name: str) -> int:
    """When a process of that name is stopped: its place in ORDER; an unknown one goes with the agent."""
    for place, prefix in enumerate(ORDER):
        if name == prefix or name.startswith(f"{prefix}-"):
            return place
    return 1


def stop_all(state: Path, *, patience: float = 20.0) -> tuple[list[process.Process], list[process.Process]]:
    """Stop every process that carries the run's mark: (stopped, left). Each group gets TERM, `patience` s, KILL.

    Services of the run go first, and for good.
    """
    stopped = {(one.pid, one.start): one for one in process.marked(state)}
    unit.remove(unit.names(state))
    stopped = {key: one for key, one in stopped.items() if not one.alive()}
    for _ in range(3):  # what a dying supervisord has just started is found in the next round
        found = process.marked(state)
        if not found:
            break
        for place in sorted({rank(one.name) for one in found}):
            group = [one for one in found if rank(one.name) == place]
            process.stop(group, patience=min(patience, _PATIENCE.get(ORDER[place], patience)))
        stopped |= {(one.pid, one.start): one for one in found if not one.alive()}
    return _in_order(stopped.values()), processes(state)


def processes(state: Path) -> list[process.Process]:
    """Every process of a run, in the order in which they are stopped."""
    return _in_order(process.marked(state))


def remove_sockets(state: Path) -> list[Path]:
    """Remove the run's sockets from the folder that all runs of a user share, and that folder when it is empty."""
    sample = control.socket_path(state, "x")
    found = sorted(sample.parent.glob(sample.name.removesuffix("x.sock") + "*"))
    for path in found:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another run's sockets are in it
        sample.parent.rmdir()
    return found


def _in_order(found: Iterable[process.Process]) -> list[process.Process]:
    return sorted(found, key=lambda one: (rank(one.name), one.name, one.pid))
