"""The objects that a real machine's kubelet writes of itself: Node, CSINode, Events; at fidelity `kubelet` and `node`.

Modelled on what kubelet 1.36 sends (docs/fidelity.md).
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import msgspec

from . import objects
from .clock import rfc3339
from .spec import RUN_LABEL, Spec

_encode = msgspec.json.encode

# What NodeRestriction keeps nodes from giving themselves: the fleet's own identity adds them
FORBIDDEN_LABELS = {
    "kubernetes.io/role": "agent",
    "alpha.service-controller.kubernetes.io/exclude-balancer": "true",
}

# The Events of a kubelet that starts: reason, message
STARTING = (
    ("Starting", "Starting kubelet."),
    ("NodeAllocatableEnforced", "Updated Node Allocatable limit across pods"),
    ("NodeHasSufficientMemory", "Node {name} status is now: NodeHasSufficientMemory"),
    ("NodeHasNoDiskPressure", "Node {name} status is now: NodeHasNoDiskPressure"),
    ("NodeHasSufficientPID", "Node {name} status is now: NodeHasSufficientPID"),
)
READY = ("NodeReady", "Node {name} status is now: NodeReady")

_NOT_YET = ("False", "KubeletNotReady", "CSINode is not yet initialized")
_MIGRATED = ",".join(
    f"kubernetes.io/{plugin}"
    for plugin in ("aws-ebs", "azure-disk", "azure-file", "cinder", "gce-pd", "portworx-volume", "vsphere-volume")
)
_FEATURES = {"recursiveReadOnlyMounts": True, "userNamespaces": False}
_DECLARED = (
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
)


def node(spec: Spec, index: int, version: str, now: float) -> bytes:
    """The Node that a kubelet registers: not Ready yet, and with the images that it has, which make up its size."""
    name = spec.name(index)
    status = objects.status(spec, index, version, now)
    more = {"ephemeral-storage": "1Ti", "hugepages-1Gi": "0", "hugepages-2Mi": "0"}
    status["capacity"] = status["allocatable"] = status["capacity"] | more
    ready = status["conditions"][-1]
    ready["status"], ready["reason"], ready["message"] = _NOT_YET
    status["images"] = _images(spec.images)
    status["runtimeHandlers"] = [{"name": handler, "features": _FEATURES} for handler in ("", "runc")]
    status["features"] = {"supplementalGroupsPolicy": True}
    status["declaredFeatures"] = _DECLARED
    labels = {
        RUN_LABEL: spec.run,
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
        "type": "virtual-kubelet",
    }
    annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    return _encode(
        {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"taints": [objects.taint(spec, index)]},
            "status": status,
        }
    )


def labels_patch() -> bytes:
    """The merge patch with which the fleet completes a Node."""
    return _encode({"metadata": {"labels": FORBIDDEN_LABELS}})


def ready(now: float) -> bytes:
    """The patch of a kubelet that has become ready, or sees that somebody has declared it lost."""
    moment = rfc3339(now)
    conditions = [
        {
            "lastHeartbeatTime": moment,
            "lastTransitionTime": moment,
            "message": message,
            "reason": reason,
            "status": status,
            "type": kind,
        }
        for kind, status, reason, message in objects.CONDITIONS
    ]
    order = [{"type": kind} for kind, *_ in objects.CONDITIONS]
    return _encode({"status": {"$setElementOrder/conditions": order, "conditions": conditions}})


def csi_node(spec: Spec, name: str, uid: str) -> bytes:
    """The CSINode of a machine without CSI drivers."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
    return _encode(
        {
            "kind": "CSINode",
            "apiVersion": "storage.k8s.io/v1",
            "metadata": {
                "name": name,
                "labels": {RUN_LABEL: spec.run},
                "annotations": {"storage.alpha.kubernetes.io/migrated-plugins": _MIGRATED},
                "ownerReferences": [owner],
            },
            "spec": {"drivers": None},
        }
    )


def event(name: str, reason: str, message: str, now: float, reporter: str = "kubelet") -> bytes:
    """An Event about a Node, as its recorder posts it to namespace default."""
    moment = rfc3339(now)
    return _encode(
        {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {"name": f"{name}.{int(now * 1e9) + len(reason):x}", "namespace": "default"},
            "involvedObject": {"kind": "Node", "name": name, "apiVersion": "v1"},
            "reason": reason,
            "message": message.format(name=name),
            "source": {"component": reporter, "host": name},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "type": "Normal",
            "eventTime": None,
            "reportingComponent": reporter,
            "reportingInstance": name,
        }
    )


@functools.lru_cache(maxsize=4)
def _images(count: int) -> list[dict[str, Any]]:
    """A machine's images, the largest first; the same on all, as where a fleet runs the same workloads."""
    found = []
    for number in range(count, 0, -1):
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        name = f"registry.example/turbokube/image-{number:02d}"
        found.append({"names": [f"{name}@sha256:{digest}", f"{name}:v1.36.{number}"], "sizeBytes": (10 + number) << 20})
    return found
