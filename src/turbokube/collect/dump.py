"""Dumps by kubectl, through openshift-client, and the ends of the components' logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import openshift_client as oc  # type: ignore[import-untyped]

from turbokube.api.target import Target

_MOST_OBJECTS = 500  # of each kind; more explains no more
_MOST_BYTES = 4 * 1024 * 1024  # of each log, its end
_TIMEOUT_S = 120
_SELECTOR = "labelSelector=turbokube.io%2Frun%3D"
# File → what is asked for. An allow-list: nothing that can hold a secret is on it.
_OBJECTS = {
    "nodes": "/api/v1/nodes?{own}",
    "nodes-not-of-the-run": "/api/v1/nodes?labelSelector=turbokube.io%2Frun%21%3D{run}",
    "leases": "/apis/coordination.k8s.io/v1/leases?{own}",
    "namespaces": "/api/v1/namespaces?{own}",
    "deployments": "/apis/apps/v1/deployments?{own}",
    "pods-pending": "/api/v1/pods?{own}&fieldSelector=status.phase%3DPending",
    "pods-failed": "/api/v1/pods?{own}&fieldSelector=status.phase%3DFailed",
    "events-warnings": "/api/v1/events?fieldSelector=type%3DWarning",
    "events": "/api/v1/events?",
    "flowschemas": "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas?",
    "prioritylevels": "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations?",
}


@dataclass
class Collected:
    """Files that were written, and what could not be had, by name."""

    files: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def collect(target: Target, run: str, state: Path, folder: Path, kubectl: str = "kubectl") -> Collected:
    """Write all there is to `folder`; what cannot be had is named, and the rest goes on."""
    done = Collected()
    folder.mkdir(parents=True, exist_ok=True)
    _objects(target, run, folder, kubectl, done)
    _logs(state / "log", folder / "logs", done)
    return done


def _objects(target: Target, run: str, folder: Path, kubectl: str, done: Collected) -> None:
    actor = "admin" if "admin" in target.kubeconfigs else next(iter(target.kubeconfigs))
    # not oc.options: it writes all of them in lower case
    context = [f"--context={target.contexts[actor]}"] if target.contexts.get(actor) else []
    with oc.client_path(kubectl), oc.api_server(kubeconfig_path=target.kubeconfigs[actor]), oc.timeout(_TIMEOUT_S):
        for name, path in _OBJECTS.items():
            asked = f"{path.format(own=_SELECTOR + run, run=run)}&limit={_MOST_OBJECTS}".replace("?&", "?")
            try:
                answer = oc.invoke("get", [*context, "--raw", asked], no_namespace=True)
            except (oc.OpenShiftPythonException, OSError) as error:
                done.errors[name] = _words(error)
                continue
            (folder / f"{name}.json").write_text(answer.out())
            done.files.append(f"{name}.json")


def _words(error: Exception) -> str:
    """The last line of what kubectl said, or of the exception."""
    said = error.result.err() if isinstance(error, oc.OpenShiftPythonException) and error.result else ""
    lines = (said or str(error)).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _logs(source: Path, folder: Path, done: Collected) -> None:
    for log in sorted(source.glob("*.log")):
        folder.mkdir(exist_ok=True)
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _MOST_BYTES))
            (folder / log.name).write_bytes(file.read())
        done.files.append(f"logs/{log.name}")
