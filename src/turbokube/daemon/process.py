"""Processes of a run: started detached, found again by the mark that they carry in their environment."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import procfs

MARK = "TURBOKUBE_STATE"  # environment: the state folder of the run that a process belongs to
NAME = "TURBOKUBE_COMPONENT"  # environment: its name in that run
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Process:
    """A living process of a run. `start` (clock ticks since boot) tells it from a later one with the same pid."""

    pid: int
    start: int
    name: str

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return _start(self.pid) == self.start

    def signal(self, number: int) -> None:
        """Send a signal, if it is still this process."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def marked(state: Path) -> list[Process]:
    """Every process of this user that carries the run's mark, whoever started it."""
    wanted = f"{MARK}={state.resolve()}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/environ", "rb") as file:
                environment = file.read().split(b"\0")
        except OSError:
            continue
        start = _start(int(entry.name))
        if wanted in environment and start is not None:
            names = [v[len(NAME) + 1 :] for v in environment if v.startswith(NAME.encode() + b"=")]
            found.append(Process(int(entry.name), start, names[0].decode() if names else "?"))
    return found


def find(state: Path, name: str) -> Process | None:
    """The run's process of that name, if it lives."""
    return next((process for process in marked(state) if process.name == name), None)


def spawn(
    argv: Sequence[str],
    *,
    state: Path,
    name: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    mortal: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a detached process of the run: own session, output appended to `log` (0600), marked.

    `environment` is added to ours. A `mortal` one is killed when the thread that started it ends, however it ends.
    """
    full = {**os.environ, **(environment or {}), MARK: str(state.resolve()), NAME: name}
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=full,
            cwd=state,
            start_new_session=True,
            preexec_fn=_mortality() if mortal else None,
        )
    finally:
        os.close(descriptor)


def _mortality() -> Callable[[], object]:
    """For between fork and exec: SIGKILL when the starting thread is gone (prctl(2), which an exec does not undo)."""
    return functools.partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, int(signal.SIGKILL))


def stop(processes: Sequence[Process], *, patience: float = 10.0) -> None:
    """TERM, wait up to `patience` seconds for all of them, then KILL what is left and wait until it is gone."""
    for process in processes:
        process.signal(signal.SIGTERM)
    if not _gone(processes, patience):
        for process in processes:
            process.signal(signal.SIGKILL)
        _gone(processes, 10.0)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log; empty when there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _gone(processes: Sequence[Process], patience: float) -> bool:
    end = time.monotonic() + patience
    while any(process.alive() for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _start(pid: int) -> int | None:
    """The start time of a process; None when there is none or it is a zombie."""
    try:
        found = procfs.stat(pid)
    except OSError:
        return None
    return None if found.state in "ZX" else found.start
