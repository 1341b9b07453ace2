# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: may change without notice.

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import traceback
import typing as t


class Job:
    """Work that outlives the module which started it, one at a time for a folder.

    The worker holds a lock on `<folder>/lock` as long as it lives, whoever kills it; its state is in
    `<folder>/status.json`, its output in `<folder>/log`.
    """

    def __init__(self, folder: str) -> None:
        self.status_path = os.path.join(folder, "status.json")
        self.log_path = os.path.join(folder, "log")
        self._lock_path = os.path.join(folder, "lock")
        os.makedirs(folder, exist_ok=True)

    def start(self, work: t.Callable[[], None]) -> bool:
        """Begin the work in a process of its own; False when another one is at it."""
        lock = self._locked()
        if lock is None:
            return False
        # the lock belongs to the open file: the worker has it too, and keeps it when we close ours
        child = os.fork()
        if child == 0:
            os.setsid()
            if os.fork() == 0:
                self._become(work, lock)
            os._exit(0)
        os.waitpid(child, 0)
        os.close(lock)
        return True

    def running(self) -> bool:
        """Whether a worker lives."""
        lock = self._locked()
        if lock is None:
            return True
        os.close(lock)
        return False

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for the worker to end; whether it did."""
        end = time.monotonic() + seconds
        while self.running():
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)
        return True

    def report(self, status: dict[str, t.Any]) -> None:
        """The worker's word on how far it is."""
        with open(self.status_path + ".part", "w", encoding="utf-8") as file:
            json.dump(status, file)
        os.replace(self.status_path + ".part", self.status_path)

    def status(self) -> dict[str, t.Any]:
        """What the worker last reported; empty when nothing."""
        try:
            with open(self.status_path, encoding="utf-8") as file:
                return t.cast("dict[str, t.Any]", json.load(file))
        except (OSError, ValueError):
            return {}

    def forget(self) -> None:
        """Drop the last report."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.status_path)

    def _locked(self) -> int | None:
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _become(self, work: t.Callable[[], None], lock: int) -> t.NoReturn:
        """Be the worker: nothing of the module's streams is kept, or its caller would wait for us."""
        try:
            os.chdir("/")
            null = os.open(os.devnull, os.O_RDONLY)
            log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.closerange(3, lock)
            os.closerange(lock + 1, 1024)
            work()
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(0)
