"""What the kernel tells of a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

from turbokube import procfs


def test_a_process_is_read_whatever_its_name_is(tmp_path):
    program = shutil.copy(shutil.which("sleep") or "", tmp_path / "a) R (b")
    with subprocess.Popen([program, "60"]) as child:
        try:
            found = procfs.stat(child.pid)
            assert (found.parent, found.cpu < 1.0) == (os.getpid(), True)
            assert found.start >= procfs.stat(os.getpid()).start
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            assert procfs.stat(child.pid).state == "Z"
        finally:
            child.kill()
    with pytest.raises(FileNotFoundError):
        procfs.stat(child.pid)


def test_cpu_is_in_seconds_and_memory_in_bytes():
    before = procfs.stat(os.getpid()).cpu
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert procfs.stat(os.getpid()).cpu - before == pytest.approx(0.05, abs=0.04)
    found = procfs.memory()
    assert 0 < found.shared < found.resident
    assert 5e6 < found.resident < 2e9
    assert procfs.memory(os.getpid()).resident == pytest.approx(found.resident, rel=0.1)


def test_a_busy_core_counts():
    busy, idle = procfs.processors()
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    after = procfs.processors()
    assert after[0] >= busy + 0.05
    assert after[1] >= idle
