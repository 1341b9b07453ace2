"""Load generators as objects of the cluster that carries them: a Secret and an Indexed Job."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ..api.credentials import from_kubeconfig
from . import ground, pods
from .cluster import Cluster, Object, at
from .objects import FLEET
from .pods import Carrier

LOAD = "load"  # the name of the Job and of its Secret
TOLD = "segment.json"  # the file of the Secret that a generator reads first
WORK = "/tmp"  # where it may write; its bundle is in it
MODULE = "turbokube.agent.segment"
ORDINAL = "TURBOKUBE_ORDINAL"
INDEX = "batch.kubernetes.io/job-completion-index"  # label of a pod
_PHASE = "turbokube.io/phase"
_TRIES = 3  # of a pod that ends too early, for each


class LoadJob(msgspec.Struct, frozen=True, kw_only=True):
    """The pods that share a run's load: of which cluster, how many, how they are made."""

    kubeconfig: str
    segments: int
    image: str
    context: str | None = None
    namespace: str = ""  # empty: the run's own
    pull: str = "IfNotPresent"
    pull_secret: str = ""
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    cpu: str = "100m"
    memory: str = "128Mi"

    def carrier(self, run: str) -> Carrier:
        """How the pods of a run are made."""
        return Carrier(
            namespace=self.namespace or pods.namespace_of(run),
            image=self.image,
            pull=self.pull,
            pull_secret=self.pull_secret,
            node_selector=self.node_selector,
            tolerations=self.tolerations,
            cpu=self.cpu,
            memory=self.memory,
        )


def job(run: str, phase: str, segments: int, carrier: Carrier) -> Object:
    """So many generators at once, each with its number; one that dies comes back with what it had written."""
    ordinal = (ORDINAL, f"metadata.labels['{INDEX}']")
    container = pods.container(MODULE, ordinal, {}, carrier, alive=False)
    container["volumeMounts"].append({"name": "work", "mountPath": WORK})
    spec = pods.pod(run, LOAD, container, carrier, [{"name": "work", "emptyDir": {}}])
    meta = pods.meta(LOAD, run, carrier.namespace, LOAD)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta | {"annotations": {_PHASE: phase}},
        "spec": {
            "completions": segments,
            "parallelism": segments,
            "completionMode": "Indexed",
            "backoffLimit": segments * _TRIES,
            "template": {"metadata": {"labels": meta["labels"]}, "spec": {**spec, "restartPolicy": "OnFailure"}},
        },
    }


def absent(run: str, how: LoadJob, timeout: float, *, check_mode: bool = False) -> bool:
    """No generator, and no namespace of the run unless its fleet is in it. Whether there was any."""

    async def work(cluster: Cluster) -> bool:
        namespace = how.carrier(run).namespace
        found = await ground.there(cluster, run, namespace)
        part = LOAD if ("StatefulSet", FLEET) in found else ""
        found = await ground.there(cluster, run, namespace, part)
        if found and not check_mode:
            await ground.clear(cluster, run, namespace, timeout, part)
        return bool(found)

    return asyncio.run(at(from_kubeconfig(how.kubeconfig, how.context), work))


def phase_of(annotations: dict[str, str]) -> str:
    """Which phase a Job is for."""
    return annotations.get(_PHASE, "")
