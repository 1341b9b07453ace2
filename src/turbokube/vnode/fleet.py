"""Bringing a fleet about: what module vnode_fleet calls. Idempotent; waits; speaks in one sentence when it fails."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..api.http1 import Http1
from ..api.target import Target
from ..api.transport import ApiError, Unreachable
from ..api.watch import ListWatch
from ..daemon import control, process
from .nodes import LEASES, NODES
from .objects import Bare
from .spec import RUN_LABEL, Spec, Start, check

_POLL = 0.2  # seconds between two looks at the daemon
_PATIENCE = 30.0  # seconds for an API server to list a run's nodes and leases
# what a Node keeps from its creation: a fleet that lives cannot get another value of these
_BIRTH = ("run", "name_prefix", "placement", "vnodes_per_namespace")


class FleetError(control.ControlError):
    """A fleet that could not be brought about; the message is one for the user."""


@dataclass
class Result:
    """What was done, or with check mode would be. `before` and `after` are for a diff."""

    changed: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    pid: int | None = None
    metrics_url: str | None = None


def present(
    target: Callable[[], Target],
    state: Path,
    spec: Spec,
    *,
    wait: bool = True,
    timeout: float = 600.0,
    check_mode: bool = False,
) -> Result:
    """A fleet as `spec` says, its daemon running; with `wait` every vnode joined and Ready.

    The target is asked for only when a daemon is to be started, so that check mode works before there is one.
    Raises SpecError for a value out of bounds, FleetError when the fleet cannot be had within `timeout` seconds.
    """
    check(spec)
    daemon = _Daemon(state)
    last = daemon.spec()
    if last is not None:
        _same_birth(last, spec)
    old = last if daemon.alive() else None
    result = Result(
        changed=old != spec,
        before=msgspec.to_builtins(old) if old else {},
        after=msgspec.to_builtins(spec),
    )
    if check_mode:
        return result
    deadline = time.monotonic() + timeout
    if old is None or msgspec.structs.replace(old, count=spec.count) != spec:
        daemon.stop()
        daemon.start(target(), spec, deadline)
    elif old.count != spec.count:
        daemon.call({"op": "scale", "count": spec.count})
    result.status = daemon.wait_for(lambda now: _is_there(now, spec.count), deadline) if wait else daemon.status()
    result.pid, result.metrics_url = daemon.facts()
    return result


def absent(target: Target, state: Path, spec: Spec, *, timeout: float = 600.0, check_mode: bool = False) -> Result:
    """No Node and no Lease with the run's label, and no daemon. Of `spec`, only run and name_prefix matter.

    A daemon that died is started once more for that: removing is what it knows best.
    """
    daemon = _Daemon(state)
    left = _labelled(target, spec.run)
    alive = daemon.alive()
    known = daemon.spec() if alive else None
    result = Result(changed=alive or any(left.values()), before={"daemon": alive, **left})
    result.after = {"daemon": False, "nodes": 0, "leases": 0}
    if check_mode or not result.changed:
        return result
    deadline = time.monotonic() + timeout
    if any(left.values()):
        if known is not None:
            daemon.call({"op": "scale", "count": 0})
        else:
            daemon.start(target, msgspec.structs.replace(spec, count=0), deadline)
        daemon.wait_for(lambda now: bool(now["synced"]) and not now["present"] and not now["waiting"], deadline)
    daemon.stop()
    left = _labelled(target, spec.run)
    if any(left.values()):
        raise FleetError(
            f"{left['nodes']} nodes and {left['leases']} leases of run {spec.run} are left, whose names do not begin "
            f"with name_prefix {spec.name_prefix!r}; give the prefix that they were made with"
        )
    daemon.forget()
    return result


def info(state: Path) -> dict[str, Any]:
    """The fleet of a run as its daemon tells it; {'running': False} when there is none."""
    daemon = _Daemon(state)
    if not daemon.alive():
        return {"running": False}
    pid, url = daemon.facts()
    return {"running": True, "pid": pid, "metrics_url": url, **daemon.status()}


def _is_there(status: dict[str, Any], count: int) -> bool:
    if status["conflict"]:
        raise FleetError(status["conflict"])
    return bool(status["synced"]) and status["present"] == status["joined"] == status["ready"] == count


def _same_birth(old: Spec, new: Spec) -> None:
    for option in _BIRTH:
        was, wanted = getattr(old, option), getattr(new, option)
        if was != wanted and old.count:
            raise FleetError(
                f"{option} is {wanted!r}, but the nodes of this fleet were made with {was!r}; "
                f"allowed is {was!r} until the fleet has been absent"
            )


def _labelled(target: Target, run: str) -> dict[str, int]:
    """How many Nodes and Leases carry the run's label."""

    async def ask() -> dict[str, int]:
        credential = target.credential("fleet")
        transport = Http1(credential, target.addresses(credential), size=1)
        try:
            async with asyncio.timeout(_PATIENCE):
                (await transport.request("GET", "/version", timeout=_PATIENCE)).checked()
                return {
                    kind: await _count(transport, path, run) for kind, path in (("nodes", NODES), ("leases", LEASES))
                }
        finally:
            await transport.close()

    try:
        return asyncio.run(ask())
    except (Unreachable, ApiError, TimeoutError) as error:
        why = str(error) or f"no answer within {_PATIENCE:g} s"
        raise FleetError(f"the API server cannot be asked for the nodes of run {run}: {why}") from None


async def _count(transport: Http1, path: str, run: str) -> int:
    count = 0
    async for event in ListWatch(transport, path, Bare, {"labelSelector": f"{RUN_LABEL}={run}"}).events():
        if event.type == "SYNCED":
            break
        count += 1
    return count


class _Daemon:
    """The engine's process of one run."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._folder = state / "fleet"
        self._log = state / "log" / "fleet.log"
        self._socket = control.socket_path(state, "fleet")

    def alive(self) -> bool:
        return process.find(self._state, "fleet") is not None

    def spec(self) -> Spec | None:
        """The spec that the daemon has; None before it has one."""
        try:
            return msgspec.json.decode((self._folder / "spec.json").read_bytes(), type=Spec)
        except (OSError, msgspec.MsgspecError):
            return None

    def facts(self) -> tuple[int, str]:
        facts = msgspec.json.decode((self._folder / "state.json").read_bytes())
        return facts["pid"], facts["metrics_url"]

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return control.call(self._socket, request)
        except (ConnectionError, control.ControlError) as error:
            raise FleetError(f"the fleet's daemon cannot be steered: {error}; {self._last_words()}") from None

    def status(self) -> dict[str, Any]:
        return self.call({"op": "status"})

    def start(self, target: Target, spec: Spec, deadline: float) -> None:
        """Start it and wait until it listens. Raises FleetError with its last log lines when it dies."""
        for folder in (self._state, self._folder, self._log.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        credential = target.credential("fleet")
        file = self._folder / "start.json"
        file.unlink(missing_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(msgspec.json.encode(Start(spec, credential, target.addresses(credential))))
        (self._folder / "state.json").unlink(missing_ok=True)
        argv = [sys.executable, "-m", "turbokube.vnode", "--state", str(self._state.resolve())]
        child = process.spawn(argv, state=self._state, name="fleet", log=self._log)
        while not (self._folder / "state.json").exists():
            if child.poll() is not None:
                raise FleetError(f"the fleet's daemon ended with code {child.returncode}; {self._last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                file.unlink(missing_ok=True)
                raise FleetError(f"the fleet's daemon met no API server in time; {self._last_words()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and leave what is on the API server."""
        if (daemon := process.find(self._state, "fleet")) is not None:
            process.stop([daemon])

    def forget(self) -> None:
        """Nothing is left of what the spec said."""
        (self._folder / "spec.json").unlink(missing_ok=True)

    def wait_for(self, done: Any, deadline: float) -> dict[str, Any]:
        """Its status, once `done` of it is true."""
        while True:
            status = self.status()
            if done(status):
                return status
            if time.monotonic() > deadline:
                raise FleetError(
                    f"in time only {status['ready']} of {status['wanted']} vnodes are Ready "
                    f"({status['present']} present, {status['joined']} joined); {self._last_words()}"
                )
            time.sleep(_POLL)

    def _last_words(self) -> str:
        return f"the last lines of {self._log}:\n{process.tail(self._log)}"
