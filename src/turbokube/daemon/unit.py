"""Processes of a run that systemd keeps: back when they end, and when their host does. Needs root, and Linux hosts."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import disk
from .control import ControlError
from .process import MARK, NAME

FOLDER = Path("/etc/systemd/system")
_TEXT = """\
[Unit]
Description=TurboKube {name} of run {run}
Wants=network-online.target
After=network-online.target

[Service]
{environment}
WorkingDirectory={state}
ExecStart={command}
StandardOutput=append:{log}
StandardError=inherit
UMask=0077
LimitNOFILE=1048576
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""


class Unit:
    """A service of a run; speaks as far as a Popen does that nobody feeds or reads."""

    def __init__(self, state: Path, name: str) -> None:
        self.name = f"turbokube-{state.resolve().name}-{name}.service"
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """What its process ended with, as soon as one has; None before."""
        words = _ask("show", "--property=NRestarts,ActiveState,ExecMainStatus", self.name)
        known = dict(line.split("=", 1) for line in words.splitlines())
        if known["ActiveState"] in ("failed", "inactive") or known["NRestarts"] != "0":
            self.returncode = int(known["ExecMainStatus"])
        return self.returncode

    def terminate(self) -> None:
        """End it for good; returns when it has ended."""
        remove([self.name])

    def wait(self, patience: float = 20.0) -> None:
        """Until it has ended."""
        end = time.monotonic() + patience
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.05)


def spawn(
    argv: Sequence[str], *, state: Path, name: str, log: Path, environment: Mapping[str, str] | None = None
) -> Unit:
    """Have systemd start a process of the run now and whenever its host does; the same marks as `process.spawn`.

    Raises ControlError where systemd does not.
    """
    unit = Unit(state, name)
    full = {**(environment or {}), MARK: str(state.resolve()), NAME: name}
    text = _TEXT.format(
        name=name,
        run=state.resolve().name,
        environment="\n".join(f"Environment={shlex.quote(f'{key}={value}')}" for key, value in full.items()),
        state=_escaped(str(state.resolve())),
        command=" ".join(shlex.quote(_escaped(word)) for word in argv),
        log=_escaped(str(log.resolve())),
    )
    disk.replace(FOLDER / unit.name, text.encode(), 0o644)
    _ask("daemon-reload")
    _ask("reset-failed", unit.name, check=False)  # what was tried too often before is tried anew
    _ask("enable", "--quiet", unit.name)
    _ask("restart", unit.name)
    return unit


def names(state: Path) -> list[str]:
    """The services of a run: those whose processes carry its mark."""
    mark = f"{MARK}={state.resolve()}"
    found = []
    for file in sorted(FOLDER.glob("turbokube-*.service")):
        try:
            words = {word for line in file.read_text().splitlines() for word in shlex.split(line, comments=True)}
        except (OSError, ValueError):
            continue
        if f"Environment={mark}" in words:
            found.append(file.name)
    return found


def remove(some: Sequence[str]) -> None:
    """Stop services and forget them."""
    if not some:
        return
    _ask("disable", "--quiet", "--now", *some)
    for name in some:
        (FOLDER / name).unlink(missing_ok=True)
    _ask("daemon-reload")


def _escaped(text: str) -> str:
    """Specifiers and variables are none (systemd.unit(5), systemd.service(5))."""
    return text.replace("%", "%%").replace("$", "$$")


def _ask(*words: str, check: bool = True) -> str:
    done = subprocess.run(
        ["systemctl", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=_plain()
    )
    if check and done.returncode:
        raise ControlError(f"systemctl {' '.join(words)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _plain() -> dict[str, str]:
    """An environment without a run's marks, which systemctl must not be found by."""
    return {key: value for key, value in os.environ.items() if key not in (MARK, NAME)}
