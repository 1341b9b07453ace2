"""What is applied to the cluster that carries a run: a namespace of its own, a Secret, a StatefulSet."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import msgspec

from ..vnode import replica
from ..vnode.spec import RUN_LABEL, Start
from .cluster import Object

FLEET = "fleet"  # the name of the StatefulSet, so that its pods are fleet-0 and on as processes of hosts are
SCRAPER = "scraper"  # the name of the account that may ask the pods for their metrics
PEM = "client.pem"
_NAME = "app.kubernetes.io/name"
_SPEC = "turbokube.io/fleet"  # annotation: the fleet's spec
# what glibc must not keep of what joining took (mallopt(3))
_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "16384",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_USER = 65532  # nobody's, as images without a distribution have it
_AWAY_S = 30  # seconds that a pod stays on a worker that does not answer, where Kubernetes would wait for 300


class Carrier(msgspec.Struct, frozen=True, kw_only=True):
    """How pods carry vnodes: where, by which image, how many each."""

    namespace: str
    image: str
    pull: str = "IfNotPresent"
    pull_secret: str = ""
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    cpu: str = ""  # of a pod; empty: by the measured cost
    memory: str = ""


def namespace_of(run: str) -> str:
    """A namespace's name for a run."""
    return f"turbokube-{re.sub('[^a-z0-9-]', '-', run.lower())}"[:63].rstrip("-")


def labels(run: str, part: str = FLEET) -> dict[str, str]:
    """What an object of a run bears."""
    return {_NAME: f"turbokube-{part}", RUN_LABEL: run}


def selector(run: str, part: str = FLEET) -> str:
    """What finds it."""
    return ",".join(f"{key}={value}" for key, value in labels(run, part).items())


def ground(run: str, namespace: str) -> list[Object]:
    """The namespace, and who may ask its pods for their metrics and do nothing else."""
    account = {"kind": "ServiceAccount", "name": SCRAPER, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {RUN_LABEL: run}}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(SCRAPER, run, namespace)},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": _meta(SCRAPER, run, namespace),
            "rules": [{"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": _meta(SCRAPER, run, namespace),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": SCRAPER},
            "subjects": [account],
        },
    ]


def secret(start: Start, pem: str, namespace: str) -> Object:
    """What the pods are told: the fleet's spec, where the target is, and the fleet's own credential at it."""
    files = {replica.START: msgspec.json.encode(start), **({PEM: pem.encode()} if pem else {})}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _meta(FLEET, start.spec.run, namespace),
        "type": "Opaque",
        "data": {name: base64.b64encode(data).decode() for name, data in files.items()},
    }


def stateful_set(start: Start, pem: str, carrier: Carrier, replicas: int, cpu: str, memory: str) -> Object:
    """The fleet: replica k has vnodes k·block to (k+1)·block - 1."""
    run = start.spec.run
    told = hashlib.sha256(msgspec.json.encode(start) + pem.encode()).hexdigest()[:16]
    container = {
        "name": "engine",
        "image": carrier.image,
        "imagePullPolicy": carrier.pull,
        "args": ["-m", replica.__name__],
        "env": [
            {
                "name": replica.ORDINAL,
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}},
            },
            *({"name": name, "value": value} for name, value in _ENVIRONMENT.items()),
        ],
        "ports": [{"name": "metrics", "containerPort": replica.PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": cpu, "memory": memory}},
        "readinessProbe": _probe("/readyz", 2, 3),
        "livenessProbe": _probe("/livez", 10, 6),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "told", "mountPath": str(replica.FOLDER), "readOnly": True}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": carrier.node_selector,
        "tolerations": [*_patience(), *carrier.tolerations],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels(run)},
            }
        ],
        "containers": [container],
        "volumes": [{"name": "told", "secret": {"secretName": FLEET, "defaultMode": 0o440}}],
        **({"imagePullSecrets": [{"name": carrier.pull_secret}]} if carrier.pull_secret else {}),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _meta(FLEET, run, carrier.namespace)
        | {"annotations": {_SPEC: msgspec.json.encode(start.spec).decode()}},
        "spec": {
            "replicas": replicas,
            "serviceName": FLEET,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels(run)},
            "template": {
                "metadata": {"labels": labels(run), "annotations": {"turbokube.io/told": told}},
                "spec": pod,
            },
        },
    }


def spec_of(annotations: dict[str, str]) -> bytes:
    """The fleet's spec that a StatefulSet was made with, as JSON; empty where it bears none."""
    return annotations.get(_SPEC, "").encode()


def _meta(name: str, run: str, namespace: str) -> Object:
    return {"name": name, "namespace": namespace, "labels": labels(run)}


def _probe(path: str, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "metrics"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _patience() -> list[Object]:
    return [
        {
            "key": f"node.kubernetes.io/{what}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _AWAY_S,
        }
        for what in ("not-ready", "unreachable")
    ]
