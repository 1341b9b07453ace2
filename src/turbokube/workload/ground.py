"""The namespace of a run in the cluster that carries it, and who may ask its pods for their metrics."""

from __future__ import annotations

import asyncio
import time

from . import pods, room
from .cluster import Bare, Cluster, Object, WorkloadError, path_of

SCRAPER = "scraper"  # the name of the account that may ask
_GONE_S = 120.0  # for a namespace to be gone, at least
_POLL_S = 0.5  # between two looks
# what a run has in a namespace, those that make others first
_KINDS = ("StatefulSet", "Job", "Secret", "RoleBinding", "Role", "ServiceAccount")


async def wanted(cluster: Cluster, run: str, namespace: str) -> list[Object]:
    """What a run needs before its pods. A namespace that was there before is used as it is.

    Raises WorkloadError for that of another run.
    """
    owner = await _owner(cluster, namespace)
    if owner not in (None, "", run):
        raise WorkloadError(f"namespace {namespace} of the fleet cluster is run {owner}'s; name another one")
    found = own(run, namespace)
    return found[1:] if owner == "" else found


async def there(cluster: Cluster, run: str, namespace: str, part: str = "") -> list[tuple[str, str]]:
    """Kind and name of what there is of a run, or of a part of it; last the namespace, if it was made for the run."""
    found = []
    for kind in _KINDS:
        collection = path_of(kind, "", namespace).rstrip("/")
        some = await cluster.items(collection, Bare, _selector(run, part))
        found += [(kind, one.metadata.name) for one in some]
    if not part and await _owner(cluster, namespace) == run:
        found.append(("Namespace", namespace))
    return found


async def clear(cluster: Cluster, run: str, namespace: str, timeout: float, part: str = "") -> None:
    """Nothing of a run, or of a part of it, and no pod. Raises WorkloadError when something is left in the end."""
    end = time.monotonic() + max(timeout, _GONE_S)
    for kind, name in await there(cluster, run, namespace, part):
        await cluster.delete(path_of(kind, name, "" if kind == "Namespace" else namespace))
    while True:
        ending = await cluster.items(_pods(namespace), room.Pod, _selector(run, part))
        await release(cluster, ending)
        left = [f"pod {pod.metadata.name}" for pod in ending]
        left += [f"{kind} {name}" for kind, name in await there(cluster, run, namespace, part)]
        if not left:
            return
        if time.monotonic() > end:
            raise WorkloadError(f"in time {', '.join(left[:5])} of run {run} have not gone from the fleet cluster")
        await asyncio.sleep(_POLL_S)


async def release(cluster: Cluster, some: list[room.Pod]) -> None:
    """Let go of pods whose worker is gone: nobody is there to tell that they ended, which what made them waits for."""
    ending = [pod for pod in some if pod.metadata.deletion_timestamp]
    if not ending:
        return
    alive = {node.metadata.name for node in await cluster.items("/api/v1/nodes", room.Node) if node.ready}
    for pod in ending:
        if pod.spec.node_name not in alive:
            await cluster.delete(f"{_pods(pod.metadata.namespace)}/{pod.metadata.name}", grace_s=0)


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def _selector(run: str, part: str) -> str:
    return pods.selector(run, part) if part else f"{pods.RUN_LABEL}={run}"


async def _owner(cluster: Cluster, namespace: str) -> str | None:
    """The run that a namespace was made for; empty where it was made for none, None where there is none."""
    found = await cluster.find("Namespace", namespace, "", Bare)
    return None if found is None else found.metadata.labels.get(pods.RUN_LABEL, "")


def own(run: str, namespace: str) -> list[Object]:
    """The namespace, and who may ask its pods for their metrics and do nothing else."""
    meta = pods.meta(SCRAPER, run, namespace, SCRAPER)
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {pods.RUN_LABEL: run}}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "Role",
            "metadata": meta,
            "rules": [{"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]}],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": SCRAPER},
            "subjects": [{"kind": "ServiceAccount", "name": SCRAPER, "namespace": namespace}],
        },
    ]
