"""supervisord as the keeper of a run's processes: configured by files, steered by XML-RPC over its unix socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from turbokube.daemon import control, process

from .health import Health

_ENDED = ("BACKOFF", "FATAL", "EXITED", "STOPPED", "UNKNOWN")
_POLL = 0.1
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Of the user's environment only this reaches a component: what else is set there is no part of the run
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "XDG_RUNTIME_DIR")
# The first words with which Kubernetes' components and etcd refuse their command line, and Go's own last ones
_WORDS = re.compile(
    r"^(Error:|error:|[EF]\d{4} |panic:|fatal error:|.*\"level\":\"(fatal|error)\"|.*FATA)"
    r"|unknown flag|flag provided but"
)


class ProcessFailed(control.ControlError):
    """A process ended when it should have run, or was not healthy in time; carries the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """A process that is to be kept running. `command[0]` is a path; values of `environment` are texts."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r}: lower-case letters, digits and dashes are allowed")
        if not self.command:
            raise ValueError(f"command of {self.name} is empty")
        for variable in self.environment:
            if not _VARIABLE.fullmatch(variable):
                raise ValueError(f"environment of {self.name}: {variable!r} is not the name of a variable")

    def script(self) -> str:
        """What supervisord runs: a shell script that becomes the process.

        It writes the log itself: a pipe to supervisord would kill a Go program with SIGPIPE when supervisord dies.
        """
        exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(self.environment.items())]
        where = [f"cd {shlex.quote(self.directory)}"] if self.directory else []
        command = " \\\n  ".join(shlex.quote(word) for word in self.command)
        log = f'>>"$TURBOKUBE_STATE"/log/{self.name}.log 2>&1'
        return "\n".join(["set -e", "umask 077", *exports, *where, f"exec {command} \\\n  {log}", ""])

    def section(self) -> str:
        """Its part of supervisord's configuration."""
        return (
            f"[program:{self.name}]\n"
            f"command=/bin/sh ./{self.name}.sh\n"
            "directory=%(here)s\n"
            f'environment={process.NAME}="{self.name}"\n'
            # started by keep, in its turn; one that dies in the middle of a run is brought back, however often
            "autostart=false\nautorestart=true\nstartretries=1000000\nstartsecs=1\n"
            # a graceful stop of kube-apiserver can outlast a minute
            "stopsignal=TERM\nstopwaitsecs=90\n"
            "stdout_logfile=NONE\nredirect_stderr=true\n"
        )


class Supervisor:
    """The supervisord of one run. Files: <state>/supervisor/{supervisord.conf,<name>.ini,<name>.sh}, <state>/log."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.folder = state / "supervisor"

    def keep(self, program: Program, *, restart: bool = False) -> bool:
        """Have a program run as described; whether anything was done for it. Does not wait for its health."""
        with self._locked():
            changed = self._write(program)
            self._start_daemon()
            with self._proxy() as proxy:
                self._reload(proxy)
                state = proxy.getProcessInfo(program.name)["statename"]
                running = state in ("RUNNING", "STARTING")
                if running and (changed or restart):
                    proxy.stopProcess(program.name)
                    running = False
                if not running:
                    with _tolerated("ALREADY_STARTED"):
                        proxy.startProcess(program.name, False)
                    changed = True
        return changed

    def remove(self, name: str) -> bool:
        """Stop a program and forget it; whether there was one."""
        if not (self.folder / f"{name}.ini").exists():
            return False
        with self._locked():
            for suffix in (".ini", ".sh"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)
            if self.running():
                with self._proxy() as proxy:
                    self._reload(proxy)
        if left := process.find(self.state, name):  # supervisord was killed before
            process.stop([left], patience=90.0)
        return True

    def would_change(self, program: Program, *, restart: bool = False) -> bool:
        """What keep would return, without doing it."""
        return restart or self.current(program.name) != program.script() or self.info(program.name)["pid"] == 0

    def current(self, name: str) -> str:
        """The script of a program as it is now; empty when there is none."""
        try:
            return (self.folder / f"{name}.sh").read_text()
        except FileNotFoundError:
            return ""

    def info(self, name: str) -> dict[str, Any]:
        """pid (0: does not run), state (supervisord's word), start (UNIX seconds)."""
        found = {"statename": "UNKNOWN", "pid": 0, "start": 0}
        with contextlib.suppress(OSError), self._proxy() as proxy, _tolerated("BAD_NAME"):
            found = proxy.getProcessInfo(name)
        return {
            "pid": found["pid"],
            "state": found["statename"],
            "start": found["start"],
        }

    def wait(self, name: str, health: Health | None, *, timeout: float) -> None:
        """Return when a process is healthy. Raises ProcessFailed as soon as it ends, or after `timeout` seconds.

        A process that ended is stopped, so that it is not tried again and again in vain.
        """
        end = time.monotonic() + timeout
        first = self.info(name)
        while True:
            why = health.check() if health else ""
            now = self.info(name)
            if now["state"] in _ENDED or now["start"] != first["start"]:
                self._halt(name)
                raise ProcessFailed(self._obituary(name))
            # without a health to ask for, one that survived its first second is taken for started
            if not why and (health or now["state"] == "RUNNING"):
                return
            if time.monotonic() > end:
                raise ProcessFailed(f"{name} was not healthy within {timeout:g} s ({why})\n{self._last(name)}")
            time.sleep(_POLL)

    def running(self) -> bool:
        """Whether this run's supervisord lives and answers."""
        with contextlib.suppress(OSError), self._proxy() as proxy:
            proxy.getState()
            return True
        return False

    def _halt(self, name: str) -> None:
        with self._proxy() as proxy, _tolerated("NOT_RUNNING"):
            proxy.stopProcess(name)

    def _obituary(self, name: str) -> str:
        lines = process.tail(self.state / "log" / f"{name}.log", 40).splitlines()
        words = next((line for line in reversed(lines) if _WORDS.search(line)), lines[-1] if lines else "no word")
        return f"{name} ended: {words.strip()}\n{self._last(name)}"

    def _last(self, name: str) -> str:
        log = self.state / "log" / f"{name}.log"
        return f"The last lines of {log}:\n{process.tail(log)}"

    def _write(self, program: Program) -> bool:
        """Write a program's two files; whether they differ from what was there."""
        changed = False
        for suffix, text in ((".sh", program.script()), (".ini", program.section())):
            path = self.folder / f"{program.name}{suffix}"
            if not path.exists() or path.read_text() != text:
                _write_private(path, text)
                changed = True
        return changed

    def _reload(self, proxy: Any) -> None:
        """Make supervisord know the programs that there are files for, as they are now described."""
        added, changed, removed = proxy.reloadConfig()[0]
        for name in (*removed, *changed):
            proxy.stopProcessGroup(name)
            proxy.removeProcessGroup(name)
        for name in (*added, *changed):
            proxy.addProcessGroup(name)

    def _start_daemon(self) -> None:
        if self.running():
            return
        # children outlive a supervisord that was killed, and hold the ports that their successors need
        known = {path.stem for path in self.folder.glob("*.ini")} | {"supervisord"}
        process.stop([one for one in process.marked(self.state) if one.name in known], patience=5.0)
        socket = control.socket_path(self.state, "supervisord")
        _write_private(self.folder / "supervisord.conf", _configuration(socket))
        self._spawn()
        end = time.monotonic() + 20.0
        while not self.running():
            if time.monotonic() > end:
                said = process.tail(self.state / "log" / "supervisord.log")
                raise ProcessFailed(f"supervisord did not answer on {socket} within 20 s\n{said}")
            time.sleep(_POLL)

    def _spawn(self) -> None:
        log = self.state / "log" / "supervisord.log"
        keep = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        process.spawn(
            [
                "/usr/bin/env", "-i",
                *(f"{name}={value}" for name, value in keep.items()),
                f"{process.MARK}={self.state.resolve()}",
                f"{process.NAME}=supervisord",
                sys.executable, "-m", "supervisor.supervisord", "-c", str(self.folder / "supervisord.conf"),
            ],
            state=self.state, name="supervisord", log=log,
        )  # fmt: skip

    @contextlib.contextmanager
    def _proxy(self) -> Iterator[Any]:
        """supervisord's own interface. Raises an OSError when there is no supervisord or it does not answer."""
        from supervisor.xmlrpc import SupervisorTransport

        # the socket's folder depends on the environment of who started it, so the configuration is asked
        text = (self.folder / "supervisord.conf").read_text()
        transport = SupervisorTransport(None, None, "unix://" + text.splitlines()[1].removeprefix("file="))
        try:
            yield ServerProxy("http://localhost", transport=transport).supervisor
        finally:
            transport.close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One caller at a time: Ansible runs the module for several hosts of one machine at once."""
        for folder in (self.folder, self.state / "log"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _configuration(socket: Path) -> str:
    return (
        f"[unix_http_server]\nfile={socket}\nchmod=0600\n"
        "[supervisord]\nnodaemon=true\numask=077\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
        "pidfile=%(here)s/supervisord.pid\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        "[include]\nfiles=*.ini\n"
    )


@contextlib.contextmanager
def _tolerated(*names: str) -> Iterator[None]:
    """Pass over supervisord's refusals of these names; raise any other as ProcessFailed."""
    try:
        yield
    except Fault as fault:
        if not fault.faultString.startswith(names):
            raise ProcessFailed(f"supervisord: {fault.faultString}") from None


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
