"""What a module asks of a run: a phase, its end, or what it would take. One call each, nothing left half done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from turbokube.api.target import Target
from turbokube.bundle import runs
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import BundleError
from turbokube.daemon import process
from turbokube.daemon.control import ControlError
from turbokube.load.phase import Phase
from turbokube.load.templates import Templates

from .client import AgentClient
from .session import RunSpec


def check(target: Target, bundle: Path, spec: dict[str, Any], phase: Phase) -> None:
    """Raise, with one sentence, what would keep the phase from beginning. Starts nothing."""
    Templates(phase.check())
    target.credential("load")
    found = runs.read(bundle)
    if found is not None and not found.get("finished"):
        runs.same_profile(phase.run, found.get("profile") or {}, spec.get("profile") or {})


def ended(bundle: Path, phase: Phase) -> dict[str, Any] | None:
    """The outcome of a phase that a finished run holds; None if the run is not finished.

    Raises BundleError if the run is finished and has no such phase.
    """
    if runs.look(bundle.parent, bundle.name).state != "finished":
        return None
    with Reader(bundle) as reader:
        for row in reader.query("SELECT * FROM phases WHERE name = ?", phase.name):
            if msgspec.json.decode(row["spec"], type=Phase).same_work(phase):
                return {"state": row["state"], "note": row["note"]}
    raise BundleError(
        f"run {phase.run} is finished and holds no such phase {phase.name}; name another turbokube_run for a new run"
    )


def plan(bundle: Path, phase: Phase) -> dict[str, Any]:
    """What would be created, beyond what the ledger of an interrupted run holds already."""
    accepted = 0
    if runs.read(bundle) is not None:
        sql = "SELECT count(*) FROM objects WHERE phase = ? AND kind != 'Namespace' AND accepted IS NOT NULL"
        with Reader(bundle) as reader:
            accepted = reader.query(sql, phase.name)[0][0]
    objects = phase.namespaces * phase.deployments
    return {"namespaces": phase.namespaces, "objects": objects, "accepted": accepted, "pods": phase.pods}


def advance(client: AgentClient, log: Path, target: Target, spec: dict[str, Any], phase: Phase, wait: float) -> Any:
    """Have the phase under way and follow it for at most `wait` seconds.

    Gives `begun` (it had not ended before), `progress` and `line`. An agent that has died is started again.
    """
    try:
        _open(client, target, spec, phase.run)
        answer = client.call("submit", phase=msgspec.to_builtins(phase))
        if answer["progress"]["state"] == "running":
            answer |= client.call("follow", name=phase.name, wait=wait, timeout=wait + 60.0)
    except ConnectionError as error:
        raise ControlError(
            f"the agent ended ({error}); the same command goes on where it stopped. The end of {log}:\n"
            f"{process.tail(log)}"
        ) from None
    return answer


def finish(client: AgentClient, target: Target, bundle: Path, spec: dict[str, Any], run: str) -> bool:
    """End the run: last scrape, counts, one file. False if it was finished before, or never begun."""
    if runs.look(bundle.parent, bundle.name).state != "unfinished":
        return False
    _open(client, target, spec, run)
    client.call("finish", timeout=600.0)
    client.gone()
    return True


def _open(client: AgentClient, target: Target, spec: dict[str, Any], run: str) -> None:
    client.ensure()
    client.open(msgspec.to_builtins(msgspec.convert({**spec, "run": run, "target": target}, RunSpec)))
