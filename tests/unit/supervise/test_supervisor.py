"""A real supervisord with small programs: what is kept, awaited, refused, and found again."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turbokube.daemon import process
from turbokube.supervise import Health, ProcessFailed, Program, Supervisor, stop_all
from turbokube.supervise.teardown import rank


def _sleeper(name: str = "one", **environment: str) -> Program:
    return Program(name, ["/bin/sleep", "600"], environment)


def _until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What the condition gives, once that is something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)
    return found


def test_words_reach_the_program_as_they_are(state: Path) -> None:
    hard = ["it's", 'a "quoted" %s', "; # no comment", "$HOME `x` \\", "", "two\nlines"]
    values = {"ODD": "100% of 'it' \"all\" ; #", "GOGC": "200"}
    program = Program("one", ["/usr/bin/env", "python3", "-c", _TELL, *hard], values)
    Supervisor(state).keep(program)
    log = state / "log" / "one.log"
    _until(lambda: log.exists() and log.read_text().endswith("}\n"))
    assert log.read_text() == f"{hard!r}\n{sorted(values.items())!r}\n{{}}\n"


_TELL = (
    "import sys,os,time; print(sys.argv[1:]); "
    "print(sorted((k, v) for k, v in os.environ.items() if k in ('ODD', 'GOGC'))); "
    "print({k: v for k, v in os.environ.items() if k == 'SECRET_OF_THE_USER'}, flush=True); time.sleep(600)"
)


def test_the_users_environment_does_not_reach_the_program(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    Supervisor(state).keep(_sleeper())
    Supervisor(state).wait("one", None, timeout=10)  # past its exec, which empties /proc/PID/environ for an instant
    kept = _until(lambda: process.find(state, "one"))
    assert b"SECRET_OF_THE_USER" not in Path(f"/proc/{kept.pid}/environ").read_bytes()


def test_kept_once_then_only_when_it_differs(state: Path) -> None:
    supervisor = Supervisor(state)
    assert supervisor.would_change(_sleeper())
    assert supervisor.keep(_sleeper())
    pid = supervisor.info("one")["pid"]
    assert not supervisor.would_change(_sleeper())
    assert not supervisor.keep(_sleeper())
    assert supervisor.info("one")["pid"] == pid
    assert supervisor.keep(_sleeper(GOGC="50"))
    assert supervisor.info("one")["pid"] not in (0, pid)
    assert not process.Process(pid, 0, "").alive()
    pid = supervisor.info("one")["pid"]
    assert supervisor.keep(_sleeper(GOGC="50"), restart=True)
    assert supervisor.info("one")["pid"] != pid


def test_what_dies_is_brought_back(state: Path) -> None:
    supervisor = Supervisor(state)
    supervisor.keep(_sleeper())
    supervisor.wait("one", None, timeout=10)  # past its first second
    pid = supervisor.info("one")["pid"]
    os.kill(pid, signal.SIGKILL)
    _until(lambda: supervisor.info("one")["pid"] not in (0, pid))


def test_what_ends_while_it_is_awaited_fails_at_once_with_its_words_and_is_not_tried_again(state: Path) -> None:
    supervisor = Supervisor(state)
    supervisor.keep(Program("one", ["/bin/sh", "-c", "echo starting; echo 'Error: unknown flag: --foo' >&2; exit 1"]))
    begun = time.monotonic()
    with pytest.raises(ProcessFailed, match="one ended: Error: unknown flag: --foo"):
        supervisor.wait("one", Health("tcp://127.0.0.1:1"), timeout=60)
    assert time.monotonic() - begun < 10
    starts = (state / "log" / "one.log").read_text().count("starting")
    assert supervisor.info("one")["state"] in ("STOPPED", "FATAL", "EXITED")
    time.sleep(1.5)
    assert (state / "log" / "one.log").read_text().count("starting") == starts


def test_what_never_gets_healthy_fails_in_time_with_the_reason(state: Path) -> None:
    supervisor = Supervisor(state)
    supervisor.keep(_sleeper())
    with pytest.raises(ProcessFailed, match=r"one was not healthy within 0.3 s \(tcp://127.0.0.1:1: .*refused"):
        supervisor.wait("one", Health("tcp://127.0.0.1:1"), timeout=0.3)


def test_removed_is_stopped_and_forgotten(state: Path) -> None:
    supervisor = Supervisor(state)
    supervisor.keep(_sleeper())
    supervisor.keep(_sleeper("two"))
    _until(lambda: process.find(state, "one") and process.find(state, "two"))
    assert supervisor.remove("one")
    assert not supervisor.remove("one")
    assert process.find(state, "one") is None
    assert process.find(state, "two") is not None


def test_files_are_their_owners_only(state: Path) -> None:
    Supervisor(state).keep(_sleeper(GOGC="1"))
    _until(lambda: (state / "log" / "one.log").exists())
    files = [path for folder in ("supervisor", "log") for path in (state / folder).iterdir() if path.is_file()]
    loose = [path.name for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077 and path.suffix != ".pid"]
    assert len(files) >= 5
    assert loose == []


def test_children_of_a_killed_supervisord_live_and_are_taken_over_by_successors(state: Path) -> None:
    supervisor = Supervisor(state)
    supervisor.keep(_sleeper())
    _until(lambda: process.find(state, "one"))
    daemon, child = process.find(state, "supervisord"), process.find(state, "one")
    assert daemon is not None
    assert child is not None
    daemon.signal(signal.SIGKILL)
    _until(lambda: not daemon.alive())
    assert child.alive()
    assert supervisor.keep(_sleeper())
    assert not child.alive()
    _until(lambda: process.find(state, "one"))


def test_all_is_stopped_even_without_supervisord(state: Path) -> None:
    supervisor = Supervisor(state)
    supervisor.keep(_sleeper("etcd-0"))
    stubborn = Program("kube-apiserver-0", ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.2; done"])
    supervisor.keep(stubborn)
    _until(lambda: process.find(state, "kube-apiserver-0"))  # its name comes with its exec
    daemon = process.find(state, "supervisord")
    assert daemon is not None
    daemon.signal(signal.SIGKILL)
    stopped, left = stop_all(state, patience=0.5)
    assert left == []
    names = [one.name for one in stopped]
    assert names[-1] == "etcd-0"
    assert "kube-apiserver-0" in names
    assert process.marked(state) == []
    assert stop_all(state) == ([], [])


def test_those_that_talk_are_stopped_before_those_that_are_talked_to() -> None:
    order = ["supervisord", "agent", "fleet", "kube-scheduler-extra-3", "kube-controller-manager-0", "kube-apiserver-1"]
    assert sorted([*order, "kine-0"], key=rank) == [*order, "kine-0"]
    assert rank("kube-apiserver-0") < rank("etcd-0")


@pytest.mark.parametrize(
    ("name", "command", "environment", "words"),
    [
        ("Two words", ["x"], {}, "name 'Two words'"),
        ("one", [], {}, "command of one is empty"),
        ("one", ["x"], {"A-B": "1"}, "'A-B' is not the name of a variable"),
    ],
)
def test_what_cannot_be_a_program_is_refused(
    name: str, command: list[str], environment: dict[str, str], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Program(name, command, environment)
