"""Bringing a fleet about: what module vnode_fleet calls. Idempotent; waits; speaks in one sentence when it fails."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..api.http1 import Http1
from ..api.target import Target
from ..api.transport import ApiError, Unreachable
from ..api.watch import ListWatch
from ..daemon import control, process, unit
from . import files, join
from .nodes import LEASES, NODES
from .objects import Bare
from .server import certificate, listener
from .spec import RUN_LABEL, Spec, Start, check

# What glibc must not keep of what joining took (mallopt(3)): a tenth of the memory of 1,000 vnodes at `lease`
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "16384"}
_POLL = 0.2  # seconds between two looks at the daemons
_PATIENCE = 30.0  # seconds for an API server to list a run's nodes and leases
# what a Node keeps from its creation: a fleet that lives cannot get another value of these
_BIRTH = ("run", "name_prefix", "placement", "vnodes_per_namespace", "engine")
_NAME = re.compile(r"fleet(-\d+)?")
_WORST = ("lateness_p99", "oldest_renewal")  # of the processes' statuses the greatest counts, not the sum


class FleetError(control.ControlError):
    """A fleet that could not be brought about; the message is one for the user."""


@dataclass
class Result:
    """What was done, or with check mode would be. `before` and `after` are for a diff; `started`: which processes."""

    changed: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    metrics_urls: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        """The process's id, if there is one process."""
        return self.pids[0] if len(self.pids) == 1 else None

    @property
    def metrics_url(self) -> str | None:
        """The process's metrics, if there is one process."""
        return self.metrics_urls[0] if len(self.metrics_urls) == 1 else None


def present(
    target: Callable[[], Target],
    state: Path,
    spec: Spec,
    *,
    wait: bool = True,
    timeout: float = 600.0,
    check_mode: bool = False,
    manager: str = "process",
) -> Result:
    """A fleet as `spec` says, its processes running; with `wait` every vnode joined and Ready.

    Of a fleet on several hosts, this host's share. `manager`: systemd keeps the processes, or nobody does (process).
    The target is asked for only when a process is to be started, so that check mode works before there is one.
    Raises SpecError for a value out of bounds, FleetError when the fleet cannot be had within `timeout` seconds.
    """
    check(spec)
    if spec.engine == "builtin":
        files.check(spec)
    there = _There(state)
    for last in there.specs.values():
        same_birth(last, spec)
    wanted = names(spec)
    kept = [name for name in wanted if there.living(name, count=spec.count) == spec]
    missing = [name for name in wanted if name not in kept]
    result = Result(
        changed=any(there.living(name) != spec for name in wanted) or bool(there.alive.keys() - set(wanted)),
        before=there.facts(),
        after=_facts(spec),
    )
    if check_mode:
        return result
    deadline = time.monotonic() + timeout
    if spec.fidelity != "lease":
        join.prepare(target(), state, spec, deadline)
    # all that must go go before the first comes: no two processes hold the same vnode
    there.stop(there.alive.keys() - set(kept))
    there.forget(there.specs.keys() - set(wanted))
    if missing:
        _start([_Daemon(state, name, manager) for name in missing], target(), spec, deadline)
        result.started = missing
    for name in kept:
        if manager == "systemd":
            _Daemon(state, name).await_back(deadline)
        if there.specs[name].count != spec.count:
            _Daemon(state, name).call({"op": "scale", "count": spec.count})
    daemons = [_Daemon(state, name) for name in wanted]
    mine = len(spec.here)
    result.status = _wait_for(daemons, lambda now: _is_there(now, mine), deadline) if wait else _status(daemons)
    for daemon in daemons:
        pid, url = daemon.facts()
        result.pids.append(pid)
        result.metrics_urls.append(url)
    return result


def absent(target: Target, state: Path, spec: Spec, *, timeout: float = 600.0, check_mode: bool = False) -> Result:
    """No Node and no Lease with the run's label, and no process. Of `spec`, only run, name_prefix and hosts matter.

    Where processes have died, one is started for all: removing is what it knows best. On several hosts each removes its
    own and waits for the others, which are at it too.
    """
    there = _There(state)
    left = _labelled(target, spec.run)
    result = Result(changed=bool(there.alive) or any(left.values()), before={"daemon": bool(there.alive), **left})
    result.after = {"daemon": False, "nodes": 0, "leases": 0}
    if check_mode or not result.changed:
        return result
    deadline = time.monotonic() + timeout
    if any(left.values()):
        daemons = [_Daemon(state, name) for name in there.whole(spec)]
        if daemons:
            for daemon in daemons:
                daemon.call({"op": "scale", "count": 0})
        else:
            there.stop(there.alive)
            one = msgspec.structs.replace(spec, count=0, processes=spec.hosts, serve=False)
            daemons = [_Daemon(state, name) for name in names(one)]
            _start(daemons, target, one, deadline)
        _wait_for(daemons, lambda now: bool(now["synced"]) and not now["present"] and not now["waiting"], deadline)
    there = _There(state)
    there.stop(there.alive)
    left = _labelled(target, spec.run)
    while any(left.values()) and spec.hosts > 1 and time.monotonic() < deadline:  # what is left is other hosts'
        time.sleep(1.0)
        left = _labelled(target, spec.run)
    if any(left.values()):
        raise FleetError(
            f"{left['nodes']} nodes and {left['leases']} leases of run {spec.run} are left, whose names do not begin "
            f"with name_prefix {spec.name_prefix!r}; give the prefix that they were made with"
        )
    there.forget(there.specs)
    shutil.rmtree(state / "fleet" / "pki", ignore_errors=True)
    return result


def info(state: Path) -> dict[str, Any]:
    """The fleet of a run as its processes tell it; {'running': False} when there is none.

    `dead` names those that should live and do not; the counts are then those of the others.
    """
    there = _There(state)
    known = next((spec for name, spec in there.specs.items() if name in there.alive), None)
    if known is None:
        return {"running": False}
    wanted = names(known)
    daemons = [_Daemon(state, name) for name in wanted if name in there.alive]
    dead = [name for name in wanted if name not in there.alive]
    pids, urls = (list(each) for each in zip(*(daemon.facts() for daemon in daemons), strict=True))
    one = {"pid": pids[0], "metrics_url": urls[0]} if len(wanted) == 1 else {}
    return {
        "running": not dead,
        "dead": dead,
        **one,
        "pids": pids,
        "metrics_urls": urls,
        **_status(daemons),
        "wanted": known.count,
    }


def names(spec: Spec) -> list[str]:
    """The processes that a fleet has here: in /proc, in the run's state folder and among a run's components."""
    return ["fleet"] if spec.processes == 1 else [f"fleet-{number}" for number in spec.shards]


def merged(statuses: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The status of a fleet from those of its processes: counts are summed, of texts the first that says something."""
    found: dict[str, Any] = {}
    for key, first in statuses[0].items():
        each = [status[key] for status in statuses]
        if isinstance(first, dict):
            found[key] = merged(each)
        elif isinstance(first, bool):
            found[key] = all(each)
        elif isinstance(first, str):
            found[key] = next(filter(None, each), "")
        else:
            found[key] = max(each) if key in _WORST else sum(each)
    return found


def _is_there(status: dict[str, Any], count: int) -> bool:
    if status["conflict"]:
        raise FleetError(status["conflict"])
    if status.get("excused"):  # those that a fault keeps from being there, which is as it was wished
        return bool(status["synced"]) and status["ready"] + status["excused"] == count
    return bool(status["synced"]) and status["present"] == status["joined"] == status["ready"] == count


def same_birth(old: Spec, new: Spec) -> None:
    """Raises FleetError where the nodes of a fleet that is there cannot get what a new spec has."""
    for option in _BIRTH:
        was, wanted = getattr(old, option), getattr(new, option)
        if was != wanted and old.count:
            raise FleetError(
                f"{option} is {wanted!r}, but the nodes of this fleet were made with {was!r}; "
                f"allowed is {was!r} until the fleet has been absent"
            )


def _facts(spec: Spec) -> dict[str, Any]:
    """A spec as a user knows it."""
    facts: dict[str, Any] = msgspec.to_builtins(spec)
    for ours in ("shard", "host"):
        del facts[ours]
    return facts


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


class _There:
    """What there is of a run's fleet: processes that live, and the specs that processes had when last heard of."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.alive = {found.name: found for found in process.marked(state) if _NAME.fullmatch(found.name)}
        self.specs: dict[str, Spec] = {}
        for file in sorted(state.glob("fleet*/spec.json")):
            try:
                self.specs[file.parent.name] = msgspec.json.decode(file.read_bytes(), type=Spec)
            except (OSError, msgspec.MsgspecError):
                continue  # half of a spec is none

    def living(self, name: str, **changes: Any) -> Spec | None:
        """The spec of a process, if it lives and has one; with changes."""
        spec = self.specs.get(name) if name in self.alive else None
        return msgspec.structs.replace(spec, **changes) if spec else None

    def whole(self, wish: Spec) -> list[str]:
        """The names of the processes, if all live and agree on how many they are, on as many hosts; else none."""
        found = [self.living(name) for name in self.alive]
        first = found[0] if found else None
        if first is None or (first.hosts, first.host) != (wish.hosts, wish.host):
            return []
        agreed = all(spec and spec.processes == first.processes for spec in found)
        return names(first) if agreed and self.alive.keys() == set(names(first)) else []

    def facts(self) -> dict[str, Any]:
        """What a diff tells of the fleet; empty when no process of it lives."""
        known = next((spec for name, spec in self.specs.items() if name in self.alive), None)
        if known is None:
            return {}
        dead = [name for name in names(known) if name not in self.alive]
        return _facts(known) | ({"dead": dead} if dead else {})

    def stop(self, some: Iterable[str]) -> None:
        """End processes and leave what is on the API server."""
        ending = list(some)
        kept = {unit.Unit(self._state, name).name for name in ending}
        unit.remove([name for name in unit.names(self._state) if name in kept])
        process.stop([self.alive[name] for name in ending])

    def forget(self, some: Iterable[str]) -> None:
        """Nothing is left of what their specs said."""
        for name in some:
            for file in ("spec.json", "faults.json", "start.json"):
                (self._state / name / file).unlink(missing_ok=True)


class _Daemon:
    """One engine process of a run."""

    def __init__(self, state: Path, name: str, manager: str = "process") -> None:
        self.name = name
        self.state = state
        self.manager = manager
        self._folder = state / name
        self._log = state / "log" / f"{name}.log"
        self._socket = control.socket_path(state, name)

    def facts(self) -> tuple[int, str]:
        """Its pid, and where its metrics are."""
        try:
            facts = msgspec.json.decode((self._folder / "state.json").read_bytes())
        except FileNotFoundError:
            raise FleetError(f"{self.name} of the fleet's daemon has ended; {self.last_words()}") from None
        return facts["pid"], facts["metrics_url"]

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return control.call(self._socket, request)
        except (ConnectionError, control.ControlError) as error:
            raise FleetError(
                f"the fleet's daemon {self.name} cannot be steered: {error}; {self.last_words()}"
            ) from None

    def spawn(self, start: Start) -> subprocess.Popen[bytes] | unit.Unit:
        """Start its process, which is not ready yet."""
        for folder in (self.state, self._folder, self._log.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._folder / "start.json"
        file.unlink(missing_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(msgspec.json.encode(start))
        (self._folder / "state.json").unlink(missing_ok=True)
        argv = [sys.executable, "-m", "turbokube.vnode", "--state", str(self.state.resolve()), "--name", self.name]
        if self.manager == "systemd":
            return unit.spawn(argv, state=self.state, name=self.name, log=self._log, environment=_MALLOC)
        return process.spawn(argv, state=self.state, name=self.name, log=self._log, environment=_MALLOC)

    def await_up(self, child: subprocess.Popen[bytes] | unit.Unit, deadline: float) -> None:
        """Wait until it listens. Raises FleetError with its last log lines when it dies."""
        while not (self._folder / "state.json").exists():
            if child.poll() is not None:
                raise FleetError(
                    f"the fleet's daemon {self.name} ended with code {child.returncode}; {self.last_words()}"
                )
            if time.monotonic() > deadline:
                (self._folder / "start.json").unlink(missing_ok=True)
                raise FleetError(f"the fleet's daemon {self.name} met no API server in time; {self.last_words()}")
            time.sleep(0.05)

    def await_back(self, deadline: float) -> None:
        """Wait until it listens again, if systemd has just started it."""
        while not (self._folder / "state.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    def last_words(self) -> str:
        return f"the last lines of {self._log}:\n{process.tail(self._log)}"


def _start(daemons: list[_Daemon], target: Target, spec: Spec, deadline: float) -> None:
    """Start processes and wait until all of them listen; none stays when one does not come up."""
    credential = target.credential("fleet")
    servers = target.addresses(credential)
    shards = {daemon: int(daemon.name.partition("-")[2] or 0) for daemon in daemons}
    pem = ""
    if spec.serve:
        for shard in shards.values():
            listener.check(spec.part(shard), servers)
        pem = str(certificate.ensure(daemons[0].state / "fleet" / "serving.pem", spec.run).resolve())
    children = {}
    for daemon, shard in shards.items():
        children[daemon] = daemon.spawn(Start(spec, credential, servers, shard, pem, daemon.manager == "systemd"))
    try:
        for daemon, child in children.items():
            daemon.await_up(child, deadline)
    except FleetError:
        for child in children.values():
            child.terminate()
        for child in children.values():
            child.wait()
        raise


def _status(daemons: list[_Daemon]) -> dict[str, Any]:
    return merged([daemon.call({"op": "status"}) for daemon in daemons])


def _wait_for(daemons: list[_Daemon], done: Callable[[dict[str, Any]], bool], deadline: float) -> dict[str, Any]:
    """Their status, once `done` of it is true."""
    while True:
        each = [daemon.call({"op": "status"}) for daemon in daemons]
        status = merged(each)
        if done(status):
            return status
        if time.monotonic() > deadline:
            slowest, _ = min(zip(daemons, each, strict=True), key=lambda pair: pair[1]["ready"] - pair[1]["wanted"])
            raise FleetError(
                f"in time only {status['ready']} of {status['wanted']} vnodes are Ready "
                f"({status['present']} present, {status['joined']} joined); {slowest.last_words()}"
            )
        time.sleep(_POLL)
