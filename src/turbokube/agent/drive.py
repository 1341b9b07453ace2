"""What a module asks of a run: a phase, its end, or what it would take. One call each, nothing left half done."""

from __future__ import annotations

from collections.abc import Sequence
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
from turbokube.profile.phases import Create, objects_of, pods_of

from .client import AgentClient
from .spec import RunSpec


def check(target: Target, bundle: Path, spec: dict[str, Any], run: str) -> None:
    """Raise, with one sentence, what would keep the run from being gone on with. Starts nothing."""
    target.credential("load")
    found = runs.read(bundle)
    if found is not None and not found.get("finished"):
        runs.same_profile(run, found.get("profile") or {}, spec.get("profile") or {})


def ended(bundle: Path, run: str, phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """The outcomes of phases that a finished run holds; none if the run is not finished.

    Raises BundleError if the run is finished and does not have them all.
    """
    if runs.look(bundle.parent, bundle.name).state != "finished":
        return []
    with Reader(bundle) as reader:
        rows = {row["name"]: row for row in reader.query("SELECT * FROM phases")}
    for phase in phases:
        if phase.name not in rows or not _phase_of(rows[phase.name]).same_work(phase):
            raise BundleError(
                f"run {run} is finished and holds no such phase {phase.name}; name another turbokube_run for a new run"
            )
    return [
        {"phase": phase.name, "state": rows[phase.name]["state"], "note": rows[phase.name]["note"]} for phase in phases
    ]


def begun(bundle: Path) -> list[Phase]:
    """The phases that a run has had so far, in their order."""
    if runs.read(bundle) is None:
        return []
    with Reader(bundle) as reader:
        return [_phase_of(row) for row in reader.query("SELECT spec FROM phases ORDER BY started")]


def _phase_of(row: Any) -> Phase:
    phase: Phase = msgspec.json.decode(row["spec"], type=Phase)
    return phase


def plan(bundle: Path, phase: Phase) -> dict[str, Any]:
    """What the phase would do, beyond what the ledger of an interrupted run holds already."""
    found: dict[str, Any] = {"name": phase.name, "kind": phase.kind, "namespaces": phase.namespaces}
    if not isinstance(phase, Create):
        return found
    accepted = 0
    if runs.read(bundle) is not None:
        sql = "SELECT count(*) FROM objects WHERE phase = ? AND kind != 'Namespace' AND accepted IS NOT NULL"
        with Reader(bundle) as reader:
            accepted = reader.query(sql, phase.name)[0][0]
    return found | {"objects": objects_of(phase), "accepted": accepted, "pods": pods_of(phase)}


def advance(
    client: AgentClient, log: Path, target: Target, spec: dict[str, Any], phases: Sequence[Phase], wait: float
) -> Any:
    """Have phases under way, side by side, and follow them for at most `wait` seconds.

    Gives `begun` (not all had ended before), `progress` and `lines`. An agent that has died is started again.
    """
    names = [phase.name for phase in phases]
    try:
        _open(client, target, spec, phases[0].run)
        answer = client.call("submit", phases=msgspec.to_builtins(list(phases)))
        if any(one["state"] == "running" for one in answer["progress"]):
            answer |= client.call("follow", names=names, wait=wait, timeout=wait + 60.0)
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
