"""Processes of an engine: kept alive, ended with who started them, and told of when they do not live."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from turbokube.daemon import process
from turbokube.engines import children
from turbokube.engines.children import Children, EngineDied


def run(state: Path, use: Callable[[Children], Awaitable[None]]) -> list[str]:
    """Use children of a state folder; returns the names that were revived."""
    revived: list[str] = []
    (state / "log").mkdir(exist_ok=True)

    async def revive(name: str) -> None:
        revived.append(name)

    async def inside() -> None:
        some = Children(state, revive)
        try:
            await use(some)
        finally:
            await some.stop_all()

    asyncio.run(inside())
    return revived


def sh(some: Children, name: str, script: str) -> None:
    some.start(name, ["/bin/sh", "-c", script], {"GREETING": "hello"})


def test_they_are_marked_logged_measured_and_stopped(tmp_path: Path) -> None:
    async def use(some: Children) -> None:
        sh(some, "one", "echo $GREETING; exec sleep 60")
        sh(some, "two", "trap '' TERM; exec sleep 60")
        await asyncio.sleep(0.3)
        assert {one.name for one in process.marked(tmp_path)} >= {"one", "two"}
        assert (tmp_path / "log" / "one.log").read_text() == "hello\n"
        cpu, memory = some.usage()
        assert cpu < 5
        assert 100_000 < memory < 100_000_000
        await some.stop("one")
        assert "one" not in some
        assert process.find(tmp_path, "one") is None

    run(tmp_path, use)
    assert process.find(tmp_path, "two") is None, "one that heeds no TERM is killed"


def test_one_that_ends_late_is_started_again_and_one_that_ends_at_once_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_LOOK", 0.05)

    async def late(some: Children) -> None:
        monkeypatch.setattr(children, "_INFANT", 0.0)
        sh(some, "late", "sleep 0.1")
        watch = asyncio.create_task(some.watch())
        await asyncio.sleep(0.6)
        watch.cancel()
        assert some.restarts >= 2

    assert set(run(tmp_path, late)) == {"late"}

    async def early(some: Children) -> None:
        monkeypatch.setattr(children, "_INFANT", 10.0)
        sh(some, "early", "echo cannot do that; exit 4")
        await some.watch()

    with pytest.raises(EngineDied, match=r"(?s)^early ended with code 4 after .*cannot do that"):
        run(tmp_path, early)


def test_they_do_not_outlive_who_started_them(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from turbokube.daemon import process\n"
        f"state = Path({str(tmp_path)!r})\n"
        "process.spawn(['/bin/sleep', '60'], state=state, name='child', log=state / 'log', mortal=True)\n"
        "print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        assert process.find(tmp_path, "child") is not None
        parent.kill()
    end = time.monotonic() + 5
    while process.find(tmp_path, "child") is not None:
        assert time.monotonic() < end
        time.sleep(0.05)
