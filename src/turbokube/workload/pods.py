"""What all pods that carry a run have in common; in their cluster they may do nothing."""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec

from .cluster import Object

RUN_LABEL = "turbokube.io/run"
PORT = 10255  # where they tell of themselves: a kubelet had its read-only port there
FOLDER = "/etc/turbokube"  # where they find what they are told
_NAME = "app.kubernetes.io/name"
_USER = 65532  # nobody's, as images without a distribution have it
_AWAY_S = 30  # seconds that a pod stays on a worker that does not answer, where Kubernetes would wait for 300


class Carrier(msgspec.Struct, frozen=True, kw_only=True):
    """How pods are made: where, by which image, on which workers, with what of their own."""

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


def labels(run: str, part: str) -> dict[str, str]:
    """What an object of a run bears."""
    return {_NAME: f"turbokube-{part}", RUN_LABEL: run}


def selector(run: str, part: str) -> str:
    """What finds it."""
    return ",".join(f"{key}={value}" for key, value in labels(run, part).items())


def meta(name: str, run: str, namespace: str, part: str) -> Object:
    """The metadata of an object of a run."""
    return {"name": name, "namespace": namespace, "labels": labels(run, part)}


def secret(name: str, run: str, namespace: str, files: dict[str, bytes]) -> Object:
    """What pods are told, as files of FOLDER."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta(name, run, namespace, name),
        "type": "Opaque",
        "data": {file: base64.b64encode(data).decode() for file, data in files.items()},
    }


def container(
    module: str, ordinal: tuple[str, str], environment: dict[str, str], carrier: Carrier, alive: bool
) -> Object:
    """`python -m module` in the image. `ordinal`: a variable, and the field of the pod that has its number."""
    name, field = ordinal
    return {
        "name": "turbokube",
        "image": carrier.image,
        "imagePullPolicy": carrier.pull,
        "args": ["-m", module],
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}},
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
            *({"name": name, "value": value} for name, value in environment.items()),
        ],
        "ports": [{"name": "metrics", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": carrier.cpu, "memory": carrier.memory}},
        "readinessProbe": _probe("/readyz", 2, 3),
        **({"livenessProbe": _probe("/livez", 10, 6)} if alive else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "told", "mountPath": FOLDER, "readOnly": True}],
    }


def pod(run: str, part: str, container: Object, carrier: Carrier, volumes: list[Object] | None = None) -> Object:
    """The spec of a pod: spread over the workers, without root, without rights in its cluster."""
    return {
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
                "labelSelector": {"matchLabels": labels(run, part)},
            }
        ],
        "containers": [container],
        "volumes": [{"name": "told", "secret": {"secretName": part, "defaultMode": 0o440}}, *(volumes or [])],
        **({"imagePullSecrets": [{"name": carrier.pull_secret}]} if carrier.pull_secret else {}),
    }


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
