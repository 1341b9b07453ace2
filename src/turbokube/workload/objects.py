"""A fleet as objects of the cluster that carries it: a Secret and a StatefulSet."""

from __future__ import annotations

import hashlib

import msgspec

from ..vnode import replica
from ..vnode.spec import Start
from . import pods
from .cluster import Object
from .pods import Carrier

FLEET = "fleet"  # the name of the StatefulSet, so that its pods are fleet-0 and on as processes of hosts are
PEM = "client.pem"
_SPEC = "turbokube.io/fleet"  # annotation: the fleet's spec
_ORDINAL = (replica.ORDINAL, "metadata.labels['apps.kubernetes.io/pod-index']")
# what glibc must not keep of what joining took (mallopt(3))
_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "16384",
}


def secret(start: Start, pem: str, namespace: str) -> Object:
    """What the pods are told: the fleet's spec, where the target is, and the fleet's own credential at it."""
    files = {replica.START: msgspec.json.encode(start), **({PEM: pem.encode()} if pem else {})}
    return pods.secret(FLEET, start.spec.run, namespace, files)


def stateful_set(start: Start, pem: str, carrier: Carrier, replicas: int) -> Object:
    """The fleet: replica k has vnodes k·block to (k+1)·block - 1."""
    run = start.spec.run
    told = hashlib.sha256(msgspec.json.encode(start) + pem.encode()).hexdigest()[:16]
    container = pods.container(replica.__name__, _ORDINAL, _ENVIRONMENT, carrier, alive=True)
    meta = pods.meta(FLEET, run, carrier.namespace, FLEET)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": meta | {"annotations": {_SPEC: msgspec.json.encode(start.spec).decode()}},
        "spec": {
            "replicas": replicas,
            "serviceName": FLEET,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": meta["labels"]},
            "template": {
                "metadata": {"labels": meta["labels"], "annotations": {"turbokube.io/told": told}},
                "spec": pods.pod(run, FLEET, container, carrier),
            },
        },
    }


def spec_of(annotations: dict[str, str]) -> bytes:
    """The fleet's spec that a StatefulSet was made with, as JSON; empty where it bears none."""
    return annotations.get(_SPEC, "").encode()
